"""Whom the watchdog ends, and above all whom it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ironbeat.runs.blackbox import Execution, Report
from ironbeat.warden.judgement import OWN_SECONDS, Seen, Watch, judge

NOW = 10_000.0
PATIENCE = 60.0


def report(kind: str = "worker", **changes) -> Report:
    fields = {
        "path": Path("x"), "lease": "l", "pid": 7, "born": 1.0, "kind": kind, "name": "w",
        "pulse": NOW, "tick": NOW, "waiting_since": 0.0, "executing": (),
    }  # fmt: skip
    return Report(**fields | changes)


def running(seconds: float, hard: float | None = 900.0) -> tuple[Execution, ...]:
    return (Execution("run", 1, NOW - seconds, hard),)


def found(seen: Report, *, since: float = NOW - 1000, database: float | None = NOW - 1000, **state):
    watch = Watch(NOW, since, database, PATIENCE)
    verdicts = judge([Seen(seen, **{"alive": True} | state)], watch)
    return verdicts[0].finding if verdicts else None


def test_dead() -> None:
    assert found(report(), alive=False) == "dead"


def test_a_run_past_its_limit_and_past_its_worker_s_own_time() -> None:
    assert found(report(executing=running(900 + OWN_SECONDS + 1))) == "hung"
    assert found(report(executing=running(900 + OWN_SECONDS - 1))) is None
    assert found(report(executing=running(1e6, None))) is None, "it has no limit"
    assert found(report("child", executing=running(2000))) == "hung"


@pytest.mark.parametrize("seconds", [3, 500, 900 + OWN_SECONDS - 1])
def test_a_long_task_that_holds_the_interpreter_is_vouched_for(seconds: float) -> None:
    held = report(pulse=NOW - seconds, executing=running(seconds))
    assert found(held) == "vouched"
    stopped = found(held, stopped=True)
    assert stopped == ("silent" if seconds >= PATIENCE else None), "nobody vouches for it"


def test_silent() -> None:
    assert found(report(pulse=NOW - 61)) == "silent"
    assert found(report(pulse=NOW - 59)) is None
    assert found(report("child", pulse=NOW - 1000)) is None


def test_a_beat_that_does_not_tick() -> None:
    stuck = report("beat", tick=NOW - 61)
    assert found(stuck) == "stalled"
    assert found(report("beat", tick=NOW - 59)) is None


def test_a_beat_that_waits_for_the_database_is_left_alone() -> None:
    stuck = report("beat", tick=NOW - 500)
    assert found(stuck, database=None) is None, "it is stopped or away"
    assert found(stuck, database=NOW - 59) is None, "it is back, not yet for long"
    assert found(report("beat", tick=NOW - 500, waiting_since=NOW - 490)) is None


def test_a_watchdog_that_has_not_watched_long_enough_ends_nobody() -> None:
    """After the host, or the watchdog, was stopped everybody looks silent."""
    for each in (
        report(pulse=NOW - 5000),
        report("beat", tick=NOW - 5000),
        report(executing=running(5000)),
    ):
        assert found(each, since=NOW - 59) is None
        assert found(each, since=NOW - 61) is not None
