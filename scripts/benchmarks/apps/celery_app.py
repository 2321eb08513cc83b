"""Celery: as it comes, or with the settings that come nearest to Ironbeat's guarantees."""

from __future__ import annotations

import os
import time

import celery

from benchmarks import apps, body

app = celery.Celery("bench", broker=apps.broker(), backend=apps.results())
app.conf.task_default_queue = apps.QUEUE
if os.environ.get("BENCH_RELIABLE"):
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_track_started=True,
        worker_send_task_events=True,
        task_send_sent_event=True,
    )


@app.task(name="bench.nothing")
def nothing(number: int, sent_ns: int) -> None:
    """The task."""
    body.ran(number, sent_ns)


@app.task(name="bench.lasting")
def lasting(number: int, sent_ns: int, seconds: float) -> None:
    """A task that takes its time."""
    body.ran(number, sent_ns)
    time.sleep(seconds)


def send(number: int) -> None:
    """Hand one task over."""
    nothing.delay(number, time.monotonic_ns())


def send_lasting(number: int, seconds: float) -> None:
    """Hand one long task over."""
    lasting.delay(number, time.monotonic_ns(), seconds)


def flood(first: int, count: int) -> None:
    """Hand many over, one by one."""
    for number in range(first, first + count):
        nothing.delay(number, 0)


def submit_singly(count: int) -> None:
    """Hand over one by one."""
    flood(0, count)


def submit_many(count: int) -> None:
    """Hand over in one batch."""
    with app.producer_pool.acquire(block=True) as producer, producer.batch():
        for number in range(count):
            nothing.apply_async((number, 0), producer=producer)
