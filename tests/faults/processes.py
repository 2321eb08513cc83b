"""Faults of the suite's own processes: told to stop, stopped in their tracks, cut off, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from redis import Redis

from tests.faults.accounting import Traces
from tests.faults.suite import ROOT, Suite, wait_until

Scenario = Callable[[Suite], float]


def worker_told_to_stop(suite: Suite) -> float:
    """SIGTERM of one of two workers; supervisord starts it again."""
    [pid] = suite.kill("worker", signal.SIGTERM, index=0)

    def replaced() -> bool:
        pids = suite.pids("worker")
        return pid not in pids and len(pids) == 2

    return wait_until(replaced, 60)


def worker_stopped_beyond_its_lease(suite: Suite) -> float:
    """SIGSTOP of one of two workers for 15 s: its work moves, and then it goes on."""
    suite.kill("worker", signal.SIGSTOP, index=0)
    before = _executions(suite)
    seconds = wait_until(lambda: _executions(suite) > before + 30, 60)
    time.sleep(max(0.0, 15 - seconds))
    suite.kill("worker", signal.SIGCONT)
    return seconds


def every_worker_stopped(suite: Suite) -> float:
    """SIGSTOP of all workers for 12 s, then SIGCONT."""
    suite.kill("worker", signal.SIGSTOP)
    time.sleep(12)
    before = _executions(suite)
    suite.kill("worker", signal.SIGCONT)
    return wait_until(lambda: _executions(suite) > before + 30, 60)


def beat_told_to_stop(suite: Suite) -> float:
    """SIGTERM of beat."""
    fired = fires(suite)
    suite.kill("beat", signal.SIGTERM)
    return wait_until(lambda: fires(suite) > fired + 20, 60)


def one_of_two_beats_killed(suite: Suite) -> float:
    """`kill -9` of one of two beats: the longest time without a fire."""
    with second_beat(suite) as other:
        time.sleep(3)
        os.kill(other, signal.SIGKILL)
        return longest_without_fire(suite, 6)


def one_of_two_beats_stopped_for_a_minute(suite: Suite) -> float:
    """SIGSTOP of one of two beats for a minute, then SIGCONT: the longest time without a fire."""
    with second_beat(suite) as other:
        time.sleep(3)
        os.kill(other, signal.SIGSTOP)
        try:
            seconds = longest_without_fire(suite, 60)
        finally:
            os.kill(other, signal.SIGCONT)
        time.sleep(3)
        return seconds


def api_killed(suite: Suite) -> float:
    """`kill -9` of the API's processes."""
    suite.kill("api")
    return suite.until_healthy()


def every_program_killed(suite: Suite) -> float:
    """`kill -9` of beat, workers, API and Flower at once."""
    for group in ("beat", "worker", "api", "flower"):
        suite.kill(group)
    return suite.until_healthy(120)


def broker_connections_cut(suite: Suite) -> float:
    """CLIENT KILL of every connection to Redis, three times."""
    before = _executions(suite)
    with Redis.from_url(suite.settings.broker_url.get_secret_value()) as client:
        for _ in range(3):
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub", skipme=True)
            time.sleep(0.5)
    return wait_until(lambda: _executions(suite) > before + 60, 60)


def database_connections_cut(suite: Suite) -> float:
    """pg_terminate_backend of every connection to PostgreSQL, three times."""
    before = _executions(suite)
    url = suite.settings.database_url.get_secret_value()
    for _ in range(3):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        time.sleep(0.5)
    return wait_until(lambda: _executions(suite) > before + 60, 60)


SCENARIOS: dict[str, Scenario] = {
    "worker-terminated": worker_told_to_stop,
    "worker-paused": worker_stopped_beyond_its_lease,
    "every-worker-paused": every_worker_stopped,
    "beat-terminated": beat_told_to_stop,
    "one-of-two-beats-killed": one_of_two_beats_killed,
    "one-of-two-beats-stopped": one_of_two_beats_stopped_for_a_minute,
    "api-killed": api_killed,
    "every-program-killed": every_program_killed,
    "broker-connections-cut": broker_connections_cut,
    "database-connections-cut": database_connections_cut,
}


@contextmanager
def second_beat(suite: Suite) -> Iterator[int]:
    """A beat beside the one under supervisord; its pid."""
    log = suite.directory / "second-beat.log"
    with log.open("ab") as output:
        beat = subprocess.Popen(
            [str(Path(sys.executable).parent / "ironbeat"), "beat"],
            env=suite.environment, cwd=ROOT, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            url = suite.settings.database_url.get_secret_value()
            wait_until(lambda: _beats(url) >= 2, 60)
            yield beat.pid
        finally:
            beat.send_signal(signal.SIGCONT)
            beat.terminate()
            beat.wait(30)


def longest_without_fire(suite: Suite, seconds: float) -> float:
    """The longest time in which no slot was fired, from now on for so long."""
    last, longest, seen = time.monotonic(), 0.0, fires(suite)
    until = last + seconds
    while time.monotonic() < until:
        time.sleep(0.1)
        now = fires(suite)
        longest = max(longest, time.monotonic() - last)
        if now != seen:
            last, seen = time.monotonic(), now
    return longest


def fires(suite: Suite) -> int:
    """How many slots were fired until now."""
    with psycopg.connect(suite.settings.database_url.get_secret_value()) as connection:
        row = connection.execute("SELECT count(*) FROM ironbeat.fires").fetchone()
    return row[0] if row else 0


def _beats(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM ironbeat.leases"
            " WHERE kind = 'beat' AND expires_at > clock_timestamp()"
        ).fetchone()
    return row[0] if row else 0


def _executions(suite: Suite) -> int:
    return sum(len(times) for times in Traces.read(suite.traces).begins.values())
