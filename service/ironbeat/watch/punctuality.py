"""Whether schedules keep their times, and when each ran last and runs next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from ironbeat.watch.limits import MISSED_AFTER_SECONDS

# How far back fires are looked at for lateness, and at most how many.
LATENESS_WINDOW_SECONDS = 300
SAMPLE = 5_000

_SCHEDULES = """
SELECT s.id, s.name, s.workload, s.task, s.kind, s.expression, s.timezone, s.queue, s.enabled,
       s.catch_up, s.overlap, s.declared IS NULL AS by_hand, s.edited_at,
       CASE WHEN s.enabled AND s.next_fire_at < 'infinity' THEN s.next_fire_at END AS next_at,
       CASE WHEN s.enabled AND s.next_fire_at < statement_timestamp() THEN
           extract(epoch FROM statement_timestamp() - s.next_fire_at)::float8 ELSE 0 END
           AS overdue_seconds,
       s.last_fired_at,
       coalesce(live.id, last.id) AS last_run_id,
       coalesce(live.state, last.state) AS last_state,
       coalesce(live.scheduled_for, last.scheduled_for) AS last_scheduled_for,
       coalesce(live.started_at, last.started_at) AS last_started_at,
       CASE WHEN live.id IS NULL THEN last.ended_at END AS last_ended_at,
       extract(epoch FROM last.ended_at - last.started_at)::float8 AS last_seconds,
       CASE WHEN live.id IS NULL THEN coalesce(last.error, last.reason) ELSE live.error END
           AS last_error
FROM (SELECT * FROM ironbeat.schedules
      WHERE name > %(after)s AND (%(names)s::text[] IS NULL OR name = ANY(%(names)s))
      ORDER BY name LIMIT %(limit)s) AS s
LEFT JOIN LATERAL (
    SELECT id, state, scheduled_for, started_at, error FROM ironbeat.runs r
    WHERE r.schedule_id = s.id ORDER BY r.scheduled_for DESC LIMIT 1) AS live ON true
LEFT JOIN LATERAL (
    SELECT id, state, scheduled_for, started_at, ended_at, error, reason
    FROM ironbeat.run_history h
    WHERE h.schedule_id = s.id AND h.scheduled_for IS NOT NULL AND h.state <> 'skipped'
    ORDER BY h.scheduled_for DESC LIMIT 1) AS last ON true
ORDER BY s.name
"""

_DUE = """
SELECT count(*) AS overdue,
       count(*) FILTER (WHERE next_fire_at
           < statement_timestamp() - make_interval(secs => %(missed)s)) AS missed,
       extract(epoch FROM statement_timestamp() - min(next_fire_at))::float8 AS longest
FROM ironbeat.schedules WHERE enabled AND next_fire_at < statement_timestamp()
"""

_WORST = """
SELECT name, extract(epoch FROM statement_timestamp() - next_fire_at)::float8 AS overdue
FROM ironbeat.schedules
WHERE enabled AND next_fire_at < statement_timestamp() - make_interval(secs => %(missed)s)
ORDER BY next_fire_at LIMIT 10
"""

_COUNTS = """
SELECT count(*) AS schedules, count(*) FILTER (WHERE enabled) AS enabled,
       min(next_fire_at) FILTER (WHERE enabled AND next_fire_at < 'infinity') AS next_at
FROM ironbeat.schedules
"""

_LATENESS = """
WITH fired AS MATERIALIZED (
    SELECT schedule_id, extract(epoch FROM fired_at - scheduled_for) AS late
    FROM ironbeat.fires
    WHERE fired_at > statement_timestamp() - make_interval(secs => %(window)s)
    LIMIT %(sample)s
), sample AS (
    -- One look-up for each, so that the many schedules that did not fire are left alone.
    SELECT greatest(0, fired.late - coalesce((
        SELECT jitter_seconds FROM ironbeat.schedules s WHERE s.id = fired.schedule_id), 0)
        )::float8 AS late
    FROM fired
)
SELECT count(*) AS fires,
       percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY late) AS percentiles,
       count(*) FILTER (WHERE late > %(missed)s) AS missed
FROM sample
"""


_LATE = """
SELECT f.schedule_id, s.name, f.scheduled_for, f.fired_at, f.run_id,
       extract(epoch FROM f.fired_at - f.scheduled_for)::float8 - coalesce(s.jitter_seconds, 0)
           AS late
FROM ironbeat.fires f LEFT JOIN ironbeat.schedules s ON s.id = f.schedule_id
WHERE f.fired_at >= %(since)s AND f.fired_at - f.scheduled_for > make_interval(
    secs => %(missed)s + coalesce(s.jitter_seconds, 0))
ORDER BY f.fired_at DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class LateFire:
    """A fire that came ``late`` seconds after its time and its schedule's whole jitter."""

    schedule_id: int
    name: str | None
    scheduled_for: datetime
    fired_at: datetime
    run_id: str
    late: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule with its next fire and its last run.

    ``overdue_seconds``: for how long it has been due and not fired. ``last_seconds``: how long its
    last ended run took. Skipped fires do not count as runs. ``by_hand``: not declared in code.
    """

    id: int
    name: str
    workload: str
    task: str
    kind: str
    expression: str
    timezone: str
    queue: str | None
    enabled: bool
    catch_up: str
    overlap: str
    by_hand: bool
    edited_at: datetime | None
    next_at: datetime | None
    overdue_seconds: float
    last_fired_at: datetime | None
    last_run_id: str | None
    last_state: str | None
    last_scheduled_for: datetime | None
    last_started_at: datetime | None
    last_ended_at: datetime | None
    last_seconds: float | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Punctuality:
    """How punctual the fires of the last five minutes were, and what is overdue now.

    Lateness (seconds) is from the scheduled time, less the schedule's whole jitter, to the fire.
    ``missed``: schedules over a minute overdue and fires that came over a minute late;
    ``overdue_by`` names the former, ten at most, with the seconds they are overdue.
    """

    schedules: int
    enabled: int
    next_at: datetime | None
    overdue: int
    longest_overdue_seconds: float
    missed: int
    missed_names: tuple[str, ...]
    fires: int
    late_p50: float | None
    late_p99: float | None
    late_max: float | None
    overdue_by: Mapping[str, float] = field(default_factory=dict)


def read_schedules(
    connection: psycopg.Connection[Any],
    *,
    names: list[str] | None = None,
    after: str = "",
    limit: int = 200,
) -> tuple[Schedule, ...]:
    """Schedules by name, at most ``limit`` of them, those after the name ``after``."""
    parameters = {"names": names, "after": after, "limit": limit}
    with connection.cursor(row_factory=dict_row) as cursor:
        return tuple(Schedule(**row) for row in cursor.execute(_SCHEDULES, parameters))


def read_late_fires(
    connection: psycopg.Connection[Any], since: datetime, limit: int = 10
) -> tuple[LateFire, ...]:
    """The fires since ``since`` that came over a minute late, the latest first."""
    parameters = {"since": since, "missed": MISSED_AFTER_SECONDS, "limit": limit}
    with connection.cursor(row_factory=dict_row) as cursor:
        return tuple(LateFire(**row) for row in cursor.execute(_LATE, parameters))


def read_punctuality(connection: psycopg.Connection[Any]) -> Punctuality:
    """How punctual beat is."""
    parameters = {
        "missed": MISSED_AFTER_SECONDS,
        "window": LATENESS_WINDOW_SECONDS,
        "sample": SAMPLE,
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        counts = cursor.execute(_COUNTS).fetchone()
        due = cursor.execute(_DUE, parameters).fetchone()
        late = cursor.execute(_LATENESS, parameters).fetchone()
        assert counts is not None and due is not None and late is not None
        worst: dict[str, float] = {}
        if due["missed"]:
            worst = {row["name"]: row["overdue"] for row in cursor.execute(_WORST, parameters)}
    p50, p99, top = late["percentiles"] or (None, None, None)
    return Punctuality(
        schedules=counts["schedules"],
        enabled=counts["enabled"],
        next_at=counts["next_at"],
        overdue=due["overdue"],
        longest_overdue_seconds=max(0.0, due["longest"] or 0.0),
        missed=due["missed"] + late["missed"],
        missed_names=tuple(worst),
        fires=late["fires"],
        late_p50=p50,
        late_p99=p99,
        late_max=top,
        overdue_by=worst,
    )
