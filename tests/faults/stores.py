"""What breaks here are the stores: Redis, PostgreSQL, both; stopped, killed, or there and silent.

Each fault lasts; while it does, what can go on goes on. A scenario returns how long it took at most
until work began again: after the store had gone, and after it was back.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from tests.faults.accounting import Traces
from tests.faults.suite import Suite, wait_until

Change = Callable[[Suite], None]

GONE_SECONDS = 15.0
LONG_SECONDS = 60.0


def hold(group: str) -> Change:
    """Stopped in order, and kept so."""
    return lambda suite: suite.hold(group)


def release(group: str) -> Change:
    """Started again."""
    return lambda suite: suite.release(group)


def signal_family(group: str, number: int) -> Change:
    """A signal to a server and to all its processes."""

    def send(suite: Suite) -> None:
        for pid in suite.pids(group):
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(pid)
                for process in (parent, *parent.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(number)

    return send


def redis_gone(go: Change, back: Change, seconds: float) -> Callable[[Suite], float]:
    """Redis is away for ``seconds``: the workers draw from the ledger, and then consume again."""

    def scenario(suite: Suite) -> float:
        gone_at = time.time()
        go(suite)
        wait_until(lambda: "fallback" in suite.health().get("checks", {}), 30)
        # Work is done that began after that.
        noticed = time.time()
        wait_until(lambda: begun_since(suite, noticed), 30)
        drawn = time.time() - gone_at
        answer = suite.health()
        assert answer["status"] == "degraded", answer
        time.sleep(max(0.0, gone_at + seconds - time.time()))
        back(suite)
        back_at = time.monotonic()
        suite.until_healthy()
        return max(drawn, time.monotonic() - back_at)

    return scenario


def postgres_gone(go: Change, back: Change, seconds: float) -> Callable[[Suite], float]:
    """PostgreSQL is away for ``seconds``: what runs ends, and is written when it is back."""

    def scenario(suite: Suite) -> float:
        go(suite)
        told = wait_until(lambda: suite.health().get("status") == "unhealthy", 10)
        assert told < 3, told
        time.sleep(seconds)
        back(suite)
        back_at = time.time()
        suite.until_healthy()
        wait_until(lambda: begun_since(suite, back_at), 30)
        return time.time() - back_at

    return scenario


def both_gone(suite: Suite) -> float:
    """Redis and PostgreSQL are killed and stay away; PostgreSQL is back first."""
    suite.hold("redis")
    suite.hold("postgres")
    time.sleep(GONE_SECONDS)
    suite.release("postgres")
    back_at = time.time()
    wait_until(lambda: begun_since(suite, back_at), 40)
    drawn = time.time() - back_at
    suite.release("redis")
    back_at = time.time()
    suite.until_healthy()
    return max(drawn, time.time() - back_at)


def begun_since(suite: Suite, since: float) -> bool:
    """Whether a task has begun since then (seconds since the epoch)."""
    begins = Traces.read(suite.traces).begins.values()
    return any(times[-1] > since for times in begins)


SCENARIOS: dict[str, Callable[[Suite], float]] = {
    "redis-stopped-for-a-minute": redis_gone(hold("redis"), release("redis"), LONG_SECONDS),
    "redis-paused": redis_gone(
        signal_family("redis", signal.SIGSTOP), signal_family("redis", signal.SIGCONT), GONE_SECONDS
    ),
    "postgres-stopped": postgres_gone(hold("postgres"), release("postgres"), GONE_SECONDS),
    "postgres-paused": postgres_gone(
        signal_family("postgres", signal.SIGSTOP),
        signal_family("postgres", signal.SIGCONT),
        GONE_SECONDS,
    ),
    "both-gone": both_gone,
}
