"""Cumulative counts of runs and fires for Prometheus, kept in the database.

A counter must only ever grow, whichever process is asked, after every restart, and although the
history is pruned. So one row in ``flags`` holds the counts and up to when they reach; whoever is
asked adds what has ended since, each run once. Outcomes that reach the ledger over ten seconds
after their run's end can be missed here (never in the ledger): a worker that was cut off from
PostgreSQL writes late. After a gap in the asking, which such an outage causes, one round is waited
for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
import psycopg
from psycopg.rows import dict_row

FLAG = "metrics.totals"
# Upper bounds in seconds; the last bucket, without a bound, is implied.
RUN_BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0)
WAIT_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
LATENESS_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# Outcomes are written in batches; younger ones are left for the next round.
SETTLED_SECONDS = 10.0
GAP_SECONDS = 20.0
# So many runs are added in one round at most; a longer backlog takes several.
ROUND = 100_000
# A producer that makes up task names must not fill the monitoring.
MOST_SERIES = 2000
OTHER_TASKS = "(other)"


def _buckets(column: str, bounds: Sequence[float]) -> str:
    counts = ", ".join(f"count(*) FILTER (WHERE {column} <= {bound})" for bound in bounds)
    return f"ARRAY[{counts}, count({column})]"


_START = """
INSERT INTO ironbeat.flags (name, value)
VALUES (%(flag)s, jsonb_build_object('upto', clock_timestamp() - make_interval(secs => %(settled)s),
    'seen_at', clock_timestamp(), 'waited', false, 'runs', '[]'::jsonb, 'fires', NULL))
ON CONFLICT (name) DO NOTHING
"""

_TAKE = """
SELECT value, clock_timestamp() AS now,
       extract(epoch FROM clock_timestamp() - (value ->> 'seen_at')::timestamptz)::float8 AS gap
FROM ironbeat.flags WHERE name = %(flag)s FOR UPDATE SKIP LOCKED
"""

_READ = "SELECT value FROM ironbeat.flags WHERE name = %(flag)s"

_CUTOFF = """
SELECT least(clock_timestamp() - make_interval(secs => %(settled)s),
             (SELECT ended_at FROM ironbeat.run_history
              WHERE ended_at > %(upto)s ORDER BY ended_at OFFSET %(round)s LIMIT 1)) AS cutoff
"""

_RUNS = f"""
WITH ended AS (
    SELECT task, queue, state, retries > 0 AS retried,
           extract(epoch FROM ended_at - started_at)::float8 AS run,
           CASE WHEN retries = 0 AND attempt = 1 THEN
               greatest(0, extract(epoch FROM started_at - greatest(created_at, eta)))::float8
           END AS wait
    FROM ironbeat.run_history WHERE ended_at > %(upto)s AND ended_at <= %(cutoff)s
)
SELECT task, queue, state, count(*) AS n,
       coalesce(sum(run), 0) AS run_sum, {_buckets("run", RUN_BOUNDS)} AS run,
       coalesce(sum(wait), 0) AS wait_sum, {_buckets("wait", WAIT_BOUNDS)} AS wait
FROM ended GROUP BY task, queue, state
"""  # noqa: S608 - constants of this module

_FIRES = f"""
WITH fired AS (
    SELECT greatest(0, extract(epoch FROM f.fired_at - f.scheduled_for)
               - coalesce(s.jitter_seconds, 0))::float8 AS late
    FROM ironbeat.fires f LEFT JOIN ironbeat.schedules s ON s.id = f.schedule_id
    WHERE f.fired_at > %(upto)s AND f.fired_at <= %(cutoff)s
)
SELECT count(*) AS n, coalesce(sum(late), 0) AS sum, {_buckets("late", LATENESS_BOUNDS)} AS late
FROM fired
"""  # noqa: S608 - constants of this module

_STORE = """
UPDATE ironbeat.flags SET value = %(value)s::jsonb, updated_at = clock_timestamp()
WHERE name = %(flag)s
"""


@dataclass(slots=True)
class Durations:
    """A cumulative histogram: how many took at most each bound, how many in all, and their sum."""

    counts: list[int]
    sum: float = 0.0

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add another histogram with the same bounds."""
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
        self.sum += total


def _empty(bounds: Sequence[float]) -> Durations:
    return Durations([0] * (len(bounds) + 1))


@dataclass(slots=True)
class Series:
    """Runs of one task, queue and final state."""

    task: str
    queue: str
    state: str
    number: int = 0
    run: Durations = field(default_factory=lambda: _empty(RUN_BOUNDS))
    wait: Durations = field(default_factory=lambda: _empty(WAIT_BOUNDS))


@dataclass(slots=True)
class Totals:
    """All counts since the first time they were asked for, up to ``upto``."""

    upto: datetime
    runs: dict[tuple[str, str, str], Series] = field(default_factory=dict)
    fires: Durations = field(default_factory=lambda: _empty(LATENESS_BOUNDS))


def read_totals(connection: psycopg.Connection[Any]) -> Totals:
    """The counts, brought up to date; ``connection`` must be allowed to write.

    When another process is just bringing them up to date, they are returned as they were.
    """
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_START, {"flag": FLAG, "settled": SETTLED_SECONDS})
        taken = cursor.execute(_TAKE, {"flag": FLAG}).fetchone()
        if taken is None:
            row = cursor.execute(_READ, {"flag": FLAG}).fetchone()
            assert row is not None
            return _load(row["value"])
        totals = _load(taken["value"])
        waited = bool(taken["value"].get("waited"))
        wait = taken["gap"] > GAP_SECONDS and not waited
        if not wait:
            _advance(cursor, totals)
        value = orjson.dumps(_dump(totals, taken["now"], wait)).decode()
        cursor.execute(_STORE, {"flag": FLAG, "value": value})
        return totals


def _advance(cursor: psycopg.Cursor[Any], totals: Totals) -> None:
    row = cursor.execute(
        _CUTOFF, {"upto": totals.upto, "round": ROUND, "settled": SETTLED_SECONDS}
    ).fetchone()
    assert row is not None
    cutoff: datetime = row["cutoff"]
    if cutoff <= totals.upto:
        return
    period = {"upto": totals.upto, "cutoff": cutoff}
    for row in cursor.execute(_RUNS, period).fetchall():
        key = (row["task"], row["queue"], row["state"])
        if key not in totals.runs and len(totals.runs) >= MOST_SERIES:
            key = (OTHER_TASKS, row["queue"], row["state"])
        series = totals.runs.setdefault(key, Series(*key))
        series.number += row["n"]
        series.run.add(row["run"], float(row["run_sum"]))
        series.wait.add(row["wait"], float(row["wait_sum"]))
    fired = cursor.execute(_FIRES, period).fetchone()
    assert fired is not None
    totals.fires.add(fired["late"], float(fired["sum"]))
    totals.upto = cutoff


def _load(value: dict[str, Any]) -> Totals:
    totals = Totals(datetime.fromisoformat(value["upto"]))
    for item in value["runs"]:
        series = Series(
            *(item["task"], item["queue"], item["state"], item["n"]),
            _durations(item["run"], RUN_BOUNDS),
            _durations(item["wait"], WAIT_BOUNDS),
        )
        totals.runs[series.task, series.queue, series.state] = series
    if value["fires"] is not None:
        totals.fires = _durations(value["fires"], LATENESS_BOUNDS)
    return totals


def _durations(stored: dict[str, Any], bounds: Sequence[float]) -> Durations:
    if len(stored["counts"]) != len(bounds) + 1:
        # Another version had other bounds; its counts cannot be carried over.
        return _empty(bounds)
    return Durations(list(stored["counts"]), stored["sum"])


def _dump(totals: Totals, now: datetime, waited: bool) -> dict[str, Any]:
    return {
        "upto": totals.upto.isoformat(),
        "seen_at": now.isoformat(),
        "waited": waited,
        "runs": [
            {
                "task": series.task,
                "queue": series.queue,
                "state": series.state,
                "n": series.number,
                "run": {"counts": series.run.counts, "sum": series.run.sum},
                "wait": {"counts": series.wait.counts, "sum": series.wait.sum},
            }
            for series in totals.runs.values()
        ],
        "fires": {"counts": totals.fires.counts, "sum": totals.fires.sum},
    }
