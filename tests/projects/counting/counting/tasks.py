"""Tasks that leave a line when they begin and one when they end."""

import os
import time
from pathlib import Path

from celery import current_task, shared_task

TRACES = Path(__file__).resolve().parents[2] / "traces"


def note(event: str) -> None:
    """One line, in one write: appended whole, by however many processes."""
    request = current_task.request
    line = f"{event} {request.id} {time.time():.3f} {os.getpid()}\n"
    descriptor = os.open(TRACES, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@shared_task(name="counting.tick")
def tick(number: int) -> int:
    """What a schedule fires."""
    note("begin")
    note("end")
    return number


@shared_task(name="counting.work")
def work(seconds: float) -> float:
    """What a caller submits."""
    note("begin")
    time.sleep(seconds)
    note("end")
    return seconds
