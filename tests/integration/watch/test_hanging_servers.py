"""Health and status while servers hang, refuse, or swallow packets: always an answer, in time."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import psycopg
import pytest

from ironbeat import watch
from ironbeat.embedded import temporary_postgres, temporary_redis
from ironbeat.migrations import upgrade
from ironbeat.settings import get_settings
from ironbeat.watch import health, stores


@pytest.fixture(scope="module")
def own_postgres():
    with temporary_postgres() as server:
        upgrade(server.url, ())
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(
                """INSERT INTO ironbeat.leases (id, kind, name, host, pid, expires_at) VALUES
                   ('w', 'worker', 'w', 'here', 1, 'infinity'),
                   ('b', 'beat', 'b', 'here', 2, 'infinity')"""
            )
        yield server


@pytest.fixture(scope="module")
def own_redis():
    with temporary_redis() as server:
        yield server


@pytest.fixture
def here(monkeypatch, own_postgres, own_redis):
    monkeypatch.setenv("IRONBEAT_DATABASE_URL", own_postgres.url)
    monkeypatch.setenv("IRONBEAT_BROKER_URL", own_redis.url)
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


def timed(check):
    """What ``check`` answers, within its second in one of three attempts: others work here too."""
    for _ in range(3):
        started = time.monotonic()
        found = check()
        if (seconds := time.monotonic() - started) < 1.0:
            return found
    pytest.fail(f"answered after {seconds:.2f} s only")


def wait_until(check, status, seconds=5.0):
    deadline = time.monotonic() + seconds
    while (found := check()).status != status and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found.status == status, found


def test_all_is_well(here):
    found = timed(health.HealthCheck(here).check)
    assert found.body() == {
        "status": "healthy",
        "checks": {
            "database": "ok",
            "redis": "ok",
            "celery_worker": "ok (1 workers)",
            "beat": "ok",
        },
    }


def test_a_stopped_redis_degrades_and_recovers(here, own_redis):
    check = health.HealthCheck(here).check
    own_redis.pause()
    try:
        found = timed(check)
        assert found.status == "degraded"
        assert found.checks["redis"] == "no answer within 0.7 s"
        assert found.checks["database"] == "ok"
    finally:
        own_redis.resume()
    wait_until(check, "healthy")


def test_a_stopped_postgres_is_unhealthy_and_recovers(here, own_postgres):
    check = health.HealthCheck(here).check
    own_postgres.pause()
    try:
        found = timed(check)
        assert found.status == "unhealthy"
        assert found.checks["database"] == "no answer within 0.7 s"
        assert found.checks["redis"] == "ok"
        assert found.checks["celery_worker"].startswith("unknown")
    finally:
        own_postgres.resume()
    wait_until(check, "healthy")


def test_with_both_stopped_many_ask_and_few_threads_hang(here, own_postgres, own_redis):
    checker = health.HealthCheck(here)
    before = threading.active_count()
    own_postgres.pause()
    own_redis.pause()
    try:

        async def ask() -> list[watch.Health]:
            return await asyncio.gather(*(checker.acheck() for _ in range(50)))

        answers = timed(lambda: asyncio.run(ask()))
        assert {answer.status for answer in answers} == {"unhealthy"}
        # One thread for each server, and one timer that will cut PostgreSQL's off.
        assert threading.active_count() - before <= 3
    finally:
        own_postgres.resume()
        own_redis.resume()
    wait_until(checker.check, "healthy")


def test_dead_servers_are_named_without_their_addresses(here, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        monkeypatch.setenv("IRONBEAT_DATABASE_URL", f"postgresql://u:secret@127.0.0.1:{port}/x")
        monkeypatch.setenv("IRONBEAT_BROKER_URL", f"redis://:secret@127.0.0.1:{port}/1")
        get_settings.cache_clear()
        found = timed(health.HealthCheck(get_settings()).check)
    assert found.status == "unhealthy"
    assert found.checks["database"] == "connection refused"
    assert found.checks["redis"] == "connection refused"


def test_servers_that_swallow_packets(here, monkeypatch):
    """A full listen queue answers no further connection attempt, like a black hole."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        port = hole.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        monkeypatch.setenv("IRONBEAT_DATABASE_URL", f"postgresql://u:s@127.0.0.1:{port}/x")
        monkeypatch.setenv("IRONBEAT_BROKER_URL", f"redis://127.0.0.1:{port}/1")
        get_settings.cache_clear()
        found = timed(health.HealthCheck(get_settings()).check)
        for filler in fillers:
            filler.close()
    assert found.checks["database"] == "no answer within 0.7 s"
    assert found.checks["redis"] == "no answer within 0.7 s"


def test_without_tables_the_remedy_is_named(here, monkeypatch, empty_database_url):
    monkeypatch.setenv("IRONBEAT_DATABASE_URL", empty_database_url)
    get_settings.cache_clear()
    found = timed(health.HealthCheck(get_settings()).check)
    assert found.checks["database"] == "reachable, but not migrated: run `ironbeat db upgrade`"


def test_a_statement_that_hangs_is_cut_off(here, own_postgres):
    with stores.database(here, seconds=0.5) as connection:
        connection.execute("SELECT 1")
        own_postgres.pause()
        started = time.monotonic()
        try:
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        finally:
            own_postgres.resume()
        assert time.monotonic() - started < 2.0


def test_a_statement_that_ends_in_time_leaves_its_connection_alone(here):
    with psycopg.connect(here.database_url.get_secret_value()) as connection:
        with stores.deadline(connection, 0.1):
            connection.execute("SELECT 1")
        time.sleep(0.3)
        assert connection.execute("SELECT 2").fetchone() == (2,)


def test_status_without_postgres_still_shows_the_queues(here, own_postgres):
    own_postgres.pause()
    try:
        started = time.monotonic()
        found = watch.status(here, deadline=1.0)
        assert time.monotonic() - started < 2.5
    finally:
        own_postgres.resume()
    assert found.database is None and found.broker is not None
    assert any(queue.length == 0 for queue in found.queues)
    assert "PostgreSQL: no answer in time" in found.problems


def test_status_without_redis_still_shows_the_ledger(here, own_redis):
    own_redis.pause()
    try:
        found = watch.status(here, deadline=1.0)
    finally:
        own_redis.resume()
    assert found.broker is None and found.database is not None
    assert [worker.id for worker in found.workers] == ["w"]
    assert "Redis: no answer in time" in found.problems
