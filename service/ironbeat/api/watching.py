"""How the suite is doing, over HTTP: what ``ironbeat status`` and ``report`` print."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse

from ironbeat import watch
from ironbeat.api.inputs import Instant, Text
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.problems import Problem
from ironbeat.watch import queues as broker_queues
from ironbeat.watch import stores

router = APIRouter(tags=["watching"])

PartsOf = Annotated[Parts, Depends(parts_of)]

READ_SECONDS = 3.0
REPORT_SECONDS = 45.0
LONGEST_PERIOD = timedelta(days=31)


def _plain(value: Any) -> JSONResponse:
    return JSONResponse(watch.plain(value))


async def _status(parts: Parts, **options: Any) -> watch.Status:
    return await parts.shared(
        ("status", *sorted(options.items())),
        lambda: parts.status(deadline=READ_SECONDS, **options),
        READ_SECONDS + 2,
    )


@router.get("/status", response_model=watch.Status)
async def status(
    parts: PartsOf,
    window: Annotated[
        int, Query(ge=1, le=10080, description="Judge runs of so many minutes.")
    ] = 60,
    schedules: Annotated[int, Query(ge=0, le=1000)] = 200,
) -> Any:
    """Everything at a glance: health, limits, processes, queues, schedules, failures."""
    return _plain(await _status(parts, window_seconds=window * 60.0, schedule_limit=schedules))


@router.get("/limits", response_model=list[watch.Limit])
async def limits(parts: PartsOf, broken: bool = False) -> Any:
    """The normal values and alert rules with their measured figures; ``broken``: only those."""
    found = await _status(parts, schedule_limit=0, failure_limit=0)
    return _plain(found.broken if broken else found.limits)


@router.get("/queues", response_model=list[watch.QueueStatus])
async def queues(parts: PartsOf) -> Any:
    """Every queue: length by priority, oldest message, runs in the ledger, consumers."""
    found = await _status(parts, schedule_limit=0, failure_limit=0)
    return _plain(found.queues)


@router.get("/queues/{name}/messages", response_model=list[watch.Waiting])
async def messages(
    parts: PartsOf, name: Text, limit: Annotated[int, Query(ge=1, le=200)] = 20
) -> Any:
    """The messages of a queue that are next in line."""

    def read() -> Any:
        with stores.broker(parts.settings) as client:
            return broker_queues.next_messages(client, name, limit)

    if not parts.settings.use_redis:
        raise Problem(409, "No broker is used (USE_REDIS=false): runs wait in the ledger.")
    try:
        return _plain(await parts.run(read, READ_SECONDS))
    except stores.BROKER_ERRORS as error:
        raise Problem(503, "Redis cannot be reached.") from error


@router.get("/workers", response_model=list[watch.Worker])
async def workers(parts: PartsOf) -> Any:
    """The workers: queues, memory, CPU, what they run and have registered."""
    found = await _status(parts, schedule_limit=0, failure_limit=0)
    return _plain(found.workers)


@router.get("/report", response_model=watch.Report)
async def report(
    parts: PartsOf,
    since: Annotated[Instant | None, Query(description="Default: 24 hours before `until`.")] = None,
    until: Annotated[Instant | None, Query(description="Default: now.")] = None,
) -> Any:
    """The status, what waits, what a period brought, and whether the task modules import."""
    end = until or datetime.now(UTC)
    start = since or end - timedelta(days=1)
    if start >= end:
        raise Problem(422, "`since` must lie before `until`.")
    if end - start > LONGEST_PERIOD:
        raise Problem(422, f"The period may have at most {LONGEST_PERIOD.days} days.")
    found = await parts.run(
        lambda: watch.report(parts.settings, since=start, until=end, deadline=READ_SECONDS),
        REPORT_SECONDS,
    )
    return _plain(found)
