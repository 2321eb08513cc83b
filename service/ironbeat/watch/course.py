"""How a period went, step by step, for a report to draw. A run counts in the step it ended in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

STEPS = 60

_COURSE = """
WITH ended AS (
    SELECT state,
           width_bucket(extract(epoch FROM ended_at), extract(epoch FROM %(since)s::timestamptz),
                        extract(epoch FROM %(until)s::timestamptz), %(steps)s) AS step,
           CASE WHEN state = 'succeeded' THEN
               extract(epoch FROM ended_at - started_at)::float8
           END AS run,
           CASE WHEN retries = 0 AND attempt = 1 THEN
               greatest(0, extract(epoch FROM started_at - greatest(created_at, eta)))::float8
           END AS wait
    FROM ironbeat.run_history WHERE ended_at >= %(since)s AND ended_at < %(until)s
)
SELECT step, count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE state IN ('failed', 'dead')) AS failed,
       count(*) FILTER (WHERE state NOT IN ('succeeded', 'failed', 'dead')) AS other,
       avg(run) AS run_mean, percentile_cont(0.95) WITHIN GROUP (ORDER BY run) AS run_p95,
       avg(wait) AS wait_mean, percentile_cont(0.95) WITHIN GROUP (ORDER BY wait) AS wait_p95
FROM ended GROUP BY step
"""


@dataclass(frozen=True, slots=True)
class Step:
    """The runs that ended from ``since`` until the next step.

    ``failed`` counts those that died, too; ``other`` those that were cancelled, skipped or expired.
    Times are in seconds, ``None`` where nothing had one: ``run`` of what succeeded, ``wait`` from
    submission (or eta) to the start of first attempts.
    """

    since: datetime
    succeeded: int = 0
    failed: int = 0
    other: int = 0
    run_mean: float | None = None
    run_p95: float | None = None
    wait_mean: float | None = None
    wait_p95: float | None = None


def read_course(
    connection: psycopg.Connection[Any], since: datetime, until: datetime, steps: int = STEPS
) -> tuple[Step, ...]:
    """The period from ``since`` to ``until`` in ``steps`` steps of the same length."""
    length = (until - since) / steps
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_COURSE, {"since": since, "until": until, "steps": steps})
        found = {row.pop("step"): row for row in rows}
    return tuple(
        Step(since + (number - 1) * length, **found.get(number, {}))
        for number in range(1, steps + 1)
    )
