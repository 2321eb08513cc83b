"""What is stuck, since when and why: judged from what the status shows. Pure.

A finding has a ``kind`` and figures, and no sentence: each face says it in its reader's language.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from ironbeat.watch.limits import RUNNING_ALERT_SECONDS, Severity
from ironbeat.watch.report import QueueStatus, Status

Kind = Literal[
    "unreachable", "no_worker", "no_beat", "queue_unconsumed", "queue_slow", "queue_blocked",
    "schedule_overdue", "run_long", "worker_gone", "outbox", "unreadable",
    "dead_letters", "process_ended",
]  # fmt: skip

# What waits for less is on its way.
WAITING_SECONDS = 60.0
OUTBOX_SECONDS = 10.0
MOST_OF_A_KIND = 5


@dataclass(frozen=True, slots=True)
class Stuck:
    """One thing that does not move. ``subject``: its name or id; ``since`` as far as is known."""

    kind: Kind
    severity: Severity
    subject: str
    since: datetime | None
    figures: Mapping[str, Any] = field(default_factory=dict)


def find_stuck(
    seen: Status, waiting_since: Mapping[str, datetime] | None = None
) -> tuple[Stuck, ...]:
    """Everything that is stuck in ``seen``, the worst first, of each kind the longest first.

    ``waiting_since`` tells of queues since when they have not been empty.
    """
    waiting_since = waiting_since or {}
    found: list[Stuck] = []
    for source in (_stores, _processes, _queues, _schedules, _runs, _rest):
        found += source(seen, waiting_since)
    order: dict[Severity, int] = {"critical": 0, "warning": 1, "info": 2}
    return tuple(sorted(found, key=lambda each: order[each.severity]))


def _stores(seen: Status, _: Mapping[str, datetime]) -> Iterator[Stuck]:
    for problem in seen.problems:
        yield Stuck("unreachable", "critical", problem, None)


def _processes(seen: Status, _: Mapping[str, datetime]) -> Iterator[Stuck]:
    if seen.database is None:
        return
    if not any(worker.alive for worker in seen.workers):
        last = max((worker.renewed_at for worker in seen.workers), default=None)
        yield Stuck("no_worker", "critical", "", last)
    if not any(each.alive for each in (*seen.beats, *seen.schedulers)):
        last = max((beat.renewed_at for beat in seen.beats), default=None)
        yield Stuck("no_beat", "critical", "", last)
    # One that came again under the same name is there.
    alive = {worker.name for worker in seen.workers if worker.alive}
    gone = [
        each for each in seen.workers if not each.alive and each.name not in alive and each.running
    ]
    for worker in gone[:MOST_OF_A_KIND]:
        figures = {"running": ", ".join(each.task for each in worker.running)}
        yield Stuck("worker_gone", "warning", worker.name, worker.renewed_at, figures)


def _queues(seen: Status, waiting_since: Mapping[str, datetime]) -> Iterator[Stuck]:
    waiting = [queue for queue in seen.queues if _count(queue)]
    waiting.sort(key=lambda queue: -(queue.oldest_age_seconds or 0.0))
    for queue in waiting[:MOST_OF_A_KIND]:
        age = queue.oldest_age_seconds
        since = waiting_since.get(queue.name)
        if age is not None:
            oldest = seen.at - timedelta(seconds=age)
            since = oldest if since is None else min(since, oldest)
        figures: dict[str, Any] = {"length": _count(queue), "consumers": queue.consumers}
        if not queue.consumers:
            yield Stuck("queue_unconsumed", "warning", queue.name, since, figures)
        elif (age or 0.0) >= WAITING_SECONDS:
            busy = [run for run in seen.running if run.queue == queue.name]
            if busy and len(busy) >= queue.consumers:
                longest = max(busy, key=lambda run: run.seconds)
                figures |= {"task": longest.task, "seconds": longest.seconds, "id": longest.id}
                yield Stuck("queue_blocked", "warning", queue.name, since, figures)
            else:
                yield Stuck("queue_slow", "warning", queue.name, since, figures)


def _count(queue: QueueStatus) -> int:
    """What waits in a queue: in the broker, or in the ledger where there is none."""
    if queue.length is not None:
        return queue.length
    return queue.live.get("pending", 0) + queue.live.get("published", 0)


def _schedules(seen: Status, _: Mapping[str, datetime]) -> Iterator[Stuck]:
    punctual = seen.punctuality
    if punctual is not None and punctual.missed_names:
        since = seen.at - timedelta(seconds=punctual.longest_overdue_seconds)
        for number, name in enumerate(punctual.missed_names[:MOST_OF_A_KIND]):
            figures = {"overdue": punctual.overdue}
            # They come the longest overdue first; of the others only that they are is known.
            yield Stuck("schedule_overdue", "warning", name, None if number else since, figures)


def _runs(seen: Status, _: Mapping[str, datetime]) -> Iterator[Stuck]:
    long = [run for run in seen.running if run.seconds > RUNNING_ALERT_SECONDS]
    for run in long[:MOST_OF_A_KIND]:
        figures = {"task": run.task, "worker": run.worker, "seconds": run.seconds}
        yield Stuck("run_long", "warning", run.id, run.started_at, figures)


def _rest(seen: Status, _: Mapping[str, datetime]) -> Iterator[Stuck]:
    backlog = seen.backlog
    if backlog is not None and backlog.outbox_age_seconds > OUTBOX_SECONDS:
        since = seen.at - timedelta(seconds=backlog.outbox_age_seconds)
        yield Stuck("outbox", "warning", "", since, {"number": backlog.outbox_due})
    if seen.broker is not None and seen.broker.unreadable:
        yield Stuck("unreadable", "warning", "", None, {"number": seen.broker.unreadable})
    for limit in seen.broken:
        if limit.name == "dead_letters":
            yield Stuck("dead_letters", "warning", "", None, {"number": int(limit.value or 0)})
        if limit.name == "processes_stuck":
            yield Stuck("process_ended", "info", limit.note, None, {"number": limit.value})
