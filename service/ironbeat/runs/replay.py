"""Running again what has ended: a new run with the old one's message. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from ironbeat.runs.model import NewRun, Run

# The submitter publishes at once; only if it dies does the outbox, after this long.
GRACE_SECONDS = 3.0


class NotReplayable(ValueError):
    """A run cannot be run again; the message says why and what to do instead."""


def again(run: Run, *, id: str, now: datetime | None = None, succeeded_too: bool = False) -> NewRun:
    """The run that repeats ``run`` under a new ``id``, from its first try and due at once.

    What follows it in a chain follows again. It leaves its group and chord: the chord has counted
    the part already. Raises :class:`NotReplayable`.
    """
    if not run.ended:
        raise NotReplayable(
            f"run {run.id} has not ended, it is {run.state}; cancel it first, or wait"
        )
    if run.state == "succeeded" and not succeeded_too:
        raise NotReplayable(f"run {run.id} succeeded; say that it shall run again all the same")
    if not run.message:
        instead = (
            f"run its schedule with `ironbeat schedule run {run.schedule_name}`"
            if run.schedule_name
            else "submit the task anew"
        )
        raise NotReplayable(
            f"the message of run {run.id}, with its arguments, is not kept; {instead}"
        )
    created_at = now or datetime.now(UTC)
    message = _message(run.message, id, created_at)
    return NewRun(
        id=id,
        task=run.task,
        created_at=created_at,
        queue=run.queue,
        workload=run.workload,
        priority=run.priority,
        durable=True,
        schedule_name=run.schedule_name,
        parent_id=run.id,
        root_id=id,
        argsrepr=run.argsrepr,
        kwargsrepr=run.kwargsrepr,
        message=json.dumps(message, ensure_ascii=False),
        publish_after=GRACE_SECONDS,
    )


def _message(kept: Any, id: str, created_at: datetime) -> dict[str, Any]:
    body = list(kept["body"])
    if len(body) > 2 and isinstance(body[2], dict):
        body[2] = body[2] | {"chord": None}
    former = kept["headers"].get("ironbeat") or {}
    headers = kept["headers"] | {
        "id": id,
        "root_id": id,
        "parent_id": None,
        "retries": 0,
        "replaced_task_nesting": 0,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "ironbeat": former | {"created_at": created_at.isoformat(), "durable": True},
    }
    dropped = ("expiration", "delivery_tag")
    properties = {
        name: value
        for name, value in (kept.get("properties") or {}).items()
        if name not in dropped and value is not None
    }
    return {
        **kept,
        "body": body,
        "headers": headers,
        "properties": properties | {"correlation_id": id},
    }
