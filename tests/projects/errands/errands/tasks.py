"""Tasks that leave a row when they begin and one when they end."""

import ctypes
import os
import socket
import time
from collections.abc import Callable

from celery import current_task, shared_task

from ironbeat import connection
from ironbeat.settings import get_settings

#: Where `errands.note` leaves its lines, in the state directory of its host.
NOTES = "errands.notes"


def trace(event: str) -> None:
    """One row, committed at once, whatever the ledger says of this run."""
    with connection() as database:
        database.execute(
            "INSERT INTO errands.traces (run_id, event, host, pid) VALUES (%s, %s, %s, %s)",
            (current_task.request.id, event, socket.gethostname(), os.getpid()),
        )


def note(event: str) -> None:
    """A line of the host's own: which stores are there makes no difference."""
    line = f"{event} {current_task.request.id} {time.time():.3f} {os.getpid()}\n"
    with (get_settings().state_dir / NOTES).open("a") as notes:
        notes.write(line)


def execute(seconds: float, leave: Callable[[str], None] = trace) -> float:
    """Be busy for so long."""
    leave("begin")
    time.sleep(seconds)
    leave("end")
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


@shared_task(name="errands.note")
def noted(seconds: float) -> float:
    """An errand that needs no store."""
    return execute(seconds, note)


@shared_task(name="errands.fail")
def fail() -> None:
    """One that cannot be done."""
    raise ValueError("this errand cannot be done")


@shared_task(name="errands.crash")
def crash() -> None:
    """One that takes its worker with it."""
    trace("begin")
    ctypes.string_at(0)


@shared_task(name="errands.fill", soft_time_limit=1200, time_limit=1300)
def fill(megabytes: int, seconds: float) -> None:
    """A long one that needs much memory."""
    held = bytearray(megabytes * 1024 * 1024)
    # Zeroed pages are only promised; written ones are there.
    held[::4096] = b"x" * len(held[::4096])
    execute(seconds)
