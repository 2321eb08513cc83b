"""Celery's task events, sent while somebody listens, and keeping nobody waiting.

``task-received``, ``task-started`` and ``task-succeeded`` cost a task about as much as its ledger
entry does, and Redis throws them away unless Flower or ``celery events`` has subscribed. PUBLISH
says how many it reached: after a send that reached nobody, task events rest for ``REST_SECONDS``.
A listener misses what happens in its first second; a worker's heartbeats always go out.

Celery sends a heartbeat from the event loop and tries again until the broker takes it: while the
broker is away the worker would do nothing else. And what was not sent is kept without bound. Here
an event is tried once. While the broker is gone none is, and the oldest of those that wait are
dropped: they tell Flower what happens now, and the ledger what happened.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from celery.events.dispatcher import EventDispatcher as StockDispatcher

from ironbeat.execution.custody import consumption

REST_SECONDS = 1.0
TOPIC = "task.multi"
MOST_WAITING = 1000


class EventDispatcher(StockDispatcher):
    """The class that an application's ``events.Dispatcher`` is made from."""

    def send(self, type: str, *args: Any, **fields: Any) -> Any:
        """As Celery's; a task's event is dropped where nobody has listened a moment ago."""
        if type.startswith("task-") and self._unheard():
            return None
        return super().send(type, *args, **fields)

    def _publish(self, event: Any, producer: Any, routing_key: str, **options: Any) -> Any:
        if consumption.broker_lost():
            return None
        options["retry"] = False
        sent = super()._publish(event, producer, routing_key, **options)
        while len(self._outbound_buffer) > MOST_WAITING:
            self._outbound_buffer.popleft()
        return sent

    def _unheard(self) -> bool:
        producer = self.producer
        channel = getattr(producer, "channel", None) if producer is not None else None
        reached, at = getattr(channel, "reached", {}).get(TOPIC, (1, 0.0))
        return not reached and monotonic() - at < REST_SECONDS
