"""How workers and queues are doing, by the names that the owners call."""

from __future__ import annotations

from typing import Any

import ironbeat
from ironbeat.workloads.speech import workload

QUEUES = tuple(queue.name for queue in workload.queues)


def get_worker_stats() -> dict[str, dict[str, Any]]:
    """Each live worker by name: what it consumes, does and takes, as its lease tells."""
    return {
        worker.name: {
            "host": worker.host,
            "pid": worker.pid,
            "queues": list(worker.queues),
            "concurrency": worker.concurrency,
            "consumed": worker.consumed,
            "running": [
                {"id": each.id, "task": each.task, "seconds": each.seconds}
                for each in worker.running
            ],
            "rss_mb": worker.rss_mb,
            "cpu_pct": worker.cpu_pct,
        }
        for worker in ironbeat.suite_status().workers
        if worker.alive
    }


def get_queue_length(queue: str) -> int:
    """How many messages wait in a queue. Raises ``LookupError`` for one that does not exist, and
    ``ConnectionError`` where the broker does not answer.
    """
    lengths = {each.name: each.length for each in ironbeat.suite_status().queues}
    if queue not in lengths:
        raise LookupError(f"no queue is named {queue!r}; there are: {', '.join(sorted(lengths))}")
    length = lengths[queue]
    if length is None:
        raise ConnectionError("the broker does not answer")
    return length


def purge_queue(queue: str) -> int:
    """Take away what waits in this one queue; returns how many messages. What runs goes on.

    Raises ``LookupError`` for a queue that does not exist.
    """
    return ironbeat.purge_queue(ironbeat.TaskManager().app, queue).messages
