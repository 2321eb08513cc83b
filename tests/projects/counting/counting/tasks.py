"""Tasks that leave a line when they begin and one when they end."""

import ctypes
import os
import resource
import signal
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


@shared_task(name="counting.chime")
def chime() -> None:
    """What a schedule by the clock on the wall fires."""
    note("begin")
    note("end")


@shared_task(name="counting.work")
def work(seconds: float) -> float:
    """What a caller submits."""
    note("begin")
    time.sleep(seconds)
    note("end")
    return seconds


@shared_task(name="counting.segfault")
def segfault() -> None:
    """Kills its worker."""
    note("begin")
    ctypes.string_at(0)


@shared_task(name="counting.outgrown")
def outgrown() -> None:
    """Is killed without a word while it grows, as by the kernel when memory runs out."""
    note("begin")
    grown = bytearray(64 * 1024 * 1024)
    os.kill(os.getpid(), signal.SIGKILL)
    del grown


@shared_task(name="counting.greedy")
def greedy() -> None:
    """Meets the memory limit of its process."""
    note("begin")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 1024 * 1024, hard))
    try:
        bytearray(1024 * 1024 * 1024)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@shared_task(name="counting.fill")
def fill(megabytes: int, seconds: float) -> None:
    """Needs much memory for a while."""
    note("begin")
    held = bytearray(megabytes * 1024 * 1024)
    # Zeroed pages are only promised; written ones are there.
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(seconds)
    note("end")


@shared_task(name="counting.hang", time_limit=3, soft_time_limit=2)
def hang() -> None:
    """Holds the interpreter's lock in C code: no thread of its process can run any more."""
    note("begin")
    libc = ctypes.PyDLL(None)
    while True:
        try:
            libc.sleep(3600)
        except Exception:
            # The soft limit's signal ended the sleep; nothing will end the next one.
            continue
