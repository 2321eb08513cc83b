"""Dramatiq."""

from __future__ import annotations

import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks import apps, body

dramatiq.set_broker(RedisBroker(url=apps.broker()))


@dramatiq.actor(queue_name=apps.QUEUE)
def nothing(number: int, sent_ns: int) -> None:
    """The task."""
    body.ran(number, sent_ns)


@dramatiq.actor(queue_name=apps.QUEUE)
def lasting(number: int, sent_ns: int, seconds: float) -> None:
    """A task that takes its time."""
    body.ran(number, sent_ns)
    time.sleep(seconds)


def send(number: int) -> None:
    """Hand one task over."""
    nothing.send(number, time.monotonic_ns())


def send_lasting(number: int, seconds: float) -> None:
    """Hand one long task over."""
    lasting.send(number, time.monotonic_ns(), seconds)


def flood(first: int, count: int) -> None:
    """Hand many over, one by one."""
    for number in range(first, first + count):
        nothing.send(number, 0)
