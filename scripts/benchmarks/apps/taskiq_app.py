"""taskiq over a Redis stream."""

from __future__ import annotations

import asyncio
import time

from taskiq_redis import RedisStreamBroker

from benchmarks import apps, body

# From the first entry: by default a group that is made after a message was sent never sees it.
broker = RedisStreamBroker(url=apps.broker(), queue_name=apps.QUEUE, consumer_id="0")


@broker.task
async def nothing(number: int, sent_ns: int) -> None:
    """The task."""
    body.ran(number, sent_ns)


@broker.task
async def lasting(number: int, sent_ns: int, seconds: float) -> None:
    """A task that takes its time."""
    body.ran(number, sent_ns)
    await asyncio.sleep(seconds)


_loop = asyncio.new_event_loop()


def send(number: int) -> None:
    """Hand one task over."""
    _loop.run_until_complete(nothing.kiq(number, time.monotonic_ns()))


def send_lasting(number: int, seconds: float) -> None:
    """Hand one long task over."""
    _loop.run_until_complete(lasting.kiq(number, time.monotonic_ns(), seconds))


def flood(first: int, count: int) -> None:
    """Hand many over, one by one."""

    async def hand_over() -> None:
        for number in range(first, first + count):
            await nothing.kiq(number, 0)

    _loop.run_until_complete(hand_over())
