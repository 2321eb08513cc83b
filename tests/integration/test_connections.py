"""Connections from the pool, when what they are used for ends badly."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import psycopg
import pytest
from celery.exceptions import SoftTimeLimitExceeded

from ironbeat import connection
from ironbeat.settings import Settings


@pytest.fixture
def limit_after_half_a_second() -> Iterator[None]:
    """Raises in the main thread as a worker's soft time limit does."""

    def over(number: int, frame: FrameType | None) -> None:
        raise SoftTimeLimitExceeded

    former = signal.signal(signal.SIGUSR1, over)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    yield
    timer.cancel()
    signal.signal(signal.SIGUSR1, former)


def test_a_time_limit_ends_the_statement_on_the_server_too(
    settings: Settings, limit_after_half_a_second: None
) -> None:
    with pytest.raises(SoftTimeLimitExceeded), connection() as opened, opened.transaction():
        opened.execute("SELECT pg_sleep(60) /* too long */")
    with connection() as opened:
        assert opened.execute("SELECT 1").fetchone() == (1,)
        deadline = time.monotonic() + 10
        while opened.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%/* too long */' AND state <> 'idle'"
        ).fetchone():
            assert time.monotonic() < deadline, "the server goes on with the statement"
            time.sleep(0.05)


def test_an_error_in_a_statement_leaves_the_connection_to_the_next(settings: Settings) -> None:
    with connection() as opened:
        pid = opened.info.backend_pid
    with pytest.raises(psycopg.errors.DivisionByZero), connection() as opened:
        opened.execute("SELECT 1 / 0")
    with connection() as opened:
        assert opened.execute("SELECT pg_backend_pid()").fetchone() == (pid,)
