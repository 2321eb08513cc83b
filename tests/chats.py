"""Chat messages on a real database, and short words to put them there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg


class Chats:
    """What a test puts into the tables of the workload and reads from them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def run(self, query: str, *values: Any) -> list[Any]:
        """All rows; each of one column as its bare value."""
        # Without values the text is sent as it is, and may hold several statements.
        cursor = self._connection.execute(query, values or None)  # type: ignore[arg-type]
        if cursor.description is None:
            return []
        return [row[0] if len(row) == 1 else row for row in cursor.fetchall()]

    def value(self, query: str, *values: Any) -> Any:
        (found,) = self.run(query, *values)
        return found

    def empty(self) -> None:
        """Remove every row, and the models with their partitions."""
        for table in self.run(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = 'analytics.chat_message_embeddings_1024'::regclass"
        ):
            self.run(f"DROP TABLE {table}")
        tables = self.run(
            "SELECT 'analytics.' || table_name FROM information_schema.tables"
            " WHERE table_schema = 'analytics'"
        )
        self.run(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")

    def say(self, *texts: str, role: str = "user", days_ago: float = 0) -> list[int]:
        """Add messages; their ids."""
        at = datetime.now(UTC) - timedelta(days=days_ago)
        return [
            self.value(
                "INSERT INTO analytics.chat_messages (role, content, created_at)"
                " VALUES (%s, %s, %s) RETURNING id",
                role,
                text,
                at,
            )
            for text in texts
        ]

    def vectors(self) -> int:
        return self.value("SELECT count(*) FROM analytics.chat_message_embeddings_1024")
