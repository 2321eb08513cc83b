"""What the ledger still owes: live runs by queue and state, and the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

# Counting stops here; a backlog larger than this is shown as this much.
COUNTED_AT_MOST = 200_000

_LIVE = """
SELECT queue, state, count(*) AS n FROM (
    SELECT queue, state FROM ironbeat.runs LIMIT %(most)s) AS counted
GROUP BY queue, state
"""

_OUTBOX = """
SELECT count(*) FILTER (WHERE publish_at <= clock_timestamp()) AS due,
       count(*) FILTER (WHERE publish_at > clock_timestamp() AND publish_at < 'infinity') AS later,
       count(*) FILTER (WHERE publish_at = 'infinity') AS held,
       greatest(0, extract(epoch FROM clock_timestamp() - min(publish_at)))::float8 AS age
FROM (SELECT publish_at FROM ironbeat.runs WHERE publish_at IS NOT NULL
      ORDER BY publish_at LIMIT %(most)s) AS waiting
"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Live runs in the ledger.

    ``by_queue`` maps queue to state to number. The outbox: ``outbox_due`` runs should have been
    published by now, the longest for ``outbox_age_seconds``; ``outbox_later`` have time;
    ``outbox_held`` wait for another run to end.
    """

    by_queue: Mapping[str, Mapping[str, int]]
    outbox_due: int
    outbox_age_seconds: float
    outbox_later: int
    outbox_held: int

    @property
    def by_state(self) -> dict[str, int]:
        """Live runs of all queues by state."""
        total: dict[str, int] = {}
        for states in self.by_queue.values():
            for state, number in states.items():
                total[state] = total.get(state, 0) + number
        return total


def read_backlog(connection: psycopg.Connection[Any]) -> Backlog:
    """What the ledger still owes."""
    with connection.cursor(row_factory=dict_row) as cursor:
        by_queue: dict[str, dict[str, int]] = {}
        for row in cursor.execute(_LIVE, {"most": COUNTED_AT_MOST}):
            by_queue.setdefault(row["queue"], {})[row["state"]] = row["n"]
        outbox = cursor.execute(_OUTBOX, {"most": COUNTED_AT_MOST}).fetchone()
    assert outbox is not None
    return Backlog(
        by_queue=by_queue,
        outbox_due=outbox["due"],
        outbox_age_seconds=(outbox["age"] or 0.0) if outbox["due"] else 0.0,
        outbox_later=outbox["later"],
        outbox_held=outbox["held"],
    )
