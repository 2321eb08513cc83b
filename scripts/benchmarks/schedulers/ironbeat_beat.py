"""Ironbeat's beat."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import psycopg

from benchmarks.programs import BINARIES
from benchmarks.schedulers import EDITED, EDITED_NAME, IDLE_SECONDS, TASK, database, period, soon

_INSERT = """
INSERT INTO ironbeat.schedules (name, task, kind, expression, timezone, args, overlap, anchor_at,
    next_scheduled_for, next_fire_at)
SELECT 'bench-' || i, %(task)s, 'interval', %(period)s || 's', 'UTC', jsonb_build_array(i), 'allow',
    due - make_interval(secs => %(period)s), due, due
FROM generate_series(0, %(count)s - 1) AS i,
    LATERAL (SELECT to_timestamp(%(start)s + i / %(per_second)s)) AS at (due)
"""
_INSERT_EDITED = """
INSERT INTO ironbeat.schedules (name, task, kind, expression, timezone, args, overlap)
VALUES (%(name)s, %(task)s, 'interval', %(period)s || 's', 'UTC',
    jsonb_build_array(%(number)s::int), 'allow')
"""
_EDIT = """
UPDATE ironbeat.schedules
SET expression = '1s', anchor_at = to_timestamp(%(due)s), edited_at = now()
WHERE name = %(name)s
"""
# The shortest interval is a second. A beat that learns of the edit sooner than this fires at the
# next slot, and waiting for it counts; one that takes longer fires a second after that.
LEAD_SECONDS = 0.2


def command() -> Sequence[str]:
    """The program, as supervisord starts it."""
    return (str(BINARIES / "ironbeat"), "beat")


def fill(count: int, per_second: float) -> float:
    """Make the schedules."""
    start = soon(count, seconds_each=0.0005)
    with psycopg.connect(database(), autocommit=True) as connection:
        connection.execute(
            _INSERT,
            {
                "task": TASK,
                "period": period(count, per_second),
                "count": count,
                "start": start,
                "per_second": per_second,
            },
        )
        connection.execute(
            _INSERT_EDITED,
            {"name": EDITED_NAME, "task": TASK, "period": IDLE_SECONDS, "number": EDITED},
        )
        connection.execute("VACUUM ANALYZE ironbeat.schedules")
    return start


def edit() -> float:
    """Make it due at once: each second from the one that is about to begin."""
    with psycopg.connect(database(), autocommit=True) as connection:
        slot = math.ceil(time.time() + 0.1 + LEAD_SECONDS)
        time.sleep(slot - LEAD_SECONDS - time.time())
        connection.execute(_EDIT, {"name": EDITED_NAME, "due": slot})
        return time.time()
