"""Partitions of the history: made ahead of time, dropped when their days are over."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from ironbeat import database
from ironbeat.runs import kept, throttles

AHEAD_DAYS = 7
_PREFIX = "run_history_"


def partition_name(day: date) -> str:
    """The name of the partition that holds the runs created on ``day`` (UTC)."""
    return f"{_PREFIX}{day:%Y%m%d}"


def partition_day(name: str) -> date | None:
    """The day of a partition, or ``None`` for the one that holds everything else."""
    try:
        return datetime.strptime(name.removeprefix(_PREFIX), "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def prune(*, days: int, url: str | None = None) -> dict[str, Any]:
    """Make partitions for the coming days; drop runs, fires, keys and results older than ``days``.

    Returns what was made and dropped. Safe to run at any time and by several at once.
    """
    with database.connection(url) as connection:
        made = make_partitions(connection)
        dropped = drop_partitions(connection, days)
        rest = connection.execute(
            "DELETE FROM ironbeat.run_history_other"
            " WHERE created_at < now() - make_interval(days => %s)",
            (days,),
        ).rowcount
        fires = connection.execute(
            "DELETE FROM ironbeat.fires f WHERE fired_at < now() - make_interval(days => %s)"
            " AND NOT EXISTS (SELECT FROM ironbeat.schedules s WHERE s.id = f.schedule_id"
            " AND s.next_scheduled_for <= f.scheduled_for)",
            (days,),
        ).rowcount
        keys = connection.execute(
            "DELETE FROM ironbeat.idempotency_keys WHERE expires_at < now()"
        ).rowcount
        connection.execute(throttles.SQL["forget"])
        unkept = kept.prune(connection, days)
    report = {"made": made, "dropped": dropped, "rows": rest, "fires": fires, "keys": keys}
    return report | unkept


def make_partitions(connection: psycopg.Connection[Any], ahead: int = AHEAD_DAYS) -> list[str]:
    """Make the partitions from yesterday to ``ahead`` days from now; returns the new ones."""
    today = _today(connection)
    made = []
    for offset in range(-1, ahead + 1):
        day = today + timedelta(days=offset)
        if make_partition(connection, day):
            made.append(partition_name(day))
    return made


def make_partition(connection: psycopg.Connection[Any], day: date) -> bool:
    """Make the partition of one day; ``False``: it is there already."""
    name = partition_name(day)
    table = sql.Identifier("ironbeat", name)
    begin, end = day.isoformat(), (day + timedelta(days=1)).isoformat()
    with connection.transaction():
        # One at a time; and nothing may be moved twice out of the partition for the rest.
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('ironbeat.partitions'))")
        found = connection.execute("SELECT to_regclass(%s)", (f"ironbeat.{name}",)).fetchone()
        if found is not None and found[0] is not None:
            return False
        connection.execute(
            sql.SQL("CREATE TABLE {} (LIKE ironbeat.run_history INCLUDING ALL)").format(table)
        )
        connection.execute(
            sql.SQL(
                "WITH moved AS (DELETE FROM ironbeat.run_history_other"
                " WHERE created_at >= {begin} AND created_at < {end} RETURNING *)"
                " INSERT INTO {table} SELECT * FROM moved"
            ).format(table=table, begin=sql.Literal(begin + "Z"), end=sql.Literal(end + "Z"))
        )
        connection.execute(
            sql.SQL(
                "ALTER TABLE ironbeat.run_history ATTACH PARTITION {table}"
                " FOR VALUES FROM ({begin}) TO ({end})"
            ).format(table=table, begin=sql.Literal(begin + "Z"), end=sql.Literal(end + "Z"))
        )
    return True


def drop_partitions(connection: psycopg.Connection[Any], days: int) -> list[str]:
    """Drop the partitions whose day lies more than ``days`` back; returns them."""
    oldest = _today(connection) - timedelta(days=days)
    dropped = []
    for name in partitions(connection):
        day = partition_day(name)
        if day is not None and day < oldest:
            connection.execute(
                sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier("ironbeat", name))
            )
            dropped.append(name)
    return dropped


def partitions(connection: psycopg.Connection[Any]) -> list[str]:
    """The names of the history's partitions."""
    rows = connection.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'ironbeat.run_history'::regclass ORDER BY c.relname"
    ).fetchall()
    return [row[0] for row in rows]


def _today(connection: psycopg.Connection[Any]) -> date:
    row = connection.execute("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date").fetchone()
    assert row is not None
    found: date = row[0]
    return found
