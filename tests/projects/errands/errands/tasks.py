"""Tasks that leave a row when they begin and one when they end."""

import os
import socket
import time

from celery import current_task, shared_task

from ironbeat import connection


def trace(event: str) -> None:
    """One row, committed at once, whatever the ledger says of this run."""
    with connection() as database:
        database.execute(
            "INSERT INTO errands.traces (run_id, event, host, pid) VALUES (%s, %s, %s, %s)",
            (current_task.request.id, event, socket.gethostname(), os.getpid()),
        )


def execute(seconds: float) -> float:
    """Be busy for so long."""
    trace("begin")
    time.sleep(seconds)
    trace("end")
    return seconds


@shared_task(name="errands.tick")
def tick() -> float:
    """What the schedule fires."""
    return execute(0)


@shared_task(name="errands.run")
def run(seconds: float) -> float:
    """A short errand."""
    return execute(seconds)


@shared_task(name="errands.haul")
def haul(seconds: float) -> float:
    """A long one, on a queue of its own."""
    return execute(seconds)
