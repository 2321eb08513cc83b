"""The first page: what is stuck, since when and why; then the limits, queues and processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

import psycopg
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from ironbeat import database, watch
from ironbeat.api.dashboard.pages import PageRoute, render
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.visitors import VisitorOf
from ironbeat.watch import history
from ironbeat.watch.limits import Limit
from ironbeat.watch.punctuality import read_late_fires
from ironbeat.watch.stuck import find_stuck

router = APIRouter(route_class=PageRoute)

READ_SECONDS = 3.0
TREND = timedelta(hours=3)
PERIODS = {3: "3 hours", 24: "24 hours", 168: "7 days"}
FAILURES_SHOWN = 8

Found = TypeVar("Found")


async def read(
    parts: Parts, work: Callable[[psycopg.Connection[Any]], Found], seconds: float | None = None
) -> Found:
    """What ``work`` reads on a connection of the pool."""
    url = parts.settings.database_url.get_secret_value()

    def call() -> Found:
        with database.connection(url) as connection:
            return work(connection)

    return await parts.run(call, seconds)


async def status_of(parts: Parts) -> watch.Status:
    """The suite's status; all who look at once share one reading."""
    return await parts.shared(
        "dashboard",
        lambda: parts.status(schedule_limit=0, failure_limit=FAILURES_SHOWN, deadline=READ_SECONDS),
        READ_SECONDS + 2,
    )


async def _history(parts: Parts) -> tuple[Mapping[str, history.Trend], Any, Any]:
    def look(connection: psycopg.Connection[Any]) -> Any:
        with connection.transaction():
            return history.read_limits(connection, TREND), *history.read_since(connection)

    try:
        found: tuple[Any, Any, Any] = await read(parts, look, READ_SECONDS)
        return found
    except Exception:
        # The page has to come while PostgreSQL is away: it says so itself.
        return {}, {}, {}


def ordered(limits: tuple[Limit, ...]) -> list[Limit]:
    """The limits, broken ones first, the worst of them in front; the others as they were."""
    rank = {"critical": 0, "warning": 1, "info": 2}
    return sorted(limits, key=lambda each: rank[each.severity] if each.ok is False else 3)


@router.get("/")
async def overview(request: Request, _: VisitorOf) -> Any:
    """The first page."""
    return render(request, "overview.html", **await _figures(request), periods=PERIODS)


@router.get("/part/overview")
async def live(request: Request, _: VisitorOf) -> Any:
    """What of it changes from second to second."""
    return render(request, "overview_part.html", **await _figures(request))


async def _figures(request: Request) -> dict[str, Any]:
    parts = parts_of(request)
    seen, (trends, broken_since, waiting_since) = await asyncio.gather(
        status_of(parts), _history(parts)
    )
    return {
        "seen": seen,
        "stuck": find_stuck(seen, waiting_since),
        "limits": ordered(seen.limits),
        "trends": trends,
        "broken_since": broken_since,
    }


@router.get("/part/late")
async def late(request: Request, _: VisitorOf) -> Any:
    """Fires that came late or not at all, of the last day."""
    since = datetime.now(UTC) - timedelta(days=1)
    fires = await read(parts_of(request), lambda c: read_late_fires(c, since))
    return render(request, "late_part.html", fires=fires)


@router.get("/data/queues")
async def queues(
    request: Request,
    _: VisitorOf,
    hours: Annotated[int, Query(ge=1, le=168)] = 3,
    queue: Annotated[str | None, Query(max_length=200)] = None,
) -> JSONResponse:
    """The queues' lengths and oldest ages over time, for the plots."""
    found = await read(
        parts_of(request), lambda c: history.read_queues(c, timedelta(hours=hours), queue)
    )
    return JSONResponse(watch.plain(found), headers={"Cache-Control": "no-store"})
