"""``fab canary`` and ``fab rollback-rq`` as Fabric knows them."""

from __future__ import annotations

from invoke import Context, task

from scripts.ops import tasks
from scripts.ops.output import ends
from scripts.ops.tasks import CHANGE


@task(
    help=CHANGE
    | {
        "ratio": "The share that goes to Celery, from 0 to 1.",
        "seconds": "Watch so long (default: 300).",
        "errors": "Celery's error rate may be so much above RQ's (default: 0.02).",
        "slower": "Celery's 95th percentile may be so many times RQ's (default: 1.5).",
    }
)
@ends
def canary(
    c: Context,
    # The first by its letter takes it: -e is the inventory, as everywhere.
    env: str = "local",
    limit: str = "",
    ratio: float = 0.2,
    seconds: float = 300.0,
    errors: float = 0.02,
    slower: float = 1.5,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Move a share of documents' work to Celery; stop by itself where Celery is worse."""
    from scripts.ops import documents

    return documents.canary(
        tasks.hosts(env, limit),
        ratio,
        seconds=seconds,
        errors=errors,
        slower=slower,
        dry_run=dry_run,
        as_json=json,
    )


@task(name="rollback-rq", help=CHANGE | {"seconds": "Let Celery drain so long (default: 1800)."})
@ends
def rollback_rq(
    c: Context,
    seconds: float = 1800.0,
    env: str = "local",
    limit: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Send all of documents' work back to RQ: move, drain, start RQ and its page, verify."""
    from scripts.ops import documents

    return documents.rollback(
        tasks.hosts(env, limit), seconds=seconds, dry_run=dry_run, as_json=json
    )
