"""Celery's task events, sent while somebody listens.

``task-received``, ``task-started`` and ``task-succeeded`` cost a task about as much as its ledger
entry does, and Redis throws them away unless Flower or ``celery events`` has subscribed. PUBLISH
says how many it reached: after a send that reached nobody, task events rest for ``REST_SECONDS``.
A listener misses what happens in its first second; a worker's heartbeats always go out.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from celery.events.dispatcher import EventDispatcher as StockDispatcher

REST_SECONDS = 1.0
TOPIC = "task.multi"


class EventDispatcher(StockDispatcher):
    """The class that an application's ``events.Dispatcher`` is made from."""

    def send(self, type: str, *args: Any, **fields: Any) -> Any:
        """As Celery's; a task's event is dropped where nobody has listened a moment ago."""
        if type.startswith("task-") and self._unheard():
            return None
        return super().send(type, *args, **fields)

    def _unheard(self) -> bool:
        producer = self.producer
        channel = getattr(producer, "channel", None) if producer is not None else None
        reached, at = getattr(channel, "reached", {}).get(TOPIC, (1, 0.0))
        return not reached and monotonic() - at < REST_SECONDS
