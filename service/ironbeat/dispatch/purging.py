"""Emptying one queue: its messages in the broker, and the runs that wait for it in the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ironbeat.execution.rq_carrier import carries, own_name
from ironbeat.runs.model import Filters

# So many runs end in one statement.
BATCH = 1000
REASON = "its queue was purged"


class QueueNotFound(LookupError):
    """No queue has this name."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge took away: ``messages`` from the broker, and ``runs`` that were cancelled."""

    queue: str
    messages: int
    runs: int


def purge_queue(app: Any, queue: str, *, reason: str = REASON) -> Purged:
    """Take away everything that waits in one queue; what is being executed goes on.

    The broker comes first: a run that ends while its message still travels is dropped by the guard,
    whereas a message taken away before its run has ended would be published again by the outbox.
    Raises :class:`QueueNotFound`, and what kombu raises when the broker cannot be reached.
    """
    if own_name(queue) not in app.amqp.queues:
        known = ", ".join(sorted(app.amqp.queues))
        raise QueueNotFound(f"no queue is named {queue!r}; there are: {known}")
    context = app.ironbeat
    messages = 0
    if context.submission.use_broker and carries(queue):
        messages = context.rq.purge(queue)
    elif context.submission.use_broker:
        # kombu purges all priority steps of the queue, and no other queue.
        with app.connection_for_write() as connection:
            messages = int(connection.default_channel.queue_purge(queue) or 0)
    runs = 0
    waiting = Filters(queue=queue, states=("pending", "published", "retrying"), limit=BATCH)
    while found := context.ledger.find(waiting):
        ended = context.ledger.end([run.id for run in found], "cancelled", reason)
        runs += len(ended)
        if not ended:
            break
    return Purged(queue, messages, runs)
