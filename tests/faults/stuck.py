"""Scenarios in which something is not dead but worse: it kills its worker, hangs, or stands still.

Nobody lends a hand: what was stopped is not continued, what hangs is not killed by the scenario.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from tests.faults.accounting import Traces
from tests.faults.processes import begins_again
from tests.faults.scenario import DIED_SECONDS, Scenario
from tests.faults.suite import Suite, wait_until

# A worker may die so often with a run; the setting `poison_limit`.
DEATHS = 3
# The watchdog's patience (`stall_seconds`), and as much again on a busy machine.
PATIENCE = 300.0
IRONBEAT = "from ironbeat.cli import main; main()"


def segfault(suite: Suite) -> float:
    """A task that reads address 0: buried after three workers, with its last words."""
    return _poison(suite, "counting.segfault", "Segmentation fault")


def killed_for_memory(suite: Suite) -> float:
    """A task whose worker is killed while it grows, as the kernel does when memory runs out."""
    return _poison(suite, "counting.outgrown", "")


def memory_limit(suite: Suite) -> float:
    """A task that meets its worker's memory limit (ulimit -v): it fails, the worker goes on."""
    id = suite.submit("counting.greedy")
    seconds = wait_until(lambda: _run(suite, id)["state"] == "failed", PATIENCE)
    run = _run(suite, id)
    assert "MemoryError" in run["error"] and run["crashes"] == 0, run
    return seconds


def hung_task(suite: Suite) -> float:
    """A task that holds the interpreter in C code for ever: no thread of its worker can end it."""
    before = set(suite.pids("worker"))
    id = suite.submit("counting.hang")
    began = time.monotonic()
    wait_until(lambda: _run(suite, id)["state"] == "failed", PATIENCE)
    run = _run(suite, id)
    assert "TimeLimitExceeded" in run["error"] and run["crashes"] == 0, run
    wait_until(lambda: len(set(suite.pids("worker")) - before) == 1, PATIENCE)
    return time.monotonic() - began


def stopped_worker(suite: Suite) -> float:
    """SIGSTOP of a worker in the middle of a task, and never SIGCONT."""
    id = suite.submit("counting.work", 4)
    pid = suite.worker_of(id)
    os.kill(pid, signal.SIGSTOP)
    moved = begins_again(suite, id)
    # Its work has moved already; the process itself is ended when the watchdog has seen enough.
    wait_until(lambda: pid not in suite.pids("worker"), PATIENCE)
    return moved


def stopped_beat(suite: Suite) -> float:
    """SIGSTOP of the only beat, and never SIGCONT."""
    [pid] = suite.kill("beat", signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: suite.pids("beat") not in ([pid], []), PATIENCE)
    fired = suite.fires()
    wait_until(lambda: suite.fires() > fired, PATIENCE)
    return time.monotonic() - began


SCENARIOS = {
    "poison-segfault": Scenario(
        "task", "reads address 0: its worker dies", segfault,
        f"dead letter after {DEATHS} deaths, with its last words", lasts=10,
    ),
    "poison-out-of-memory": Scenario(
        "task", "its worker is killed while it grows", killed_for_memory,
        f"dead letter after {DEATHS} deaths", lasts=10,
    ),
    "task-meets-memory-limit": Scenario(
        "task", "meets the memory limit of its process", memory_limit,
        "failed, and its worker goes on", lasts=3,
    ),
    "task-hangs-in-c": Scenario(
        "task", "holds the interpreter in C code past its hard limit of 3 s", hung_task,
        "failed, and its worker replaced by the watchdog", lasts=60, within=60,
    ),
    "worker-stopped": Scenario(
        "worker", "SIGSTOP in the middle of a task, for ever", stopped_worker,
        "its task begins elsewhere (the watchdog ends it after 60 s)", lasts=80,
        within=DIED_SECONDS,
    ),
    "beat-stopped-for-ever": Scenario(
        "beat", "SIGSTOP of the only one, for ever", stopped_beat,
        "ended by the watchdog after 60 s, fires again", lasts=70, within=90,
    ),
}  # fmt: skip


def _poison(suite: Suite, task: str, words: str) -> float:
    id = suite.submit(task)
    seconds = wait_until(lambda: _run(suite, id)["state"] == "dead", PATIENCE)
    run = _run(suite, id)
    assert run["crashes"] == DEATHS, run
    assert len(Traces.read(suite.traces).begins[id]) == DEATHS
    assert words in (run["traceback"] or ""), run
    listed = json.loads(suite.python("-c", IRONBEAT, "dead", "list", "--json"))
    assert id in {letter["id"] for letter in listed}
    punished = suite.rows(
        "SELECT id FROM ironbeat.run_history WHERE state = 'dead'"
        " AND task IN ('counting.work', 'counting.tick')"
    )
    assert punished == [], "its neighbours are not punished"
    return seconds


def _run(suite: Suite, id: str) -> dict[str, Any]:
    names = ("state", "crashes", "error", "traceback")
    for table in ("runs", "run_history"):
        rows = suite.rows(f"SELECT {', '.join(names)} FROM ironbeat.{table} WHERE id = %s", id)
        if rows:
            return dict(zip(names, rows[0], strict=True))
    return dict.fromkeys(names)
