"""A broker that has lost what it held: its messages come from the ledger again.

Redis can come back empty: without its append-only file, or because somebody flushed it. Nothing
says so, so a mark is left in it. Where the mark is missing, every run that waits for a worker is
put into the outbox once more, as far as the ledger has its message; what Redis had after all are
copies, which the guard drops. One process does it, the first one to notice; should it die in the
middle, another one does.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from celery.utils.log import get_logger

from ironbeat.runs.ledger import Ledger

logger = get_logger(__name__)

MARK_KEY = "ironbeat.mark"
TAKEN_KEY = "ironbeat.refilling"

LOOK_SECONDS = 1.0
# A run that was published just before the loss may be noted as published this much later.
LATER_SECONDS = 5.0
# Whoever began and has not ended by then has died.
TAKEN_SECONDS = 30


class Refill:
    """Looks, again and again, whether a broker still has its mark. ``client`` is asked for one."""

    def __init__(self, client: Callable[[], Any], ledger: Ledger) -> None:
        self._client = client
        self._ledger = ledger
        self._look_at = 0.0
        self._began_at: float | None = None

    def look(self) -> None:
        """Look, if it is time to; what was lost is put into the outbox.

        Raises either store's errors.
        """
        now = monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        client = self._client()
        if client.exists(MARK_KEY):
            self._began_at = None
        elif self._began_at is not None:
            self._finish(client, now - self._began_at)
        elif client.set(TAKEN_KEY, "1", nx=True, ex=TAKEN_SECONDS):
            found = self._ledger.publish_lost()
            self._began_at = now
            if found:
                logger.warning(
                    "the broker has lost its messages: %d runs are published again", found
                )

    def _finish(self, client: Any, age: float) -> None:
        if age < LATER_SECONDS:
            return
        # What was published since then is there; what was marked late is not.
        self._ledger.publish_lost(age=age - LOOK_SECONDS)
        client.set(MARK_KEY, "1")
        self._began_at = None
