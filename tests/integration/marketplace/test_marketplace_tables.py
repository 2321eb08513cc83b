"""The marketplace's own migrations, and what happens when its database is lost."""

from __future__ import annotations

import psycopg
import pytest
from tests.marketplace import Market

from ironbeat.migrations import check, downgrade, upgrade
from ironbeat.workload import discover
from ironbeat.workloads.marketplace import tasks


def test_the_tables_go_up_down_and_up_again(empty_database_url: str) -> None:
    workloads = discover(["marketplace"])
    for _ in range(2):
        assert "0001_marketplace" in upgrade(empty_database_url, workloads)
        assert check(empty_database_url, workloads) == []
        downgrade("marketplace", url=empty_database_url, workloads=workloads)
        with psycopg.connect(empty_database_url) as connection:
            left = connection.execute(
                "SELECT count(*) FROM pg_namespace WHERE nspname = 'marketplace'"
            ).fetchone()
        assert left == (0,)


def test_the_downgrade_stops_at_what_others_built_on_the_tables(empty_database_url: str) -> None:
    workloads = discover(["marketplace"])
    upgrade(empty_database_url, workloads)
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE VIEW members AS SELECT username FROM marketplace.users")
    with pytest.raises(Exception, match="view members depends on table"):
        downgrade("marketplace", url=empty_database_url, workloads=workloads)
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM members").fetchone() == (0,)


def test_a_lost_connection_is_retried(market: Market) -> None:
    market.add("tasks", owner_id=market.user(), title="Walk the dog", deadline_at="-1 day")
    tasks.cancel_expired_tasks()  # So that the pool has a connection to lose.
    market.run(
        "UPDATE marketplace.tasks SET status = 'open', cancelled_at = NULL, cancel_reason = NULL"
    )
    market.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    result = tasks.cancel_expired_tasks.apply()
    assert result.get() == {"cancelled": 1, "more": False}
