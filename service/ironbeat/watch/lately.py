"""How schedules went lately, and what is to come of them, for a page of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from ironbeat.schedules import cadence

PAST = 20
# More fires than this in a timeline are drawn as one band.
MOST_TICKS = 60

_PAST = """
SELECT wanted.id AS schedule_id, h.* FROM unnest(%(ids)s::bigint[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT id, state, scheduled_for, ended_at, coalesce(error, reason) AS why,
           extract(epoch FROM ended_at - started_at)::float8 AS seconds
    FROM ironbeat.run_history
    WHERE schedule_id = wanted.id AND scheduled_for IS NOT NULL
    ORDER BY scheduled_for DESC LIMIT %(most)s) AS h
"""

# The index on names serves it, however many schedules there are.
_NAMES = """
SELECT name FROM ironbeat.schedules
WHERE name > %(after)s
    AND (%(text)s::text IS NULL OR strpos(lower(name), lower(%(text)s)) > 0
         OR strpos(lower(task), lower(%(text)s)) > 0)
    AND (%(workload)s::text IS NULL OR workload = %(workload)s)
    AND (%(enabled)s::boolean IS NULL OR enabled = %(enabled)s)
ORDER BY name LIMIT %(limit)s
"""

_NEXT_NAMES = """
SELECT name FROM ironbeat.schedules
WHERE enabled AND next_fire_at < 'infinity'
    AND (%(text)s::text IS NULL OR strpos(lower(name), lower(%(text)s)) > 0
         OR strpos(lower(task), lower(%(text)s)) > 0)
    AND (%(workload)s::text IS NULL OR workload = %(workload)s)
ORDER BY next_fire_at LIMIT %(limit)s
"""

_TIMES = """
SELECT name, kind, expression, timezone, anchor_at, ends_at, next_scheduled_for
FROM ironbeat.schedules
WHERE name = ANY(%(names)s) AND enabled AND next_scheduled_for < %(until)s
ORDER BY next_scheduled_for, name
"""


@dataclass(frozen=True, slots=True)
class Past:
    """An ended run of a schedule. ``seconds``: how long it took."""

    id: str
    state: str
    scheduled_for: datetime
    ended_at: datetime
    seconds: float | None
    why: str | None


@dataclass(frozen=True, slots=True)
class Coming:
    """When a schedule fires in a period. ``number`` of fires; none in ``at`` when they are many."""

    name: str
    number: int
    at: tuple[datetime, ...]


def read_past(
    connection: psycopg.Connection[Any], ids: Sequence[int], most: int = PAST
) -> dict[int, list[Past]]:
    """The last ended runs of each schedule, the oldest first."""
    found: dict[int, list[Past]] = {id: [] for id in ids}
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(_PAST, {"ids": list(ids), "most": most}):
            found[row.pop("schedule_id")].insert(0, Past(**row))
    for runs in found.values():
        runs.sort(key=lambda run: run.scheduled_for)
    return found


def names(
    connection: psycopg.Connection[Any],
    *,
    text: str | None = None,
    workload: str | None = None,
    enabled: bool | None = None,
    by_next: bool = False,
    after: str = "",
    limit: int = 50,
) -> list[str]:
    """The names of a page of schedules: those after the name ``after``, or the next to fire.

    ``text`` is a part of the name or of the task.
    """
    parameters = {
        "text": text,
        "workload": workload,
        "enabled": enabled,
        "after": after,
        "limit": limit,
    }
    statement = _NEXT_NAMES if by_next else _NAMES
    return [row[0] for row in connection.execute(statement, parameters).fetchall()]


def read_coming(
    connection: psycopg.Connection[Any],
    names: Sequence[str],
    now: datetime,
    period: timedelta = timedelta(days=1),
) -> list[Coming]:
    """What the named schedules fire in the ``period`` from ``now`` on, the next first."""
    until = now + period
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_TIMES, {"names": list(names), "until": until}).fetchall()
    found = []
    for row in rows:
        try:
            times = cadence.parse(
                row["kind"], row["expression"], row["timezone"], anchor=row["anchor_at"]
            )
        except cadence.CadenceError:
            # Written by hand; its own page tells what is wrong.
            continue
        first = max(row["next_scheduled_for"], now)
        end = min(until, row["ends_at"] or until)
        found.append(coming(row["name"], times, first, end))
    return [each for each in found if each.number]


def coming(name: str, times: cadence.Cadence, first: datetime, end: datetime) -> Coming:
    """The fires from ``first`` up to ``end``."""
    moment = timedelta(microseconds=1)
    number = times.count(first - moment, end)
    if number > MOST_TICKS:
        return Coming(name, number, ())
    at: list[datetime] = []
    found = times.after(first - moment)
    while found is not None and found <= end and len(at) < MOST_TICKS:
        at.append(found)
        found = times.after(found)
    return Coming(name, number, tuple(at))
