"""The scenarios: what breaks, and how one sees that it is whole again.

A scenario is a function from a running :class:`~tests.faults.suite.Suite` to the seconds it took to
recover. Load runs before, during and after it; the accounting is the same for all.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psycopg

from tests.faults import processes, stores, stuck
from tests.faults.accounting import Account, Traces, reckon, settle
from tests.faults.suite import ROOT, Suite, wait_until

Scenario = Callable[[Suite], float]

SUBMISSIONS = 1000
PER_SECOND = 60.0
TASK_SECONDS = 0.01
FAULT_AFTER_SECONDS = 4.0


def beat_killed(suite: Suite) -> float:
    """`kill -9` of beat."""
    fired_before = _fires(suite)
    suite.kill("beat")
    return wait_until(lambda: _fires(suite) > fired_before + 20, 30)


def worker_killed(suite: Suite) -> float:
    """`kill -9` of one of two workers, in the middle of a task."""
    id = _submit_long(suite)
    worker = wait_for_worker(suite, id)
    began = time.time()
    suite.kill("worker", index=worker)
    wait_until(lambda: len(Traces.read(suite.traces).begins[id]) > 1, 60)
    return Traces.read(suite.traces).begins[id][1] - began


def every_worker_killed(suite: Suite) -> float:
    """`kill -9` of all workers at once."""
    id = _submit_long(suite)
    wait_for_worker(suite, id)
    began = time.time()
    suite.kill("worker")
    wait_until(lambda: len(Traces.read(suite.traces).begins[id]) > 1, 60)
    return Traces.read(suite.traces).begins[id][1] - began


def broker_killed(suite: Suite) -> float:
    """`kill -9` of Redis."""
    suite.kill("redis")
    return suite.until_healthy()


def broker_restarted(suite: Suite) -> float:
    """Redis stopped with SIGTERM and started again."""
    suite.kill("redis", signal.SIGTERM)
    return suite.until_healthy()


def database_killed(suite: Suite) -> float:
    """`kill -9` of PostgreSQL's postmaster."""
    suite.kill("postgres")
    return suite.until_healthy()


def beat_stopped_for_a_while(suite: Suite) -> float:
    """SIGSTOP of beat for five seconds, then SIGCONT."""
    suite.kill("beat", signal.SIGSTOP)
    time.sleep(5)
    fired_before = _fires(suite)
    suite.kill("beat", signal.SIGCONT)
    return wait_until(lambda: _fires(suite) > fired_before + 20, 30)


SCENARIOS: dict[str, Scenario] = {
    "beat-killed": beat_killed,
    "worker-killed": worker_killed,
    "every-worker-killed": every_worker_killed,
    "broker-killed": broker_killed,
    "broker-restarted": broker_restarted,
    "database-killed": database_killed,
    "beat-stopped": beat_stopped_for_a_while,
    **processes.SCENARIOS,
    **stuck.SCENARIOS,
    **stores.SCENARIOS,
}


def run(name: str, suite: Suite, *, submissions: int = SUBMISSIONS) -> Account:
    """Put load on a suite, break it, let it recover, and account for everything."""
    load = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.load", str(submissions), str(PER_SECOND),
         str(TASK_SECONDS)],
        env=suite.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(FAULT_AFTER_SECONDS)
    fault_at = time.time()
    recovery = SCENARIOS[name](suite)
    output, _ = load.communicate(timeout=300)
    submitted = [line.split()[0] for line in output.splitlines()]
    suite.until_healthy()
    until = time.time()
    url = suite.settings.database_url.get_secret_value()
    settle(url, submitted, until - 5, 90)
    traces = Traces.read(suite.traces)
    pause = traces.longest_pause(fault_at, until)
    return reckon(name, url, traces, submitted, until - 5, recovery, pause)


def _fires(suite: Suite) -> int:
    url = suite.settings.database_url.get_secret_value()
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM ironbeat.fires").fetchone()
    return row[0] if row else 0


def _submit_long(suite: Suite) -> str:
    """Submit a task that is still running when the worker dies; returns its id."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.load", "2", "100", "4"],
        env=suite.environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.splitlines()[1].split()[0]


def wait_for_worker(suite: Suite, id: str) -> int:
    """Wait until a run is executing; returns the index of its worker's process."""
    wait_until(lambda: id in Traces.read(suite.traces).begins, 60)
    for line in suite.traces.read_text().splitlines():
        event, traced, _, pid = line.split()
        if event == "begin" and traced == id:
            return suite.pids("worker").index(int(pid))
    raise AssertionError(f"{id} left no trace")


def main(names: list[str], as_json: bool) -> int:
    """Run scenarios, each on a suite of its own; prints a row for each."""
    failed = 0
    for name in names or list(SCENARIOS):
        with tempfile.TemporaryDirectory(prefix="ironbeat-faults-") as directory:
            Path(directory).chmod(0o755)
            suite = Suite(Path(directory))
            try:
                suite.up()
                account = run(name, suite)
            finally:
                suite.down()
        failed += bool(account.problems())
        print(json.dumps(asdict(account)) if as_json else account, flush=True)
    return 1 if failed else 0
