"""All scenarios, and how one is run: load, fault, recovery, account.

Adding one is adding an entry to ``SCENARIOS`` of a module of its kind. Load runs before, during and
after the fault; the accounting is the same for all.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

from tests.faults import clock, disk, processes, stores, stuck
from tests.faults.accounting import Account, Traces, Window, reckon, settle
from tests.faults.scenario import Scenario, Skipped
from tests.faults.suite import ROOT, Suite, own_directory

SUBMISSIONS = 1000
TASK_SECONDS = 0.01
FAULT_AFTER_SECONDS = 4.0
# Beside what the scenario takes itself: before it, and after it.
LOAD_SECONDS = 12.0
# What is due in the last seconds is not accounted for.
LAST_SECONDS = 5.0
SETTLE_SECONDS = 90.0

SCENARIOS: dict[str, Scenario] = {
    **processes.SCENARIOS,
    **stuck.SCENARIOS,
    **stores.SCENARIOS,
    **disk.SCENARIOS,
    **clock.SCENARIOS,
}


def run(name: str, suite: Suite, *, submissions: int = SUBMISSIONS) -> Account:
    """Put load on a suite, break it, let it recover, and account for everything."""
    scenario = SCENARIOS[name]
    since = suite.now()
    per_second = submissions / (LOAD_SECONDS + scenario.lasts)
    load = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.load", str(submissions), str(per_second),
         str(TASK_SECONDS)],
        env=suite.environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        time.sleep(FAULT_AFTER_SECONDS)
        fault_at = suite.now()
        recovery = scenario.act(suite)
        output, told = load.communicate(timeout=300)
    finally:
        load.kill()
        load.wait()
    submitted = [line.split()[0] for line in output.splitlines()]
    assert len(submitted) == submissions, told
    suite.until_healthy()
    window = Window(suite.url, since, suite.now() - LAST_SECONDS)
    settle(window, submitted, SETTLE_SECONDS)
    traces = Traces.read(suite.traces, since)
    pause = traces.longest_pause(fault_at, window.until)
    refused = int(told.rpartition("refused ")[2].split()[0])
    return reckon(name, window, traces, submitted, recovery, pause, refused)


def problems(account: Account, *, timed: bool = True) -> list[str]:
    """What is wrong with an account; empty when all of it holds. ``timed``: its seconds, too."""
    scenario = SCENARIOS[account.scenario]
    wrong = [
        f"{count} {name}"
        for name, count in (
            ("lost", account.lost),
            ("missed", account.missed),
            ("doubled", account.doubled),
        )
        if count
    ]
    if account.overlapped > scenario.overlaps:
        wrong.append(f"{account.overlapped} overlapped, {scenario.overlaps} may")
    if timed and scenario.within is not None and account.recovery_s > scenario.within:
        wrong.append(f"{account.recovery_s} s, {scenario.within:g} s is the bound")
    return wrong


def run_all(
    names: Iterable[str], *, submissions: int = SUBMISSIONS
) -> Iterator[tuple[str, Account | Exception]]:
    """Run scenarios one after the other; yields what each came to, or why it did not.

    They share a suite, but for those that need one of their own and after one that failed.
    """
    suite: Suite | None = None
    try:
        for name in names:
            scenario = SCENARIOS[name]
            if suite is not None and scenario.alone:
                suite.end()
                suite = None
            try:
                if missing := scenario.lacking():
                    raise Skipped(missing)
                if suite is None:
                    suite = _begin(scenario)
                account = run(name, suite, submissions=submissions)
            except Exception as error:
                yield name, error
                if suite is not None and not isinstance(error, Skipped):
                    suite.end()
                    suite = None
            else:
                yield name, account
                if scenario.alone:
                    suite.end()
                    suite = None
    finally:
        if suite is not None:
            suite.end()


def _begin(scenario: Scenario) -> Suite:
    ahead = scenario.clock()
    suite = Suite(
        own_directory(),
        disk_mb=scenario.disk_mb,
        clock=ahead,
        clock_variables=clock.wrong_by(ahead) if ahead else {},
        settings=scenario.settings,
    )
    try:
        suite.up()
        suite.until_healthy()
    except BaseException:
        suite.end()
        raise
    return suite
