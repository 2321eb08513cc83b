"""RQ."""

from __future__ import annotations

import time

import redis
from rq import Queue, Retry

from benchmarks import apps, body

queue = Queue(apps.QUEUE, connection=redis.Redis.from_url(apps.broker()))


def nothing(number: int, sent_ns: int) -> None:
    """The task."""
    body.ran(number, sent_ns)


def lasting(number: int, sent_ns: int, seconds: float) -> None:
    """A task that takes its time."""
    body.ran(number, sent_ns)
    time.sleep(seconds)


def send(number: int) -> None:
    """Hand one task over."""
    queue.enqueue(nothing, number, time.monotonic_ns())


def send_lasting(number: int, seconds: float) -> None:
    """Hand one long task over, which RQ may run again."""
    queue.enqueue(lasting, number, time.monotonic_ns(), seconds, retry=Retry(max=3))


def flood(first: int, count: int) -> None:
    """Hand many over, one by one."""
    for number in range(first, first + count):
        queue.enqueue(nothing, number, 0)
