"""How the workload speaks to PostgreSQL: the queries of ``queries.sql`` in bounded transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from ironbeat import connection, load_queries

Cursor = psycopg.Cursor[dict[str, Any]]

# A batch is embedded inside the transaction that claims it; the platform's bound is for waiting.
IDLE_SECONDS = 180
STATEMENT_SECONDS = 480


@contextmanager
def transaction(*, idle_seconds: int = IDLE_SECONDS) -> Iterator[Cursor]:
    """A cursor in a transaction of its own whose statements, and pauses, are bounded in time."""
    with (
        connection() as opened,
        opened.transaction(),
        opened.cursor(row_factory=dict_row) as cursor,
    ):
        cursor.execute(
            "SELECT set_config('statement_timeout', %s, true),"
            " set_config('idle_in_transaction_session_timeout', %s, true)",
            [f"{STATEMENT_SECONDS}s", f"{idle_seconds}s"],
        )
        yield cursor


def sql(query: str) -> LiteralString:
    """The text of a query of ``queries.sql``."""
    return load_queries(__name__.rpartition(".")[0], "queries.sql")[query]


def rows(cursor: Cursor, query: str, **parameters: Any) -> list[dict[str, Any]]:
    """All rows that a query answers with."""
    # Never prepared: a generic plan would know neither the model's partition nor a batch's size.
    return cursor.execute(sql(query), parameters, prepare=False).fetchall()


def first(cursor: Cursor, query: str, **parameters: Any) -> dict[str, Any] | None:
    """The first row that a query answers with, if any."""
    return cursor.execute(sql(query), parameters, prepare=False).fetchone()


def one(cursor: Cursor, query: str, **parameters: Any) -> dict[str, Any]:
    """The single row that a query answers with."""
    row = first(cursor, query, **parameters)
    if row is None:
        raise psycopg.DataError(f"query {query!r} answered no row")
    return row


def written(cursor: Cursor, query: str, **parameters: Any) -> int:
    """How many rows a query wrote."""
    return cursor.execute(sql(query), parameters, prepare=False).rowcount
