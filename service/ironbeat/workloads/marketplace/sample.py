"""Sample rows: a marketplace in which every schedule finds something to do from its first minute.

The rows are made by the database itself (``sample.sql``), in one transaction: a load that is
stopped leaves nothing behind. They are the same for the same number of users, times counting from
the moment of loading. Loading again adds only the users that are missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row

from ironbeat import connection, load_queries

# Users a statement loads: enough for speed, few enough for the progress to move.
CHUNK_USERS = 20_000

# How many of a hundred users have such a row.
SHARES: Mapping[str, int] = {
    "customer_queue": 20,
    "service_chats": 100,
    "expert_chats": 60,
    "tasks": 100,
    "coupons": 100,
    "invitation_codes": 50,
    "points_accounts": 100,
    "points_lots": 100,
    "points_spent": 100,
    "activities": 1,
}


class SampleRefused(ValueError):
    """Sample rows would mix with a marketplace's own; load them into an empty one."""


def load(
    *,
    scale: int,
    progress: Callable[[int, int], None],
    shares: Mapping[str, int] = SHARES,
) -> dict[str, int]:
    """Make the marketplace one of ``scale`` sample users, and return how many rows were added.

    ``progress(done, total)`` is called, in users, as the work goes on. ``shares`` says how many of
    a hundred users have a row of each kind. Raises :class:`SampleRefused` where there are users
    that are not from here, and ``ValueError`` for a scale below 1.
    """
    if scale < 1:
        raise ValueError(f"scale is {scale}; it must be at least 1 user")
    with connection() as opened:
        with opened.transaction(), opened.cursor(row_factory=dict_row) as cursor:
            added = _load(cursor, scale, progress, shares)
        if added["users"]:
            # For the planner, and for reading counts from indexes alone.
            opened.execute(f"VACUUM (ANALYZE) {', '.join(f'marketplace.{t}' for t in _TABLES)}")
    return added


_TABLES = (
    "users",
    "agents",
    "task_experts",
    "customer_queue",
    "chats",
    "chat_messages",
    "tasks",
    "coupons",
    "invitation_codes",
    "points_accounts",
    "points_lots",
    "points_ledger",
    "activities",
)


def _load(
    cursor: psycopg.Cursor[dict[str, Any]],
    scale: int,
    progress: Callable[[int, int], None],
    shares: Mapping[str, int],
) -> dict[str, int]:
    sql = load_queries(__name__.rpartition(".")[0], "sample.sql")
    # Waits for another load, and keeps anybody from taking the same user numbers meanwhile.
    cursor.execute("LOCK TABLE marketplace.users IN SHARE ROW EXCLUSIVE MODE")
    present = _row(cursor, sql["present"])
    if present["sample"] < present["users"]:
        raise SampleRefused(
            f"the marketplace has {present['users'] - present['sample']} users of its own; "
            "sample rows go into an empty one. Nothing was changed."
        )
    added: Counter[str] = Counter(dict.fromkeys(_TABLES, 0))
    first = start = present["users"]
    cursor.execute(sql["pick"])
    steps = 3 + len(shares)
    while first < scale:
        last = min(first + CHUNK_USERS, scale)
        span: dict[str, Any] = {"first": first, "last": last}

        def step(number: int, first: int = first, last: int = last) -> None:
            progress(first - start + (last - first) * number // steps, scale - start)

        cursor.execute(sql["users"], span)
        added["users"] += cursor.rowcount
        step(1)
        cursor.execute(sql["agents"], span)
        span["new_agents"] = [row["id"] for row in cursor]
        added["agents"] += len(span["new_agents"])
        span["agents"] = _row(cursor, sql["agents_present"], {})["ids"]
        step(2)
        cursor.execute(sql["task_experts"], span)
        added["task_experts"] += cursor.rowcount
        step(3)
        for number, (query, share) in enumerate(shares.items(), start=4):
            # Never prepared: a generic plan would copy the list of agents for each row.
            cursor.execute(sql[query], {**span, "share": share}, prepare=False)
            if cursor.description is None:
                added[query] += cursor.rowcount
            else:
                added.update(cursor.fetchone() or {})
            step(number)
        first = last
    # A lot brings the first entry of its ledger with it.
    added["points_ledger"] = added["points_lots"] + added.pop("points_spent", 0)
    cursor.execute(sql["drop_pick"])
    if first > start:
        cursor.execute(sql["reserve"], {"last": first})
    return dict(added)


def _row(
    cursor: psycopg.Cursor[dict[str, Any]], query: Any, parameters: dict[str, Any] | None = None
) -> dict[str, Any]:
    return cursor.execute(query, parameters).fetchone() or {}
