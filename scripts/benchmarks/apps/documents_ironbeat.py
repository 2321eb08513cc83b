"""Ironbeat's two sides: everything through HybridTaskManager, by the ratio in ``BENCH_RATIO``.

A chunk's metadata is made by the product's own task; what it was sent with and when it ran is noted
around it.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import shared_task, signals

from benchmarks import body
from benchmarks.apps import documents_work as work
from ironbeat import Call, HybridTaskManager
from ironbeat.workload import Queue, Workload

workload = Workload(name="bench", tasks=(__name__,), queues=(Queue("default"),), rq=True)

DESCRIBE = "generate_metadata_for_chunk"
AT_ONCE = 500

_manager: HybridTaskManager | None = None
_began = 0

shared_task(name="bench.nothing")(work.nothing)
shared_task(name="bench.lasting")(work.lasting)


@signals.task_prerun.connect
def _begins(**_: Any) -> None:
    global _began
    _began = time.monotonic_ns()


@signals.task_postrun.connect
def _ended(task: Any = None, args: Any = (), **_: Any) -> None:
    if task is not None and task.name == DESCRIBE:
        number, sent = args[0].split(":")
        body.ran(int(number), int(sent), _began)


def manager() -> HybridTaskManager:
    """What hands tasks over, one for this process."""
    global _manager
    if _manager is None:
        _manager = HybridTaskManager(float(os.environ["BENCH_RATIO"]), workload="bench")
    return _manager


def _call(number: int, sent_ns: int) -> Call:
    if work.work() == work.NOTHING:
        return Call("bench.nothing", (number, sent_ns), key=str(number))
    name = f"{number}:{sent_ns}"
    return Call(DESCRIBE, (name, work.text_of(number), "bench"), key=name)


def send(number: int) -> None:
    """Hand one task over."""
    manager().submit_tasks([_call(number, time.monotonic_ns())])


def send_lasting(number: int, seconds: float) -> None:
    """Hand one long task over."""
    manager().submit_task("bench.lasting", number, time.monotonic_ns(), seconds)


def flood(first: int, count: int) -> None:
    """Hand many over, committed to the ledger."""
    for begin in range(first, first + count, AT_ONCE):
        numbers = range(begin, min(begin + AT_ONCE, first + count))
        manager().submit_tasks([_call(number, 0) for number in numbers])


def settled() -> None:
    """Wait until what was handed over is noted in the ledger."""
    manager().tasks.app.ironbeat.recorder.close()
