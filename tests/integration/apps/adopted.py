"""A Celery application as somebody might have it, adopted by Ironbeat in its last line."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from celery import Celery, chord
from celery.exceptions import Ignore, Reject

import ironbeat

app = Celery(
    "shop",
    broker=os.environ["IRONBEAT_BROKER_URL"],
    backend=os.environ["IRONBEAT_RESULT_BACKEND"],
)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_track_started=True,
    broker_transport_options={"visibility_timeout": 3600},
)


def note(line: str) -> None:
    """Leave a trace that counts executions, whatever the stores say."""
    with Path(os.environ["TRACES"]).open("a") as traces:
        traces.write(line + "\n")


@app.task
def add(x, y):
    note(f"add {x} {y}")
    return x + y


@app.task
def total(numbers):
    note(f"total {sorted(numbers)}")
    return sum(numbers)


@app.task(bind=True, max_retries=3, default_retry_delay=0)
def flaky(self, succeed_at):
    note(f"flaky {self.request.retries}")
    if self.request.retries < succeed_at:
        raise self.retry(exc=ValueError(f"attempt {self.request.retries}"), countdown=0)
    return self.request.retries


@app.task(bind=True, autoretry_for=(KeyError,), max_retries=1, default_retry_delay=0)
def always_failing(self):
    note("always_failing")
    raise KeyError("never\x00there")


@app.task(bind=True, max_retries=2, default_retry_delay=0)
def retry_without_raising(self):
    note(f"retry_without_raising {self.request.retries}")
    if self.request.retries == 0:
        self.retry(countdown=0, throw=False)
        return "first"
    return "second"


@app.task(bind=True)
def replaced(self, x):
    note(f"replaced {x}")
    if x > 0:
        raise self.replace(replaced.si(x - 1))
    return "bottom"


@app.task(bind=True)
def recursive(self, depth):
    note(f"recursive {depth}")
    return depth + (recursive(depth - 1) if depth else 0)


@app.task
def ignoring():
    raise Ignore


@app.task
def rejecting():
    raise Reject("no good", requeue=False)


@app.task
def slow(seconds, name=""):
    note(f"slow-begin {name}")
    time.sleep(seconds)
    note(f"slow-end {name}")
    return name


@app.task
def total_of_names(names):
    note(f"total_of_names {names}")
    return names


@app.task(bind=True, max_retries=1)
def slow_then_retry(self, seconds):
    note(f"slow_then_retry {self.request.retries}")
    if self.request.retries == 0:
        time.sleep(seconds)
        raise self.retry(countdown=0)


@app.task
def talkative():
    for percent in (0, 50, 100):
        ironbeat.report_progress(percent, f"step {percent}")
        time.sleep(0.4)
    return "done"


@app.task(bind=True, sensitive=("password",), max_retries=1)
def log_in(self, user, password):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return len(password)


@app.task(reject_on_worker_lost=True)
def dies_once():
    traces = Path(os.environ["TRACES"])
    if "dies_once" not in (traces.read_text() if traces.exists() else ""):
        note("dies_once")
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@app.task
def hangs_once():
    traces = Path(os.environ["TRACES"])
    first = "hangs_once" not in (traces.read_text() if traces.exists() else "")
    note("hangs_once")
    if first:
        time.sleep(600)
    return "done"


@app.task
def breaks_once(value):
    traces = Path(os.environ["TRACES"])
    if "breaks_once" not in (traces.read_text() if traces.exists() else ""):
        note("breaks_once")
        raise OSError("first")
    return value


@app.task
def fan_out(n):
    chord(add.s(i, i) for i in range(n))(total.s())


ironbeat.adopt(app)
