"""One queue: how long it is and why, what is next in line, and how it went."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
from fastapi import APIRouter, Request
from psycopg.rows import dict_row

from ironbeat import watch
from ironbeat.api.dashboard.overview import PERIODS, read, status_of
from ironbeat.api.dashboard.pages import PageRoute, render
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.problems import Problem
from ironbeat.api.visitors import VisitorOf
from ironbeat.watch import stores
from ironbeat.watch.queues import Waiting, next_messages
from ironbeat.watch.stuck import find_stuck

router = APIRouter(route_class=PageRoute)

NEXT = 20
FLOW_MINUTES = 15

# Live runs and the ended ones of the last minutes; both indexes are bounded by time.
_FLOW = """
SELECT (SELECT count(*) FROM (SELECT 1 FROM ironbeat.runs
            WHERE queue = %(queue)s AND created_at > statement_timestamp() - %(period)s::interval
            LIMIT 100000) AS live)
     + (SELECT count(*) FROM (SELECT 1 FROM ironbeat.run_history
            WHERE queue = %(queue)s AND created_at > statement_timestamp() - %(period)s::interval
            LIMIT 100000) AS ended) AS came,
       (SELECT count(*) FROM (SELECT 1 FROM ironbeat.run_history
            WHERE queue = %(queue)s AND ended_at > statement_timestamp() - %(period)s::interval
              AND state NOT IN ('skipped', 'cancelled') LIMIT 100000) AS done) AS went
"""


@router.get("/queues/{name:path}")
async def queue(request: Request, name: str, _: VisitorOf) -> Any:
    """One queue."""
    parts = parts_of(request)
    seen, line, flow = await asyncio.gather(
        status_of(parts), _line(parts, name), read(parts, lambda c: _flow(c, name))
    )
    found = next((each for each in seen.queues if each.name == name), None)
    if found is None:
        raise Problem(404, f"No queue is named {name!r}.")
    return render(
        request,
        "queue.html",
        queue=found,
        stuck=[each for each in find_stuck(seen) if each.subject == name],
        line=line,
        flow=flow,
        minutes=FLOW_MINUTES,
        workers=_consumers(seen, name),
        running=[run for run in seen.running if run.queue == name],
        periods=PERIODS,
    )


def _consumers(seen: watch.Status, name: str) -> list[watch.Worker]:
    return [
        worker
        for worker in (*seen.workers, *seen.rq_workers)
        if worker.alive and (not worker.queues or name in worker.queues)
    ]


async def _line(parts: Parts, name: str) -> Sequence[Waiting]:
    if not parts.settings.use_redis:
        return ()

    def look() -> Sequence[Waiting]:
        with stores.broker(parts.settings) as client:
            return next_messages(client, name, NEXT)

    try:
        return await parts.run(look, 3.0)
    except stores.BROKER_ERRORS:
        # The page says by itself that Redis is away.
        return ()
    except Problem:
        return ()


def _flow(connection: psycopg.Connection[Any], name: str) -> dict[str, int]:
    period = f"{FLOW_MINUTES} minutes"
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_FLOW, {"queue": name, "period": period}).fetchone()
    assert row is not None
    return row
