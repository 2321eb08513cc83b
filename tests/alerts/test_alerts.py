"""Each alert, fired by its real cause, arrives at a receiver within its stated time, and ends.

Prometheus, Alertmanager and a whole suite run for real. What the rules wait for and look back on is
shortened by one factor, so that all of it takes minutes; the limits themselves are as they are. A
time is stated for the unshortened rules, so it is the most that an alert may take here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from dotenv import dotenv_values

from tests.alerts.causes import CEILING_MB, QUICK, SLOW, Cause
from tests.alerts.watching import END_SECONDS, FACTOR, STATED, Watching, report, watching
from tests.faults.suite import Suite, own_directory
from tests.monitoring import program, rules
from tests.receiver import receiver


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    program("prometheus")
    with receiver() as monitor:
        monitor.status = 500
        found = Suite(
            own_directory(),
            settings={
                "IRONBEAT_WORKER_MAX_MEMORY_MB": str(CEILING_MB),
                "IRONBEAT_HEARTBEAT_URL": monitor.url,
            },
        )
        found.monitor = monitor  # type: ignore[attr-defined]
        try:
            found.up()
            _calm(found)
            yield found
        finally:
            found.end(logs=tmp_path_factory.mktemp("suite"))


def _calm(suite: Suite) -> None:
    """Of twenty ticks a second one is left, and one more each twenty seconds."""
    with psycopg.connect(
        suite.settings.database_url.get_secret_value(), autocommit=True
    ) as connection:
        connection.execute("UPDATE ironbeat.schedules SET enabled = false WHERE name <> 'tick-00'")
        connection.execute(
            "UPDATE ironbeat.schedules SET enabled = true, expression = '20s'"
            " WHERE name = 'tick-01'"
        )


@pytest.fixture(scope="module")
def watch(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watching]:
    values = dotenv_values(suite.installation.env_file)
    api = f"127.0.0.1:{values['IRONBEAT_API_PORT']}"
    with watching(
        tmp_path_factory.mktemp("monitoring"), {"ironbeat": [api]}, factor=FACTOR
    ) as found:
        yield found


def arrive(watch: Watching, suite: Suite, causes: tuple[Cause, ...]) -> list[str]:
    """Each cause in turn until its alerts have arrived; then all of them until they have ended.

    Returns a line for each alert: when it arrived, by when it had to, and when it ended.
    """
    lines = {}
    ended: dict[str, float] = {}
    for cause in causes:
        began = time.time()
        cause.cause(suite)
        for name in cause.alerts:
            most = cause.until_it_shows + STATED[name]
            took = watch.until(name, "firing", began, most)
            lines[name] = f"{cause.name}: {name} after {took:.0f} s (stated: {most:.0f})"
        cause.cure(suite)
        ended |= dict.fromkeys(cause.alerts, time.time())
        # The next cause is to meet a suite that works.
        suite.until_healthy(120)
    for name, at in ended.items():
        took = watch.until(name, "resolved", at, END_SECONDS)
        lines[name] += f", ended {took:.0f} s after its cause"
    return list(lines.values())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_quick_to_show_arrives_and_ends(suite: Suite, watch: Watching) -> None:
    report(arrive(watch, suite, QUICK))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cause", SLOW, ids=lambda cause: cause.name.replace(" ", "-"))
def test_what_takes_minutes_arrives_and_ends(suite: Suite, watch: Watching, cause: Cause) -> None:
    report(arrive(watch, suite, (cause,)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_outside_monitor_that_takes_no_pings_is_told_of(suite: Suite, watch: Watching) -> None:
    monitor: Any = suite.monitor  # type: ignore[attr-defined]
    monitor.status = 500
    began = time.time()
    took = watch.until("heartbeat_refused", "firing", 0.0, 400) - began
    monitor.status = 200
    back = time.time()
    ended = watch.until("heartbeat_refused", "resolved", back, END_SECONDS)
    report([f"a refusing monitor: heartbeat_refused after {took:.0f} s, ended {ended:.0f} s"])


def test_every_alert_has_a_cause_here() -> None:
    caused = {name for cause in (*QUICK, *SLOW) for name in cause.alerts}
    caused |= {"alerts_arrive", "certificate_expires", "exporter_down", "heartbeat_refused"}
    assert {rule["alert"] for rule in rules()} - caused == {"disk_full"}
