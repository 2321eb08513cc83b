"""Celery's task events, sent while somebody listens, and keeping nobody waiting.

``task-sent``, ``task-received``, ``task-started`` and ``task-succeeded`` cost a task more than its
ledger entry does, and Redis throws them away unless Flower or ``celery events`` has subscribed.
PUBLISH says how many it reached: after a send that reached nobody, task events rest for
``REST_SECONDS``. A listener misses what happens in its first second; a worker's heartbeats always
go out.

Celery sends a heartbeat from the event loop and tries again until the broker takes it: while the
broker is away the worker would do nothing else. And what was not sent is kept without bound. Here
an event is tried once. While the broker is gone none is, and the oldest of those that wait are
dropped: they tell Flower what happens now, and the ledger what happened.
"""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import Any

from celery.events.dispatcher import EventDispatcher as StockDispatcher
from kombu.transport.redis import Channel as RedisChannel
from kombu.utils.json import dumps as kombu_dumps

from ironbeat.execution.custody import consumption

REST_SECONDS = 1.0
# The key under which a worker's dispatcher sends task events, many at once.
TOGETHER = "task.multi"
MOST_WAITING = 1000

_REACHED = "_ironbeat_reached"


class EventDispatcher(StockDispatcher):
    """The class that an application's ``events.Dispatcher`` is made from."""

    def send(self, type: str, *args: Any, **fields: Any) -> Any:
        """As Celery's; a task's event is dropped where nobody has listened a moment ago."""
        producer = self.producer if type.startswith("task-") else None
        if producer is None or consumption.broker_lost():
            return super().send(type, *args, **fields)
        if unheard(producer.channel, TOGETHER):
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


def unheard(channel: Any, routing_key: str) -> bool:
    """Whether an event under this key has just reached nobody over ``channel``.

    A channel that is asked for the first time notes from then on how many its messages reach;
    one that is not Redis' never knows.
    """
    reached = channel.__dict__.get(_REACHED)
    if reached is None:
        if isinstance(channel, RedisChannel):
            setattr(channel, _REACHED, {})
            channel._put_fanout = partial(_put_fanout, channel, channel._put_fanout)
        return False
    number, at = reached.get(routing_key, (1, 0.0))
    return not number and monotonic() - at < REST_SECONDS


def _put_fanout(
    channel: Any, stock: Any, exchange: str, message: Any, routing_key: str, **kwargs: Any
) -> None:
    """As kombu's, noting how many subscribers the message reached."""
    if kwargs.get("_publish_batch") is not None:
        stock(exchange, message, routing_key, **kwargs)
        return
    payload = kombu_dumps(message)
    with channel.conn_or_acquire() as client:
        number = sum(
            client.publish(topic, payload)
            for topic in channel._get_publish_topics(exchange, routing_key)
        )
    channel.__dict__[_REACHED][routing_key] = (number, monotonic())
