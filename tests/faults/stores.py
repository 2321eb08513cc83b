"""What breaks here are the stores: gone, silent, full, slow, or emptied."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import psycopg
from redis import Redis

from tests.faults.scenario import DIED_SECONDS, Scenario
from tests.faults.suite import Suite, wait_until

Fault = Callable[[Suite], AbstractContextManager[None]]

GONE_SECONDS = 15.0
LONG_SECONDS = 60.0
# Seconds that a slow store runs, and stands still.
SLOW_OF = (0.05, 0.45)


@contextmanager
def held(suite: Suite, group: str) -> Iterator[None]:
    """Stopped in order, and kept so, until the block ends."""
    suite.hold(group)
    try:
        yield
    finally:
        suite.release(group)


def redis_gone(fault: Fault, seconds: float) -> Callable[[Suite], float]:
    """Redis is away for ``seconds``: the workers draw from the ledger, and then consume again."""

    def scenario(suite: Suite) -> float:
        gone_at = suite.now()
        with fault(suite):
            wait_until(lambda: "fallback" in suite.health().get("checks", {}), 30)
            noticed = suite.now()
            # Work is done that began after that.
            wait_until(lambda: suite.begun_since(noticed), 30)
            drawn = suite.now() - gone_at
            answer = suite.health()
            assert answer["status"] == "degraded", answer
            time.sleep(max(0.0, gone_at + seconds - suite.now()))
        back_at = time.monotonic()
        suite.until_healthy()
        return max(drawn, time.monotonic() - back_at)

    return scenario


def postgres_gone(fault: Fault, seconds: float) -> Callable[[Suite], float]:
    """PostgreSQL is away for ``seconds``: what runs ends, and is written when it is back."""

    def scenario(suite: Suite) -> float:
        with fault(suite):
            wait_until(lambda: suite.health().get("status") == "unhealthy", 10)
            time.sleep(seconds)
        back_at = suite.now()
        suite.until_healthy()
        wait_until(lambda: suite.begun_since(back_at), 30)
        return suite.now() - back_at

    return scenario


def both_gone(suite: Suite) -> float:
    """Redis and PostgreSQL stay away; PostgreSQL is back first."""
    suite.hold("redis")
    suite.hold("postgres")
    time.sleep(GONE_SECONDS)
    suite.release("postgres")
    back_at = suite.now()
    wait_until(lambda: suite.begun_since(back_at), 40)
    drawn = suite.now() - back_at
    suite.release("redis")
    back_at = suite.now()
    suite.until_healthy()
    return max(drawn, suite.now() - back_at)


def both_killed(suite: Suite) -> float:
    """`kill -9` of both stores at once; supervisord starts them again."""
    suite.kill("redis")
    suite.signal_family(signal.SIGKILL, "postgres")
    return works_again(suite)


# -- Redis -----------------------------------------------------------------------------------------


def broker_killed(suite: Suite) -> float:
    """`kill -9` of Redis."""
    suite.kill("redis")
    return works_again(suite)


def broker_restarted(suite: Suite) -> float:
    """Redis stopped with SIGTERM and started again."""
    suite.kill("redis", signal.SIGTERM)
    return works_again(suite)


def broker_connections_cut(suite: Suite) -> float:
    """CLIENT KILL of every connection to Redis, three times."""
    with redis(suite) as client:
        for _ in range(3):
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub", skipme=True)
            time.sleep(0.5)
    return works_again(suite)


@contextmanager
def out_of_memory(suite: Suite) -> Iterator[None]:
    """Redis is full and takes no more, until the block ends."""
    with redis(suite) as client:
        before = str(client.config_get("maxmemory")["maxmemory"])
        client.config_set("maxmemory", "1")
        try:
            yield
        finally:
            client.config_set("maxmemory", before)


@contextmanager
def read_only(suite: Suite) -> Iterator[None]:
    """Redis is somebody's replica and takes no writes, until the block ends."""
    with redis(suite) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            client.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def slow(suite: Suite, group: str) -> Iterator[None]:
    """A store gets a tenth of its time, in pieces, until the block ends."""
    on, off = SLOW_OF
    stop = threading.Event()

    def stutter() -> None:
        while not stop.is_set():
            with suite.frozen(group):
                stop.wait(off)
            time.sleep(on)

    thread = threading.Thread(target=stutter, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def store_slow(group: str) -> Callable[[Suite], float]:
    """A store is slow for a while."""

    def scenario(suite: Suite) -> float:
        slowest = 0.0
        with slow(suite, group):
            began = time.monotonic()
            while time.monotonic() - began < GONE_SECONDS:
                now = suite.now()
                wait_until(lambda now=now: suite.begun_since(now), 60)  # type: ignore[misc]
                slowest = max(slowest, suite.now() - now)
        suite.until_healthy()
        return slowest

    return scenario


def emptied(suite: Suite) -> float:
    """Redis loses everything while messages wait in it: they come from the ledger again."""
    suite.signal_family(signal.SIGSTOP, "worker")
    try:
        # What waits in Redis, and nowhere else, is all durable.
        ids = suite.submit_each("counting.work", 100, 0.01)
        with redis(suite) as client:
            assert client.llen("counting") >= 1
            client.flushall()
    finally:
        emptied_at = suite.now()
        suite.signal_family(signal.SIGCONT, "worker")

    def ended() -> bool:
        rows = suite.rows("SELECT count(*) FROM ironbeat.run_history WHERE id = ANY(%s)", ids)
        return bool(rows[0][0] == len(ids))

    wait_until(ended, 60)
    return suite.now() - emptied_at


# -- PostgreSQL ------------------------------------------------------------------------------------


def database_killed(suite: Suite) -> float:
    """`kill -9` of PostgreSQL and all its processes."""
    suite.signal_family(signal.SIGKILL, "postgres")
    return works_again(suite)


def database_restarted(suite: Suite) -> float:
    """PostgreSQL shut down (fast) and started again."""
    suite.hold("postgres")
    suite.release("postgres")
    return works_again(suite)


def database_connections_cut(suite: Suite) -> float:
    """pg_terminate_backend of every connection to PostgreSQL, three times."""
    for _ in range(3):
        with psycopg.connect(suite.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND usename = current_user"
            )
        time.sleep(0.5)
    return works_again(suite)


def database_full_of_connections(suite: Suite) -> float:
    """Every connection that PostgreSQL allows is taken by somebody else, for 12 s."""
    taken: list[psycopg.Connection[object]] = []
    try:
        until = time.monotonic() + 12
        while time.monotonic() < until:
            # What the suite's programs give back is taken as well.
            try:
                taken.append(psycopg.connect(suite.url, connect_timeout=3))
            except psycopg.OperationalError:
                database_connections_of(suite, taken)
                time.sleep(0.2)
    finally:
        for connection in taken:
            with suppress(psycopg.Error):
                connection.close()
    return works_again(suite)


def database_connections_of(suite: Suite, taken: list[psycopg.Connection[object]]) -> None:
    """End the connections of everybody else, once, from one of those that were taken."""
    if not taken:
        return
    with suppress(psycopg.Error):
        taken[0].execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'ironbeat%' AND usename = current_user"
        )
        taken[0].commit()


def table_locked(suite: Suite) -> float:
    """Somebody holds the table of runs locked against writing, for 8 s."""
    with suite.locked("ironbeat.runs"):
        time.sleep(8)
    return works_again(suite)


def works_again(suite: Suite) -> float:
    """Wait until tasks begin and all is healthy; how long that took from now."""
    since = suite.now()
    wait_until(lambda: suite.begun_since(since + 0.5), 60)
    suite.until_healthy()
    return suite.now() - since


@contextmanager
def redis(suite: Suite) -> Iterator[Redis]:
    """A client of the broker's database."""
    with Redis.from_url(suite.settings.broker_url.get_secret_value()) as client:
        yield client


SCENARIOS = {
    "broker-killed": Scenario(
        "Redis", "`kill -9`", broker_killed, "healthy", lasts=3, within=DIED_SECONDS,
    ),
    "broker-restarted": Scenario(
        "Redis", "SIGTERM, started again", broker_restarted, "healthy", lasts=3,
        within=DIED_SECONDS,
    ),
    "redis-stopped-for-a-minute": Scenario(
        "Redis", "stopped for a minute",
        redis_gone(lambda suite: held(suite, "redis"), LONG_SECONDS),
        "drawn from the ledger; healthy after its return", lasts=65, within=DIED_SECONDS,
    ),
    "redis-paused": Scenario(
        "Redis", "SIGSTOP for 15 s (there, and silent)",
        redis_gone(lambda suite: suite.frozen("redis"), GONE_SECONDS),
        "drawn from the ledger; healthy after its return", lasts=20, within=DIED_SECONDS,
    ),
    "redis-full": Scenario(
        "Redis", "out of memory for 15 s", redis_gone(out_of_memory, GONE_SECONDS),
        "drawn from the ledger; healthy after there is room", lasts=20, within=DIED_SECONDS,
    ),
    "redis-read-only": Scenario(
        "Redis", "read-only for 15 s", redis_gone(read_only, GONE_SECONDS),
        "drawn from the ledger; healthy after it takes writes", lasts=20, within=DIED_SECONDS,
    ),
    "redis-emptied": Scenario(
        "Redis", "loses everything (FLUSHALL) with 100 messages waiting", emptied,
        "what was lost has ended", lasts=12, within=DIED_SECONDS,
    ),
    "redis-slow": Scenario(
        "Redis", "a tenth of its time for 15 s", store_slow("redis"),
        "longest time until the next task began", lasts=18,
    ),
    "broker-connections-cut": Scenario(
        "Redis", "every connection killed, three times", broker_connections_cut, "healthy",
        lasts=4, within=DIED_SECONDS,
    ),
    "database-killed": Scenario(
        "PostgreSQL", "`kill -9` of all its processes", database_killed, "healthy", lasts=6,
        within=DIED_SECONDS,
    ),
    "database-restarted": Scenario(
        "PostgreSQL", "shut down, started again", database_restarted, "healthy", lasts=6,
        within=DIED_SECONDS,
    ),
    "postgres-stopped": Scenario(
        "PostgreSQL", "stopped for 15 s",
        postgres_gone(lambda suite: held(suite, "postgres"), GONE_SECONDS),
        "healthy after its return", lasts=20, within=DIED_SECONDS,
    ),
    "postgres-paused": Scenario(
        "PostgreSQL", "SIGSTOP for 15 s (there, and silent)",
        postgres_gone(lambda suite: suite.frozen("postgres"), GONE_SECONDS),
        "healthy after its return", lasts=20, within=DIED_SECONDS,
    ),
    "postgres-slow": Scenario(
        "PostgreSQL", "a tenth of its time for 15 s", store_slow("postgres"),
        "longest time until the next task began", lasts=18,
    ),
    "postgres-full-of-connections": Scenario(
        "PostgreSQL", "no connection left for 12 s", database_full_of_connections, "healthy",
        lasts=14, within=DIED_SECONDS,
    ),
    "postgres-table-locked": Scenario(
        "PostgreSQL", "the table of runs locked for 8 s", table_locked, "healthy", lasts=10,
        within=DIED_SECONDS,
    ),
    "database-connections-cut": Scenario(
        "PostgreSQL", "every connection killed, three times", database_connections_cut, "healthy",
        lasts=4, within=DIED_SECONDS,
    ),
    "both-gone": Scenario(
        "Redis, PostgreSQL", "stopped for 15 s, PostgreSQL is back first", both_gone,
        "drawn from the ledger; healthy after Redis' return", lasts=25, within=DIED_SECONDS,
    ),
    "both-killed": Scenario(
        "Redis, PostgreSQL", "`kill -9` of both at once", both_killed, "healthy", lasts=6,
        within=DIED_SECONDS,
    ),
}  # fmt: skip
