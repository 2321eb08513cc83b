"""Celery as it comes, with prefork's children that share the models of their parent."""

from __future__ import annotations

import time
from typing import Any

import celery
from celery import signals

from benchmarks import apps
from benchmarks.apps import documents_work as work

app = celery.Celery("bench", broker=apps.broker(), backend=apps.results())
app.conf.task_default_queue = apps.QUEUE
nothing = app.task(name="bench.nothing")(work.nothing)
describe = app.task(name="bench.describe")(work.describe)
lasting = app.task(name="bench.lasting")(work.lasting)


@signals.worker_init.connect
def _warm(**_: Any) -> None:
    work.warm()


def _task() -> Any:
    return nothing if work.work() == work.NOTHING else describe


def send(number: int) -> None:
    """Hand one task over."""
    _task().delay(*work.arguments(number, time.monotonic_ns()))


def send_lasting(number: int, seconds: float) -> None:
    """Hand one long task over."""
    lasting.delay(number, time.monotonic_ns(), seconds)


def flood(first: int, count: int) -> None:
    """Hand many over, in one batch."""
    task = _task()
    with app.producer_pool.acquire(block=True) as producer, producer.batch():
        for number in range(first, first + count):
            task.apply_async(work.arguments(number, 0), producer=producer)
