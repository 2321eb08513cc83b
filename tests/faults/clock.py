"""Wrong clocks: of one process, ahead or behind; of everything at once; and summer time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.elsewhere import program
from tests.faults.processes import longest_without_fire
from tests.faults.scenario import Scenario
from tests.faults.suite import Suite, wait_until

TEN_MINUTES = 600.0


def library() -> Path | None:
    """libfaketime, where it is installed (Debian's package of that name)."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def lacking() -> str | None:
    """Why no clock can be made wrong; installs what is missing where that is allowed."""
    if library() is None and os.geteuid() == 0:
        with suppress(OSError):
            subprocess.run(
                ["apt-get", "install", "--quiet", "--yes", "libfaketime"],
                capture_output=True,
                check=False,
            )
    return None if library() else "libfaketime is not installed (Debian: apt install libfaketime)"


def wrong_by(seconds: float, file: Path | None = None) -> dict[str, str]:
    """The environment of a program whose clock is so many seconds ahead.

    With ``file``, the clock is as wrong as that file says from time to time. Its monotonic clock is
    right, as it is when somebody sets a machine's time.
    """
    environment = {"LD_PRELOAD": str(library()), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    if file is None:
        return {**environment, "FAKETIME": f"{seconds:+.0f}"}
    step(file, seconds)
    return {
        **environment,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
    }


def step(file: Path, seconds: float) -> None:
    """Set the clocks that follow a file; takes a second to be seen."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{seconds:+.0f}\n")
    fresh.chmod(0o644)
    fresh.replace(file)


STEPS = (TEN_MINUTES, -TEN_MINUTES, 0.0)


def worker_steps(suite: Suite) -> float:
    """The clock of the only worker steps ahead and back; each time a task begins and ends there."""
    file = suite.directory / "worker-clock"
    slowest = 0.0
    with program(suite, "worker", environment=wrong_by(0, file)) as other:
        suite.hold("worker")
        try:
            for seconds in STEPS:
                step(file, seconds)
                time.sleep(2)
                began = time.monotonic()
                id = suite.submit("counting.work", 0.5)
                wait_until(lambda id=id: state(suite, id) == "succeeded", 60)  # type: ignore[misc]
                slowest = max(slowest, time.monotonic() - began)
                assert suite.worker_of(id) == other.pid
            return slowest
        finally:
            suite.release("worker")


def beat_steps(suite: Suite) -> float:
    """The clock of the only beat steps ahead and back while it runs."""
    file = suite.directory / "beat-clock"
    with program(suite, "beat", environment=wrong_by(0, file)):
        suite.hold("beat")
        try:
            longest = 0.0
            for seconds in STEPS:
                step(file, seconds)
                longest = max(longest, longest_without_fire(suite, 6))
            return longest
        finally:
            suite.release("beat")
            time.sleep(3)


def state(suite: Suite, id: str) -> str | None:
    """How a run stands."""
    rows = suite.rows(
        "SELECT state FROM ironbeat.runs WHERE id = %s UNION ALL"
        " SELECT state FROM ironbeat.run_history WHERE id = %s",
        id,
        id,
    )
    return rows[0][0] if rows else None


# -- summer time -----------------------------------------------------------------------------------

CHANGES = {
    # What must have been fired by a minute after the change, and nothing else at these times.
    "spring": (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), {"chime-0200": 1, "chime-0230": 1}),
    "autumn": (datetime(2026, 10, 25, 1, 0, tzinfo=UTC), {}),
}
BEFORE_SECONDS = 75.0


def until_change(change: str) -> float:
    """How many seconds later than we a suite has to live, so that clocks change in a minute."""
    at, _ = CHANGES[change]
    return at.timestamp() - time.time() - BEFORE_SECONDS


def summer_time(change: str) -> Callable[[Suite], float]:
    """All of the suite lives through the hour in which clocks change in Berlin."""

    def scenario(suite: Suite) -> float:
        at, fixed = CHANGES[change]
        longest = 0.0
        while suite.now() < at.timestamp() + 65:
            longest = max(longest, longest_without_fire(suite, 5))
        fired = suite.rows(
            "SELECT s.name, count(*), count(DISTINCT f.scheduled_for) FROM ironbeat.fires f"
            " JOIN ironbeat.schedules s ON s.id = f.schedule_id WHERE s.task = 'counting.chime'"
            " AND f.scheduled_for BETWEEN %s - interval '61 seconds' AND %s + interval '61 seconds'"
            " GROUP BY s.name",
            at,
            at,
        )
        found = {name: count for name, count, distinct in fired if count == distinct}
        # Three minutes, whatever the clock on the wall calls them.
        assert found == {"chime-minute": 3, **fixed}, fired
        return longest

    return scenario


SCENARIOS = {
    "beat-clock-steps": Scenario(
        "beat", "clock of the only one steps 10 min ahead, 20 min back and 10 ahead again",
        beat_steps,
        "longest time without a fire", lasts=25, within=3, lacking=lacking,
    ),
    "worker-clock-steps": Scenario(
        "worker", "clock of the only one steps 10 min ahead, 20 min back and 10 ahead again",
        worker_steps, "slowest task of 0.5 s, with its submission", lasts=25, lacking=lacking,
    ),
    "summer-time-begins": Scenario(
        "every clock", "summer time begins (Berlin: 02:00 becomes 03:00)", summer_time("spring"),
        "longest time without a fire", lasts=100, within=2, alone=True, lacking=lacking,
        clock=lambda: until_change("spring"),
    ),
    "summer-time-ends": Scenario(
        "every clock", "summer time ends (Berlin: 02:00 to 03:00 comes twice)",
        summer_time("autumn"), "longest time without a fire", lasts=100, within=2, alone=True,
        lacking=lacking, clock=lambda: until_change("autumn"),
    ),
}  # fmt: skip
