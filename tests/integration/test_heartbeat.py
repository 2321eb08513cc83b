"""The dead-man's switch, heard by a real receiver: pings while all is well, and silence after."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from tests.processes import Program, wait_for
from tests.receiver import Receiver, receiver

from ironbeat.observability.heartbeat import Heartbeat, PingRefused, address, ping
from ironbeat.settings import SettingsError, get_settings
from ironbeat.watch.exposition import Exposition

# The answer of a monitor that hangs: far beyond what anybody waits.
HANGING_SECONDS = 30.0


@pytest.fixture
def monitor() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@contextmanager
def ironbeat(command: str, directory: Path, **environment: str) -> Iterator[Program]:
    code = "from ironbeat.cli import main; main()"
    log = directory / f"{command}.log"
    started = Program(
        [sys.executable, "-c", code, command],
        log,
        {"IRONBEAT_WORKLOADS": "marketplace", **environment},
    )
    try:
        yield started
    finally:
        started.stop()


def schedule(settings, name: str, seconds: str = "1s", kwargs: str = '{"message": "hi"}') -> None:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute(
            """INSERT INTO ironbeat.schedules (name, task, kind, expression, timezone, kwargs)
               VALUES (%s, 'ironbeat.echo', 'interval', %s, 'UTC', %s)""",
            (name, seconds, kwargs),
        )


def figure(settings, name: str) -> float | None:
    for family in Exposition(settings).collect():
        if family.name == name and family.samples:
            return family.samples[0].value
    return None


@pytest.mark.parametrize(
    ("url", "what", "wanted"),
    [
        ("https://hc.example/abc", "", "https://hc.example/abc"),
        ("https://hc.example/abc/", "fail", "https://hc.example/abc/fail"),
        ("https://hc.example/key/nightly?create=1", "start", "…/key/nightly/start?create=1"),
        ("https://hc.example", "", "https://hc.example/"),
    ],
)
def test_success_is_the_address_and_the_others_lie_below_it(url, what, wanted):
    assert address(url, what) == wanted.replace("…", "https://hc.example")


def test_a_run_is_named_beside_whatever_query_there_is():
    assert address("https://h/x?create=1", "", "a-b") == "https://h/x?create=1&rid=a-b"


def test_a_refusal_names_the_host_and_not_the_path(monitor):
    monitor.status = 404
    with pytest.raises(PingRefused) as refused:
        ping(f"{monitor.url}/very-secret")
    assert "404" in str(refused.value) and "secret" not in str(refused.value)


def test_addresses_are_checked_when_the_settings_are_read(settings, monkeypatch):
    for name, value, told in (
        ("IRONBEAT_HEARTBEAT_URL", "ftp://x/y", "http"),
        ("IRONBEAT_HEARTBEAT_SCHEDULE_URL", "https://x/y", "{slug}"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            get_settings.cache_clear()
            with pytest.raises(SettingsError) as refused:
                get_settings()
            assert name in str(refused.value) and told in str(refused.value)
    get_settings.cache_clear()


def test_beat_pings_while_all_is_well_and_the_outside_hears_when_it_is_not(
    settings, monitor, tmp_path
):
    beating = {"IRONBEAT_HEARTBEAT_URL": f"{monitor.url}/beat", "IRONBEAT_HEARTBEAT_SECONDS": "1"}
    with ironbeat("beat", tmp_path, **beating) as beat:
        # Without a worker nothing is executed: it says so at once.
        wait_for(lambda: "/beat/fail" in monitor.paths(), seconds=60, program=beat)
        wait_for(
            lambda: any(b"no active workers" in each.body for each in list(monitor.received)),
            seconds=20,
            program=beat,
        )
        with ironbeat("worker", tmp_path) as worker:
            wait_for(lambda: "/beat" in monitor.paths(), seconds=60, program=worker)
            began = time.time()
            wait_for(lambda: monitor.paths(began).count("/beat") >= 3, seconds=20, program=beat)
            assert figure(settings, "ironbeat_heartbeat_age_seconds") < 10
            # Total outage: everything is gone at once, and the pings stop.
            for program in (beat, worker):
                program.kill(signal.SIGKILL)
        gone = time.time()
        time.sleep(4)
        assert monitor.paths(gone + 0.5) == []


def test_a_monitor_that_hangs_or_refuses_never_holds_beat_up(settings, monitor, tmp_path):
    monitor.delay = HANGING_SECONDS
    schedule(settings, "each-second")
    beating = {"IRONBEAT_HEARTBEAT_URL": monitor.url, "IRONBEAT_HEARTBEAT_SECONDS": "1"}
    with ironbeat("beat", tmp_path, **beating) as beat:
        wait_for(lambda: len(monitor.received) > 0, seconds=60, program=beat)
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            time.sleep(8)
            slots = connection.execute(
                "SELECT count(*), max(fired_at - scheduled_for) < interval '3 seconds'"
                " FROM ironbeat.fires WHERE fired_at > clock_timestamp() - interval '6 seconds'"
            ).fetchone()
        assert slots[0] >= 5 and slots[1], "it fired on, in time"
        # Nothing was taken: the age counts from the start, which the metric shows.
        assert figure(settings, "ironbeat_heartbeat_age_seconds") > 5
        asked = time.monotonic()
        beat.process.terminate()
        beat.process.wait(timeout=20)
        assert time.monotonic() - asked < HANGING_SECONDS / 2


def test_a_schedules_runs_are_told_from_start_to_end(settings, monitor, tmp_path):
    schedule(settings, "good-one", "2s")
    schedule(settings, "bad-one", "2s", kwargs='{"nonsense": 1}')
    schedule(settings, "private", "1s")
    told = {
        "IRONBEAT_HEARTBEAT_SCHEDULE_URL": f"{monitor.url}/key/{{slug}}?create=1",
        "IRONBEAT_HEARTBEAT_SCHEDULES": "*-one",
    }
    with ironbeat("worker", tmp_path, **told) as worker, ironbeat("beat", tmp_path):
        wanted = {
            *("/key/good-one/start", "/key/good-one"),
            *("/key/bad-one/start", "/key/bad-one/fail"),
        }
        wait_for(lambda: wanted <= set(monitor.paths()), seconds=90, program=worker)
        # Failures are told each time; what succeeds every two seconds, now and then.
        wait_for(
            lambda: monitor.paths().count("/key/bad-one/fail") >= 3, seconds=30, program=worker
        )
        assert monitor.paths().count("/key/good-one") <= 2
    assert set(monitor.paths()) == wanted
    first = {each.path.partition("?")[0]: each for each in reversed(monitor.received)}
    start, end = first["/key/good-one/start"], first["/key/good-one"]
    assert start.path.partition("?")[2] == end.path.partition("?")[2]
    assert "create=1&rid=" in start.path and end.method == "POST"


def test_it_goes_on_when_the_monitor_is_back(monitor):
    monitor.status = 500
    heart = Heartbeat(monitor.url, 1.0, lambda: "")
    began = heart.taken_at
    heart.start()
    wait_for(lambda: len(monitor.received) >= 1)
    assert heart.taken_at == began
    monitor.status = 200
    wait_for(lambda: heart.taken_at > began)
    heart.stop()
