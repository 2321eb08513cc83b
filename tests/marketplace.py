"""A marketplace on a real database, and short words to put something into it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import psycopg


class Market:
    """What a test puts into the marketplace and reads from it.

    Times are given as SQL intervals from the database's now: ``"-5 minutes"``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True)
        self._names = count(1)

    def close(self) -> None:
        self._connection.close()

    def empty(self) -> None:
        """Remove every row. What the points ledger forbids to everybody has to be lifted for it."""
        tables = self.run(
            "SELECT 'marketplace.' || table_name FROM information_schema.tables"
            " WHERE table_schema = 'marketplace'"
        )
        guard = "TRIGGER points_ledger_append_only"
        self.run(f"ALTER TABLE marketplace.points_ledger DISABLE {guard}")
        self.run(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY")
        self.run(f"ALTER TABLE marketplace.points_ledger ENABLE {guard}")

    def connect(self) -> psycopg.Connection[Any]:
        """A further connection, for a second party."""
        return psycopg.connect(self.url)

    def run(self, query: str, *values: Any) -> list[Any]:
        """All rows; each of one column as its bare value."""
        cursor = self._connection.execute(query, values)  # type: ignore[arg-type]
        if cursor.description is None:
            return []
        return [row[0] if len(row) == 1 else row for row in cursor.fetchall()]

    def value(self, query: str, *values: Any) -> Any:
        (found,) = self.run(query, *values)
        return found

    def add(self, table: str, **columns: Any) -> int:
        """Insert a row and return its id; a column ``…_at`` takes an interval from now."""
        names = ", ".join(columns)
        values = ", ".join(
            "now() + %s::interval" if name.endswith("_at") else "%s" for name in columns
        )
        return self.value(
            f"INSERT INTO marketplace.{table} ({names}) VALUES ({values}) RETURNING id",
            *columns.values(),
        )

    def user(self) -> int:
        return self.add("users", username=f"user {next(self._names)}")

    def users(self, number: int) -> list[int]:
        return self.run(
            "INSERT INTO marketplace.users (username) SELECT 'many ' || i || '/' || %s"
            " FROM generate_series(1, %s) AS i RETURNING id",
            next(self._names),
            number,
        )

    def agent(self, capacity: int = 2, status: str = "online") -> int:
        name = f"agent {next(self._names)}"
        return self.add("agents", name=name, capacity=capacity, status=status)

    def expert(self, featured: bool = True) -> int:
        return self.add("task_experts", user_id=self.user(), featured=featured)

    def queue(self, customer: int | None = None, queued_at: str = "-1 minute") -> int:
        customer = customer or self.user()
        return self.add("customer_queue", customer_id=customer, queued_at=queued_at)

    def chat(self, idle: str = "0 seconds", **columns: Any) -> int:
        """An open chat that nobody wrote in for ``idle``; by default with a new agent."""
        if "agent_id" not in columns and "expert_id" not in columns:
            columns["agent_id"] = self.agent()
        columns.setdefault("customer_id", self.user())
        return self.add("chats", opened_at="-90 days", last_activity_at=f"{idle} ago", **columns)

    def say(self, chat: int, sender: str, sent_at: str = "0") -> int:
        return self.add("chat_messages", chat_id=chat, sender=sender, body="…", sent_at=sent_at)

    def fingerprint(self, *tables: str) -> list[Any]:
        """Every row of the tables with its physical version: equal means nothing was written."""
        return [
            self.run(f"SELECT ctid::text, xmin::text, t::text FROM marketplace.{table} AS t")
            for table in tables
        ]


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What the calls return, made in threads at the same time; the first error is raised."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result(60) for future in [threads.submit(call) for call in calls]]
