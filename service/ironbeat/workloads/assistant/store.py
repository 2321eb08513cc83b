"""The queries of ``queries.sql``, run by name."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg.rows import DictRow, dict_row

from ironbeat import load_queries

Connection = psycopg.Connection[Any]


def sql(name: str) -> LiteralString:
    """A query's text."""
    return load_queries(__name__.rpartition(".")[0], "queries.sql")[name]


def fetch(connection: Connection, name: str, **parameters: Any) -> DictRow | None:
    """The first row that a query answers with, or ``None``."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql(name), parameters).fetchone()


def note(connection: Connection, name: str, **parameters: Any) -> DictRow | None:
    """As :func:`fetch`, for what may be lost with the server: its commit is not waited for."""
    with (
        connection.transaction(),
        connection.pipeline(),
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        connection.execute(sql("unhurried"))
        cursor.execute(sql(name), parameters)
        return cursor.fetchone()


def fetch_all(connection: Connection, name: str, **parameters: Any) -> list[DictRow]:
    """All rows that a query answers with; none of one that answers with nothing."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(sql(name), parameters)
        return cursor.fetchall() if cursor.description is not None else []
