"""Work in batches: however much is due, no transaction is long and no result is large.

A batch is one statement in a transaction of its own, so that what a run has done stays done when
it is stopped, locks are held for milliseconds, and this process sees one row of counts at a time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from ironbeat import connection, load_queries

# Small enough for short locks and for plans that go by index, large enough for the round trip and
# the commit not to matter.
BATCH_ROWS = 1000

# How long a run goes on starting batches. What is left then is first in line at the next fire.
BUDGET_SECONDS = 8.0

# A batch takes milliseconds; one that takes this long has met something that is broken.
STATEMENT_TIMEOUT_SECONDS = 60

_COUNTS_OF_PROGRESS = ("picked", "after_time", "after_id")


class Budget:
    """The time a run may spend, in seconds from its creation."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @property
    def spent(self) -> bool:
        """Whether it is time to stop."""
        return time.monotonic() >= self._until


@contextmanager
def transaction() -> Iterator[psycopg.Cursor[dict[str, Any]]]:
    """A cursor in a transaction of its own whose statements are bounded in time."""
    with (
        connection() as opened,
        opened.transaction(),
        opened.cursor(row_factory=dict_row) as cursor,
    ):
        # The rows of a batch are scattered, and hot: going by index beats reading a whole table.
        cursor.execute(
            "SELECT set_config('statement_timeout', %s, true),"
            " set_config('random_page_cost', '1.1', true)",
            [f"{STATEMENT_TIMEOUT_SECONDS}s"],
        )
        yield cursor


def _text(query: str) -> LiteralString:
    return load_queries(__name__.rpartition(".")[0], "queries.sql")[query]


def one(cursor: psycopg.Cursor[dict[str, Any]], query: str, **parameters: Any) -> dict[str, Any]:
    """The single row that a query of ``queries.sql`` answers with."""
    # Never prepared: a generic plan would not know how small a batch is.
    row = cursor.execute(
        load_queries(__package__, "queries.sql")[query], parameters, prepare=False
    ).fetchone()
    if row is None:
        raise psycopg.DataError(f"query {query!r} answered no row")
    return row


def written(cursor: psycopg.Cursor[dict[str, Any]], query: str, **parameters: Any) -> int:
    """How many rows a query of ``queries.sql`` wrote."""
    return cursor.execute(_text(query), parameters, prepare=False).rowcount


def exclusively(cursor: psycopg.Cursor[dict[str, Any]], job: str) -> bool:
    """Whether this transaction is the only one at ``job``, until it ends."""
    return bool(one(cursor, "try_exclusive", job=f"marketplace.{job}")["alone"])


def drain(
    query: str,
    *,
    batch: int = BATCH_ROWS,
    budget_seconds: float = BUDGET_SECONDS,
    **parameters: Any,
) -> dict[str, Any]:
    """Repeat a batch query along its index until nothing is due, and return the sum of its counts.

    ``more`` is true when the time was spent first.
    """
    budget = Budget(budget_seconds)
    totals: Counter[str] = Counter()
    position: dict[str, Any] = {"after_time": "-infinity", "after_id": 0}
    while True:
        with transaction() as cursor:
            row = one(cursor, query, batch=batch, **position, **parameters)
        totals.update({k: v for k, v in row.items() if k not in _COUNTS_OF_PROGRESS})
        exhausted = row["picked"] < batch
        if exhausted or budget.spent:
            return {**totals, "more": not exhausted}
        position = {"after_time": row.get("after_time"), "after_id": row["after_id"]}
