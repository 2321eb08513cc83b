"""RQ as its users have it: workers that fork for each job, models loaded before they do."""

from __future__ import annotations

import time
from typing import Any

import redis
from rq import Queue, Retry, Worker

from benchmarks import apps
from benchmarks.apps import documents_work as work

queue = Queue(apps.QUEUE, connection=redis.Redis.from_url(apps.broker()))


class WarmWorker(Worker):
    """RQ's worker with the models in it."""

    def work(self, *args: Any, **options: Any) -> bool:
        """As RQ's."""
        work.warm()
        return bool(super().work(*args, **options))


def _task() -> Any:
    return work.nothing if work.work() == work.NOTHING else work.describe


def send(number: int) -> None:
    """Hand one task over."""
    queue.enqueue(_task(), *work.arguments(number, time.monotonic_ns()))


def send_lasting(number: int, seconds: float) -> None:
    """Hand one long task over, which RQ may run again."""
    queue.enqueue(work.lasting, number, time.monotonic_ns(), seconds, retry=Retry(max=3))


def flood(first: int, count: int) -> None:
    """Hand many over, in one round trip."""
    queue.enqueue_many(
        [
            Queue.prepare_data(_task(), work.arguments(number, 0))
            for number in range(first, first + count)
        ]
    )
