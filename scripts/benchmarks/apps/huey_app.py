"""Huey."""

from __future__ import annotations

import time

from huey import RedisHuey

from benchmarks import apps, body

huey = RedisHuey(apps.QUEUE, url=apps.broker())


@huey.task()
def nothing(number: int, sent_ns: int) -> None:
    """The task."""
    body.ran(number, sent_ns)


@huey.task()
def lasting(number: int, sent_ns: int, seconds: float) -> None:
    """A task that takes its time."""
    body.ran(number, sent_ns)
    time.sleep(seconds)


def send(number: int) -> None:
    """Hand one task over."""
    nothing(number, time.monotonic_ns())


def send_lasting(number: int, seconds: float) -> None:
    """Hand one long task over."""
    lasting(number, time.monotonic_ns(), seconds)


def flood(first: int, count: int) -> None:
    """Hand many over, one by one."""
    for number in range(first, first + count):
        nothing(number, 0)
