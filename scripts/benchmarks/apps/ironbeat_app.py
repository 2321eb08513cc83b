"""Ironbeat: a workload of one task, plugged in by its entry point as anybody's package would be."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

from celery import Task, shared_task

from benchmarks import body
from ironbeat.workload import Queue, Workload

workload = Workload(name="bench", tasks=(__name__,), queues=(Queue("default"),))

_METADATA = "Metadata-Version: 2.1\nName: ironbeat-bench\nVersion: 1\n"


def install(folder: Path, module: str = __name__) -> None:
    """Make an installed distribution of a module's workload in ``folder``, to be on the path."""
    described = folder / "ironbeat_bench-1.dist-info"
    described.mkdir(parents=True, exist_ok=True)
    (described / "METADATA").write_text(_METADATA)
    (described / "entry_points.txt").write_text(
        f"[ironbeat.workloads]\nbench = {module}:workload\n"
    )


@shared_task(name="bench.nothing")
def nothing(number: int, sent_ns: int) -> None:
    """The task."""
    body.ran(number, sent_ns)


@shared_task(name="bench.lasting")
def lasting(number: int, sent_ns: int, seconds: float) -> None:
    """A task that takes its time."""
    body.ran(number, sent_ns)
    time.sleep(seconds)


@shared_task(name="bench.load", ignore_result=True)
def load(number: int, payload: str = "") -> None:
    """One of very many: leaves no note."""


@shared_task(name="bench.fire")
def fire(number: int) -> None:
    """What schedules run."""


@shared_task(name="bench.slot", bind=True)
def slot(self: Task, number: int) -> None:
    """What schedules run that are to be accounted for: notes the slot instead of a sending time."""
    due = datetime.fromisoformat(self.request.ironbeat["scheduled_for"])
    body.ran(number, round(due.timestamp() * 1e9))


def _app() -> None:
    from ironbeat.app import current_app

    current_app()


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
    """Submit durably, one by one."""
    from ironbeat.dispatch.manager import TaskManager

    manager = TaskManager()
    for number in range(count):
        manager.submit("bench.nothing", [number, 0])


def submit_many(count: int) -> None:
    """Submit durably, in batches."""
    from ironbeat.dispatch.manager import Submit, TaskManager

    TaskManager().submit_many(Submit("bench.nothing", [number, 0]) for number in range(count))


def submit_large(count: int, size: int) -> None:
    """Submit durably from a generator, each with an argument of ``size`` characters."""
    from ironbeat.dispatch.manager import Submit, TaskManager

    payload = "x" * size
    TaskManager().submit_many(Submit("bench.load", [number, payload]) for number in range(count))


def settled() -> None:
    """Wait until what was handed over is noted in the ledger."""
    from ironbeat.app import current_app

    current_app().ironbeat.recorder.close()


if "IRONBEAT_BROKER_URL" in os.environ:
    _app()
