"""The application that the workers of these tests run; configured by environment variables.

``BROKER``, ``JOURNAL`` (a file: one line for everything a task did), ``CONF`` (JSON: Celery
settings), ``STOCK`` (kombu's transport and Celery's consumer, for comparison).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from typing import Any
from uuid import uuid4

import celery
from celery import Task as StockTask
from celery import signals
from celery.exceptions import SoftTimeLimitExceeded
from celery.worker import state

from ironbeat.execution import bootsteps
from ironbeat.execution.custody import consumption
from ironbeat.execution.messages import REQUEST
from ironbeat.execution.plain import CELERYS_WAY
from ironbeat.execution.pool import TaskPool
from ironbeat.execution.transport import Channel, register


class Task(celery.Task):
    """As the guard leaves a task's class, which opens the short way to it."""

    Request = StockTask.Request if os.environ.get("STOCK") else REQUEST


app = celery.Celery(
    "worker_app",
    broker=os.environ["BROKER"],
    backend=os.environ.get("BACKEND"),
    task_cls=Task,
)
# Its line for each message, which the suite does without as well.
logging.getLogger(CELERYS_WAY).setLevel(logging.WARNING)
app.conf.update(
    task_default_queue="default",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    task_ignore_result=not os.environ.get("BACKEND"),
    result_extended=True,
)
app.conf.update(json.loads(os.environ.get("CONF", "{}")))
if not os.environ.get("STOCK"):
    register(app)
    bootsteps.install(app)
    TaskPool.min_age = float(os.environ.get("RECYCLE_MIN_AGE", "15"))
    TaskPool.min_age_by_count = float(os.environ.get("RECYCLE_MIN_AGE_BY_COUNT", "300"))
    bootsteps.StallWatch.every = 0.5
    bootsteps.StallWatch.patience = float(os.environ.get("STALL_SECONDS", "60"))
if os.environ.get("DEAF"):
    # As a worker that a defect keeps from asking for messages.
    Channel._brpop_start = lambda self, timeout=None: None


@signals.worker_init.connect
def _take_lease(**_: Any) -> None:
    consumption.lease = uuid4().hex
    write("lease", consumption.lease)


@signals.worker_ready.connect
def _ready(**_: Any) -> None:
    write("ready", "-")


def write(event: str, id: Any) -> None:
    line = f"{time.time():.4f} {os.getpid()} {event} {id}\n"
    journal = os.open(os.environ["JOURNAL"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(journal, line.encode())
    finally:
        os.close(journal)


@app.task
def note(id: Any) -> Any:
    write("did", id)
    return id


@app.task(bind=True)
def look(self: Any, id: Any, **options: Any) -> dict[str, Any]:
    """What a task finds on its request, and which way its message came."""
    request = self.request
    found = state.requests[request.id]
    write(f"came-{type(found).__name__}", id)
    return {
        name: getattr(request, name)
        for name in (
            *("id", "args", "kwargs", "headers", "retries", "hostname", "is_eager", "timelimit"),
            *("called_directly", "delivery_info", "correlation_id", "parent_id", "root_id"),
            *("callbacks", "chain", "chord", "group", "ignore_result", "expires", "stamps"),
        )
    } | {"name": found.name, "limits": found.time_limits, "began": found.time_start is not None}


@app.task
def nap(id: Any, seconds: float) -> Any:
    write("began", id)
    try:
        time.sleep(seconds)
    except BaseException as error:
        write(type(error).__name__, id)
        raise
    write("did", id)
    return id


@app.task
def stubborn(id: Any, seconds: float) -> None:
    """Swallows whatever is raised in it."""
    end = time.monotonic() + seconds
    write("began", id)
    while time.monotonic() < end:
        try:
            time.sleep(max(0.0, end - time.monotonic()))
        except BaseException as error:
            write(type(error).__name__, id)
    write("did", id)


@app.task(soft_time_limit=0.5, time_limit=30)
def tidy(id: Any) -> str:
    try:
        time.sleep(10)
    except SoftTimeLimitExceeded:
        write("soft", id)
        return "tidied up"
    return "too late"


@app.task(time_limit=1)
def overlong(id: Any) -> None:
    write("began", id)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            time.sleep(1)
        except BaseException as error:
            write(type(error).__name__, id)


@app.task
def crash(id: Any, number: int = signal.SIGSEGV) -> None:
    write("began", id)
    os.kill(os.getpid(), number)
    time.sleep(5)


@app.task
def leave(id: Any) -> None:
    write("began", id)
    raise SystemExit(3)


@app.task
def grow(id: Any, megabytes: int) -> None:
    grow.kept = bytearray(os.urandom(1024)) * (megabytes * 1024)
    write("did", id)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def boom(id: Any) -> None:
    write("did", id)
    raise ValueError(f"boom {id}")


@app.task(bind=True, max_retries=5)
def flaky(self: Any, id: Any) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    write("did", id)
    return self.request.retries


@app.task(rate_limit="5/s")
def limited(id: Any) -> None:
    write("did", id)
