"""The outbox: runs committed to the ledger and not yet handed to the broker.

What was committed is published by whoever sees it next: its submitter at once, or else any beat or
worker that sweeps. A sweeper takes rows for a few seconds by moving ``publish_at``; if it dies they
are due again. Publishing twice is harmless, the guard drops the copy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Message

logger = logging.getLogger(__name__)

# (id, message) pairs; raises when the broker does not take them, having taken some perhaps.
Publish = Callable[[Sequence[tuple[str, Message]]], None]

HOLD_SECONDS = 5.0
LIMIT = 500
BATCH_BYTES = 8 * 1024 * 1024


# How many messages of each queue the broker may be given; ``None``: any number.
Room = Callable[[list[str]], "dict[str, int] | None"]


class Outbox:
    """Publishes what is due, a batch at a time, as far as the broker has ``room`` for it.

    ``late`` (seconds): leave what came due just now to others, who do this more often.
    """

    def __init__(
        self, ledger: Ledger, publish: Publish, room: Room | None = None, *, late: float = 0.0
    ) -> None:
        self.ledger = ledger
        self.late = late
        self._publish = publish
        self._room = room
        # Grows and shrinks with the size of the messages, which is not known before.
        self._limit = 16

    def sweep(self, *, limit: int = LIMIT) -> int:
        """Publish up to ``limit`` due runs; returns how many. Raises what ``publish`` raises."""
        asked = min(limit, self._limit)
        published = 0
        for queue, most in self._shares(asked):
            published += self._sweep(queue, most)
        # Fewer than asked for: nothing more is due, or the messages are large.
        self._limit = min(LIMIT, max(16, 4 * published))
        return published

    def _shares(self, limit: int) -> list[tuple[str | None, int]]:
        """How much to take of which queue; of all alike as long as none is full."""
        if self._room is None:
            return [(None, limit)]
        queues = self.ledger.outbox_queues()
        if not queues:
            return []
        room = self._room(queues)
        if room is None or min(room.values()) >= limit:
            return [(None, limit)]
        return [(queue, min(limit, most)) for queue, most in room.items() if most > 0]

    def _sweep(self, queue: str | None, limit: int) -> int:
        due = self.ledger.take_due(
            limit=limit,
            hold=HOLD_SECONDS,
            queue=queue,
            most_bytes=BATCH_BYTES,
            late=self.late,
        )
        if due:
            ids = [id for id, _, _, _ in due]
            try:
                self._publish([(id, message) for id, _, _, message in due])
            except Exception:
                self.ledger.not_published(ids)
                raise
            self.ledger.mark_published(ids)
            logger.info("published %s runs from the outbox", len(due))
        return len(due)
