"""Both queues compared, by what the ledger says of this workload's runs."""

from __future__ import annotations

from typing import Any

from ironbeat import CeleryMonitor, RQMonitor
from ironbeat.workloads.documents import QUEUE, store

SIDES = ("rq", "celery")


def queue_name(queue: str, side: str) -> str:
    """What the ledger calls ``queue`` on a side."""
    return f"rq:{queue}" if side == "rq" else queue


def waiting(queue: str, side: str) -> int:
    """How many runs wait on one side."""
    found = store.row("live_runs", queue=queue_name(queue, side))
    return int(found["waiting"]) if found else 0


def compared(since: float) -> dict[str, Any]:
    """Each side's figures over the last ``since`` seconds: of chunk tasks, both names.

    ``workers`` are those that listen to the workload's queue. ``retrying`` runs, which failed and
    have not ended, count as errors: three retries of a minute each are a long time.
    """
    workers = {
        "rq": RQMonitor().get_queue_stats(QUEUE)["worker_count"],
        "celery": CeleryMonitor().get_worker_stats(QUEUE)["active_workers"],
    }
    found: dict[str, Any] = {}
    for side in SIDES:
        queue = queue_name(QUEUE, side)
        live = store.row("live_runs", queue=queue) or {}
        ended = store.row("ended_runs", queue=queue, since=since) or {}
        retrying = live["retrying"]
        total, failed = ended["ended"] + retrying, ended["failed"] + retrying
        found[side] = {
            "workers": workers[side],
            "waiting": live["waiting"],
            "running": live["running"],
            "ended": ended["ended"],
            "failed": ended["failed"],
            "retrying": retrying,
            "retried": ended["retried"],
            "error_rate": failed / total if total else None,
            "p50_ms": ended["p50"],
            "p95_ms": ended["p95"],
        }
    return found
