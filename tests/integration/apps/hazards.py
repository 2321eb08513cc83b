"""An adopted application whose tasks kill, hang and crowd their workers."""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import signal
import time

from celery import Celery

import ironbeat

app = Celery(
    "hazards",
    broker=os.environ["IRONBEAT_BROKER_URL"],
    backend=os.environ["IRONBEAT_RESULT_BACKEND"],
)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
)
logger = logging.getLogger(__name__)


def note(event: str, what: object = "") -> None:
    """Leave a trace, in one write: event, what, instant, process."""
    line = f"{event} {what} {time.time():.4f} {os.getpid()}\n"
    descriptor = os.open(os.environ["TRACES"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@app.task
def quick(name="", payload=""):
    note("quick", name)
    return name


@app.task
def segfault():
    note("segfault")
    logger.warning("about to read what is not there, password=%s", "hunter2secret")
    ctypes.string_at(0)


@app.task
def vanish():
    note("vanish")
    logger.warning("about to vanish")
    os._exit(3)


@app.task
def killed_for_memory():
    """As the kernel's OOM killer does it: without a word, and in the middle of growing."""
    note("killed_for_memory")
    grown = bytearray(32 * 1024 * 1024)
    os.kill(os.getpid(), signal.SIGKILL)
    return len(grown)


@app.task
def submits(name):
    """A task that submits another is a submitter like any other."""
    try:
        quick.delay(name)
    except ironbeat.QueueFull as error:
        note("full", error.queue)
        return "full"
    return "submitted"


@app.task
def nap(seconds, name=""):
    note("nap-begin", name)
    time.sleep(seconds)
    note("nap-end", name)


@app.task
def deaf(seconds, name=""):
    """Holds the interpreter's lock in C code: no thread of this process can run meanwhile."""
    note("deaf-begin", name)
    ctypes.PyDLL(None).sleep(int(seconds))
    note("deaf-end", name)


@app.task(time_limit=2)
def deaf_for_ever():
    note("deaf_for_ever")
    # In C, holding the interpreter, and no signal ends it as one ends sleep(3).
    sum(itertools.repeat(0, 10**12))


@app.task(throttle=ironbeat.Throttle(concurrency=2))
def two_at_a_time(seconds, name=""):
    note("two-begin", name)
    time.sleep(seconds)
    note("two-end", name)


@app.task(throttle=ironbeat.Throttle(rate="20/s"))
def twenty_a_second(name=""):
    note("twenty", name)


@app.task(throttle=ironbeat.Throttle(concurrency=1, key="customer"))
def one_for_each_customer(customer, seconds=0.05):
    note("customer-begin", customer)
    time.sleep(seconds)
    note("customer-end", customer)


ironbeat.adopt(app)
