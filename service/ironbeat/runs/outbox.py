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


class Outbox:
    """Publishes what is due, a batch at a time."""

    def __init__(self, ledger: Ledger, publish: Publish) -> None:
        self.ledger = ledger
        self._publish = publish

    def sweep(self, *, limit: int = LIMIT) -> int:
        """Publish up to ``limit`` due runs; returns how many. Raises what ``publish`` raises."""
        due = self.ledger.take_due(limit=limit, hold=HOLD_SECONDS)
        if due:
            self._publish([(id, message) for id, _, _, message in due])
            self.ledger.mark_published([id for id, _, _, _ in due])
            logger.info("published %s runs from the outbox", len(due))
        return len(due)
