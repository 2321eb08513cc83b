"""How runs went: figures over a window, what failed, what runs, what happened between two times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

# Percentiles of so many runs are as good as those of all, and take milliseconds.
SAMPLE = 5_000
# A run that began in a period ended at most so long after it (or it shows as running).
LONGEST_RUN = "2 hours"
GROUPS = 500

_WINDOW = """
WITH sample AS MATERIALIZED (
    SELECT state, attempt, retries, ended_at,
           extract(epoch FROM ended_at - started_at)::float8 AS run,
           CASE WHEN retries = 0 AND attempt = 1 THEN
               greatest(0, extract(epoch FROM started_at - greatest(created_at, eta)))::float8
           END AS wait
    FROM ironbeat.run_history
    WHERE ended_at > statement_timestamp() - make_interval(secs => %(window)s)
    ORDER BY ended_at DESC LIMIT %(sample)s
), states AS (
    SELECT jsonb_object_agg(state, n) AS by_state FROM (
        SELECT state, count(*) AS n FROM sample GROUP BY state) AS counted
)
SELECT count(*) AS ended, states.by_state,
       extract(epoch FROM statement_timestamp() - min(ended_at))::float8 AS span,
       count(*) FILTER (WHERE retries > 0) AS retried,
       count(run) FILTER (WHERE state = 'succeeded') AS run_count,
       avg(run) FILTER (WHERE state = 'succeeded') AS run_mean,
       percentile_cont(ARRAY[0.5, 0.95, 0.99, 1]) WITHIN GROUP (ORDER BY run)
           FILTER (WHERE state = 'succeeded') AS run_percentiles,
       count(wait) AS wait_count, avg(wait) AS wait_mean,
       percentile_cont(ARRAY[0.5, 0.95, 0.99, 1]) WITHIN GROUP (ORDER BY wait) AS wait_percentiles
FROM sample, states GROUP BY states.by_state
"""

_FAILURES = """
SELECT id, task, workload, queue, schedule_name AS schedule, worker, state, attempt, ended_at,
       coalesce(error, reason) AS error
FROM ironbeat.run_history
WHERE state IN ('failed', 'dead', 'expired') AND ended_at > %(since)s AND ended_at <= %(until)s
ORDER BY ended_at DESC LIMIT %(limit)s
"""

_RUNNING = """
SELECT id, task, workload, queue, schedule_name AS schedule, worker, attempt, started_at, progress,
       greatest(0, extract(epoch FROM statement_timestamp() - started_at))::float8 AS seconds,
       cancel_requested_at IS NOT NULL AS cancelling
FROM ironbeat.runs
WHERE lease_id IS NOT NULL AND state = 'running'
ORDER BY started_at LIMIT %(limit)s
"""

_BETWEEN = f"""
SELECT task, schedule_name AS schedule, state, count(*) AS runs,
       min(coalesce(started_at, ended_at)) AS first, max(coalesce(started_at, ended_at)) AS last,
       avg(extract(epoch FROM ended_at - started_at))::float8 AS mean_seconds,
       max(extract(epoch FROM ended_at - started_at))::float8 AS max_seconds,
       (sum(count(*)) OVER ())::bigint AS total
FROM ironbeat.run_history
WHERE ended_at >= %(since)s AND ended_at < %(until)s + interval '{LONGEST_RUN}'
  AND coalesce(started_at, ended_at) < %(until)s
GROUP BY task, schedule_name, state
ORDER BY runs DESC, task, schedule_name, state LIMIT %(groups)s
"""  # noqa: S608 - a constant of this module

_STILL_RUNNING = """
SELECT count(*) FROM ironbeat.runs
WHERE lease_id IS NOT NULL AND state = 'running' AND started_at < %(until)s
"""

_FIRES = """
WITH period AS MATERIALIZED (
    SELECT count(*) AS fires FROM ironbeat.fires
    WHERE fired_at >= %(since)s AND fired_at < %(until)s
), late AS MATERIALIZED (
    SELECT schedule_id, fired_at - scheduled_for AS late FROM ironbeat.fires
    WHERE fired_at >= %(since)s AND fired_at < %(until)s
      AND fired_at - scheduled_for > interval '60 seconds'
)
SELECT period.fires,
       (SELECT count(*) FROM late LEFT JOIN ironbeat.schedules s ON s.id = late.schedule_id
        WHERE late.late > interval '60 seconds'
            + make_interval(secs => coalesce(s.jitter_seconds, 0))) AS late
FROM period
"""

_EDITS = """
SELECT name, edited_at, enabled FROM ironbeat.schedules
WHERE edited_at >= %(since)s AND edited_at < %(until)s ORDER BY edited_at LIMIT 100
"""


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something took, in seconds, over ``count`` runs; ``None`` where there were none."""

    count: int = 0
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The runs that ended within the last ``window_seconds``.

    When more than 5,000 did, these are the newest 5,000 (``complete`` is false) and
    ``window_seconds`` is the time they span. ``run``: execution time of those that succeeded.
    ``wait``: from submission (or eta) to the start, of first attempts. Rates are fractions of
    those that succeeded, failed or died; ``None`` when there were none.
    """

    window_seconds: float
    complete: bool
    ended: int
    by_state: Mapping[str, int]
    retried: int
    success_rate: float | None
    error_rate: float | None
    per_second: float
    run: Spread
    wait: Spread


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that ended badly: ``failed``, ``dead`` (gave up) or ``expired``, and why."""

    id: str
    task: str
    workload: str
    queue: str
    schedule: str | None
    worker: str | None
    state: str
    attempt: int
    ended_at: datetime
    error: str | None


@dataclass(frozen=True, slots=True)
class Running:
    """A run that is being executed, for ``seconds`` so far."""

    id: str
    task: str
    workload: str
    queue: str
    schedule: str | None
    worker: str | None
    attempt: int
    started_at: datetime
    seconds: float
    progress: Any
    cancelling: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one task and schedule that ended in one state."""

    task: str
    schedule: str | None
    state: str
    runs: int
    first: datetime
    last: datetime
    mean_seconds: float | None
    max_seconds: float | None


@dataclass(frozen=True, slots=True)
class Edit:
    """An operator's change of a schedule."""

    name: str
    edited_at: datetime
    enabled: bool


@dataclass(frozen=True, slots=True)
class Between:
    """What happened from ``since`` to ``until``: runs active then, fires, failures, edits.

    ``runs`` that were active have ended, in at most 500 ``groups``, the largest first.

    ``late_fires`` came over a minute after their time. ``still_running`` started before ``until``
    and have not ended.
    """

    since: datetime
    until: datetime
    runs: int
    groups: tuple[Group, ...]
    failures: tuple[Failure, ...]
    fires: int
    late_fires: int
    still_running: int
    edits: tuple[Edit, ...]


def read_outcomes(connection: psycopg.Connection[Any], window_seconds: float = 3600) -> Outcomes:
    """Figures of the runs that ended within the last ``window_seconds``."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_WINDOW, {"window": window_seconds, "sample": SAMPLE}).fetchone()
    if row is None:
        return Outcomes(window_seconds, True, 0, {}, 0, None, None, 0.0, Spread(), Spread())
    by_state: dict[str, int] = row["by_state"] or {}
    bad = by_state.get("failed", 0) + by_state.get("dead", 0)
    judged = by_state.get("succeeded", 0) + bad
    complete = row["ended"] < SAMPLE
    span = window_seconds if complete else max(row["span"] or 0.0, 0.001)
    return Outcomes(
        window_seconds=span,
        complete=complete,
        ended=row["ended"],
        by_state=by_state,
        retried=row["retried"],
        success_rate=(judged - bad) / judged if judged else None,
        error_rate=bad / judged if judged else None,
        per_second=row["ended"] / span,
        run=_spread(row["run_count"], row["run_mean"], row["run_percentiles"]),
        wait=_spread(row["wait_count"], row["wait_mean"], row["wait_percentiles"]),
    )


def read_failures(
    connection: psycopg.Connection[Any], since: datetime, until: datetime, limit: int = 20
) -> tuple[Failure, ...]:
    """The runs that ended badly after ``since`` and up to ``until``, newest first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_FAILURES, {"since": since, "until": until, "limit": limit})
        return tuple(Failure(**row) for row in rows)


def read_running(connection: psycopg.Connection[Any], limit: int = 100) -> tuple[Running, ...]:
    """The runs that are being executed, the longest first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return tuple(Running(**row) for row in cursor.execute(_RUNNING, {"limit": limit}))


def read_between(
    connection: psycopg.Connection[Any], since: datetime, until: datetime, limit: int = 50
) -> Between:
    """What happened from ``since`` to ``until``; at most ``limit`` failures are told one by one."""
    period = {"since": since, "until": until}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_BETWEEN, {**period, "groups": GROUPS}).fetchall()
        runs = rows[0]["total"] if rows else 0
        fired = cursor.execute(_FIRES, period).fetchone() or {"fires": 0, "late": 0}
        still = cursor.execute(_STILL_RUNNING, {"until": until}).fetchone() or {"count": 0}
        edits = tuple(Edit(**row) for row in cursor.execute(_EDITS, period))
    return Between(
        since=since,
        until=until,
        runs=runs,
        groups=tuple(Group(**{k: v for k, v in row.items() if k != "total"}) for row in rows),
        failures=read_failures(connection, since, until, limit),
        fires=fired["fires"],
        late_fires=fired["late"],
        still_running=still["count"],
        edits=edits,
    )


def _spread(count: int, mean: float | None, percentiles: list[float] | None) -> Spread:
    if not count or percentiles is None:
        return Spread()
    p50, p95, p99, top = percentiles
    return Spread(count, None if mean is None else float(mean), p50, p95, p99, top)
