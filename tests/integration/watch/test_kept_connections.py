"""Connections kept between looks: used again while they work, replaced when they do not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from ironbeat.settings import Settings
from ironbeat.watch import stores

PID = "SELECT pg_backend_pid()"


@pytest.fixture
def kept() -> Iterator[stores.Kept]:
    found = stores.Kept()
    yield found
    found.close()


def pid_of(kept: stores.Kept, settings: Settings, **options: object) -> int:
    with kept.database(settings, **options) as connection:  # type: ignore[arg-type]
        return connection.execute(PID).fetchone()[0]  # type: ignore[index]


def alive(database_url: str, pid: int) -> bool:
    with psycopg.connect(database_url) as other:
        found = other.execute("SELECT FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()
    return found is not None


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """A server process ends a moment after its connection is closed."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_connection_serves_one_look_after_another(settings, kept):
    assert pid_of(kept, settings) == pid_of(kept, settings)


def test_looks_with_other_rights_or_names_share_none(settings, kept):
    first = pid_of(kept, settings)
    assert pid_of(kept, settings, read_only=False) != first
    assert pid_of(kept, settings, application_name="ironbeat-other") != first


def test_two_looks_at_once_have_one_each(settings, kept):
    with kept.database(settings) as one, kept.database(settings) as other:
        assert one is not other


def test_a_crowd_leaves_two_behind(settings, kept, database_url):
    inside = threading.Barrier(5)
    pids: list[int] = []

    def look() -> None:
        with kept.database(settings) as connection:
            pids.append(connection.execute(PID).fetchone()[0])
            inside.wait(10)

    threads = [threading.Thread(target=look) for _ in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    eventually(lambda: sum(alive(database_url, pid) for pid in pids) == stores.KEPT_AT_MOST)


def test_a_connection_that_the_server_has_ended_is_replaced(settings, kept, database_url):
    first = pid_of(kept, settings)
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
    assert pid_of(kept, settings) != first


def test_an_old_one_is_replaced(settings, kept, monkeypatch):
    first = pid_of(kept, settings)
    monkeypatch.setattr(stores, "KEPT_SECONDS", 0.0)
    assert pid_of(kept, settings) != first


def test_each_look_has_its_own_bound(settings, kept):
    first = pid_of(kept, settings, seconds=30.0)
    with (
        pytest.raises(psycopg.OperationalError),
        kept.database(settings, 0.2) as connection,
    ):
        assert connection.execute(PID).fetchone()[0] == first
        connection.execute("SELECT pg_sleep(5)")


def test_what_was_cut_off_is_not_kept(settings, kept):
    with pytest.raises(psycopg.OperationalError), kept.database(settings, 10.0) as connection:
        first = connection.execute(PID).fetchone()[0]
        with stores.deadline(connection, 0.1):
            connection.execute("SELECT pg_sleep(5)")
    assert pid_of(kept, settings) != first


def test_an_unfinished_transaction_is_not_kept(settings, kept):
    with kept.database(settings) as connection:
        first = connection.execute(PID).fetchone()[0]
        connection.execute("BEGIN")
    assert pid_of(kept, settings) != first


def test_closing_ends_what_was_kept(settings, kept, database_url):
    first = pid_of(kept, settings)
    kept.close()
    eventually(lambda: not alive(database_url, first))
