"""Scenarios in which something is not dead but worse: it kills its worker, hangs, or stands still.

Nobody lends a hand: what was stopped is not continued, what hangs is not killed by the scenario.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg

from tests.faults.accounting import Traces
from tests.faults.suite import ROOT, Suite, wait_until

# A worker may die so often with a run; the setting `poison_limit`.
DEATHS = 3
# The watchdog's patience (`stall_seconds`), and as much again on a busy machine.
PATIENCE = 300.0


def segfault(suite: Suite) -> float:
    """A task that reads address 0: buried after three workers, with its last words."""
    return _poison(suite, "counting.segfault", "Segmentation fault")


def killed_for_memory(suite: Suite) -> float:
    """A task whose worker is killed while it grows, as the kernel does when memory runs out."""
    return _poison(suite, "counting.outgrown", "")


def memory_limit(suite: Suite) -> float:
    """A task that meets its worker's memory limit (ulimit -v): it fails, the worker goes on."""
    id = _submit(suite, "counting.greedy")
    seconds = wait_until(lambda: _run(suite, id)["state"] == "failed", PATIENCE)
    run = _run(suite, id)
    assert "MemoryError" in run["error"] and run["crashes"] == 0, run
    return seconds


def hung_task(suite: Suite) -> float:
    """A task that holds the interpreter in C code for ever: no thread of its worker can end it."""
    before = set(suite.pids("worker"))
    id = _submit(suite, "counting.hang")
    began = time.monotonic()
    wait_until(lambda: _run(suite, id)["state"] == "failed", PATIENCE)
    run = _run(suite, id)
    assert "TimeLimitExceeded" in run["error"] and run["crashes"] == 0, run
    wait_until(lambda: len(set(suite.pids("worker")) - before) == 1, PATIENCE)
    return time.monotonic() - began


def stopped_worker(suite: Suite) -> float:
    """SIGSTOP of a worker in the middle of a task, and never SIGCONT."""
    id = _submit(suite, "counting.work", 4)
    wait_until(lambda: id in Traces.read(suite.traces).begins, PATIENCE)
    pid = _pid_of(suite, id)
    suite.kill("worker", signal.SIGSTOP, index=suite.pids("worker").index(pid))
    began = time.monotonic()
    wait_until(lambda: len(Traces.read(suite.traces).begins[id]) > 1, PATIENCE)
    moved = time.monotonic() - began
    # Its work has moved already; the process itself is ended when the watchdog has seen enough.
    wait_until(lambda: pid not in suite.pids("worker"), PATIENCE)
    return moved


def stopped_beat(suite: Suite) -> float:
    """SIGSTOP of the only beat, and never SIGCONT."""
    [pid] = suite.kill("beat", signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: suite.pids("beat") not in ([pid], []), PATIENCE)
    fired = _count(suite, "fires")
    wait_until(lambda: _count(suite, "fires") > fired, PATIENCE)
    return time.monotonic() - began


SCENARIOS: dict[str, Callable[[Suite], float]] = {
    "poison-segfault": segfault,
    "poison-out-of-memory": killed_for_memory,
    "task-meets-memory-limit": memory_limit,
    "task-hangs-in-c": hung_task,
    "worker-stopped": stopped_worker,
    "beat-stopped-for-ever": stopped_beat,
}


def _poison(suite: Suite, task: str, words: str) -> float:
    id = _submit(suite, task)
    seconds = wait_until(lambda: _run(suite, id)["state"] == "dead", PATIENCE)
    run = _run(suite, id)
    assert run["crashes"] == DEATHS, run
    assert len(Traces.read(suite.traces).begins[id]) == DEATHS
    assert words in (run["traceback"] or ""), run
    listed = json.loads(_ironbeat(suite, "dead", "list", "--json"))
    assert id in {letter["id"] for letter in listed}
    punished = _rows(
        suite,
        "SELECT id FROM ironbeat.run_history WHERE crashes > 0 AND id <> %s AND state = 'dead'",
        id,
    )
    assert punished == [], "its neighbours are not punished"
    return seconds


def _submit(suite: Suite, task: str, *arguments: Any) -> str:
    code = (
        "import sys, json; from ironbeat import TaskManager, create_app;"
        "print(TaskManager(create_app()).submit(sys.argv[1], json.loads(sys.argv[2])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, task, json.dumps(arguments)],
        env=suite.environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout.split()[-1]


def _ironbeat(suite: Suite, *arguments: str) -> str:
    code = "from ironbeat.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=suite.environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout


def _run(suite: Suite, id: str) -> dict[str, Any]:
    names = ("state", "crashes", "error", "traceback")
    for table in ("runs", "run_history"):
        rows = _rows(suite, f"SELECT {', '.join(names)} FROM ironbeat.{table} WHERE id = %s", id)
        if rows:
            return dict(zip(names, rows[0], strict=True))
    return dict.fromkeys(names)


def _count(suite: Suite, table: str) -> int:
    return int(_rows(suite, f"SELECT count(*) FROM ironbeat.{table}")[0][0])


def _rows(suite: Suite, query: str, *parameters: Any) -> list[Any]:
    url = suite.settings.database_url.get_secret_value()
    with psycopg.connect(url) as connection:
        return connection.execute(query, parameters).fetchall()


def _pid_of(suite: Suite, id: str) -> int:
    for line in suite.traces.read_text().splitlines():
        event, traced, _, pid = line.split()
        if event == "begin" and traced == id:
            return int(pid)
    raise AssertionError(f"{id} left no trace")
