"""Celery applications and kombu consumers for the tests of this folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import celery
import redis
from kombu import Consumer, Queue

from ironbeat.execution.transport import register


def application(broker: str, *, ours: bool = True, **options: Any) -> celery.Celery:
    """A Celery application, with our transport or with kombu's own."""
    app = celery.Celery("test", broker=broker, set_as_current=False)
    app.conf.broker_transport_options = options
    app.conf.task_ignore_result = True
    if ours:
        register(app)
    return app


def send(
    app: celery.Celery, *ids: str, queue: str = "default", priority: int = 0, padding: str = ""
) -> None:
    """Send one task message for each id, as much heavier as its padding is long."""
    with app.connection_for_write() as connection:
        for id in ids:
            app.send_task(
                "work",
                (id, padding),
                task_id=id,
                queue=queue,
                priority=priority,
                connection=connection,
            )


@contextmanager
def consuming(
    app: celery.Celery,
    on_message: Callable[[Any], Any],
    *queues: str,
    prefetch: int = 1,
    no_ack: bool = False,
) -> Iterator[Any]:
    """A consumer of ``queues``; yields its connection, whose ``drain_events`` makes it work."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        channel.basic_qos(0, prefetch, False)
        consumer = Consumer(
            channel,
            queues=[Queue(name, routing_key=name) for name in queues or ("default",)],
            on_message=on_message,
            accept=["json"],
            no_ack=no_ack,
        )
        consumer.consume()
        yield connection


def drain(connection: Any, until: Callable[[], bool], timeout: float = 5.0) -> None:
    """Let a consumer work until something holds."""
    deadline = time.monotonic() + timeout
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.2)


def queued(client: redis.Redis, key: str = "default") -> list[str]:
    """The ids of the messages in a list, the next one first."""
    return [json.loads(raw)["headers"]["id"] for raw in reversed(client.lrange(key, 0, -1))]
