"""The runs: search, one of them as it goes on, what ran between two times, and what can be done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from ironbeat.access import audit
from ironbeat.api.dashboard import formats
from ironbeat.api.dashboard.overview import read
from ironbeat.api.dashboard.pages import PageRoute, masker, redirect, render, segment, translator
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.problems import Problem
from ironbeat.api.visitors import OperatorOf, VisitorOf
from ironbeat.runs.model import (
    ENDED_STATES,
    LIVE_STATES,
    UNSUCCESSFUL_STATES,
    Filters,
    Run,
    RunNotFound,
    State,
)
from ironbeat.runs.replay import NotReplayable
from ironbeat.schedules.cadence import CadenceError, moment
from ironbeat.watch.outcomes import read_between

router = APIRouter(route_class=PageRoute)

PAGE = 50
PERIODS = {"1h": 1, "24h": 24, "7d": 168, "all": None}
PERIOD_NAMES = {
    "1h": "the last hour",
    "24h": "the last 24 hours",
    "7d": "the last 7 days",
    "all": "all that is kept",
}
GROUPS: Mapping[str, frozenset[State]] = {
    "live": LIVE_STATES,
    "ended": ENDED_STATES,
    "unsuccessful": UNSUCCESSFUL_STATES,
}
STATES = ("running", "pending", "published", "retrying", "succeeded", "failed", "cancelled",
          "skipped", "expired", "dead")  # fmt: skip
LONGEST_PERIOD = timedelta(days=31)

# A browser that follows a run is told of a change within this.
LOOK_SECONDS = 0.5
# A proxy ends what is silent for long.
BREATH_SECONDS = 15.0
FOLLOWED_SECONDS = 600.0
MOST_FOLLOWERS = 64

Text = Annotated[str | None, Query(max_length=500)]


@router.get("/runs")
async def runs(
    request: Request,
    _: VisitorOf,
    state: Annotated[str, Query(max_length=20)] = "",
    task: Text = None,
    schedule: Text = None,
    queue: Text = None,
    worker: Text = None,
    q: Text = None,
    period: Annotated[str, Query(max_length=10)] = "24h",
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
    after: Annotated[str, Query(max_length=400)] = "",
) -> Any:
    """Runs that meet every condition, the newest first."""
    parts = parts_of(request)
    zone = parts.settings.timezone
    start, end = _moment(since, zone), _moment(until, zone)
    if start is None and end is None and (hours := PERIODS.get(period, 24)) is not None:
        start = datetime.now(UTC) - timedelta(hours=hours)
    states = GROUPS.get(state, frozenset({state}) if state in STATES else frozenset())
    filters = Filters(
        states=tuple(sorted(states)),  # type: ignore[arg-type]
        task=task or None,
        schedule=schedule or None,
        queue=queue or None,
        worker=worker or None,
        text=q or None,
        since=start,
        until=end,
        before=_position(after),
        limit=PAGE,
    )
    found = await parts.run(lambda: parts.ledger.find(filters))
    return render(
        request,
        "runs.html",
        runs=found,
        following=_cursor(found[-1]) if len(found) == PAGE else None,
        groups=list(GROUPS),
        states=STATES,
        periods=PERIOD_NAMES,
        chosen={
            "state": state,
            "task": task or "",
            "schedule": schedule or "",
            "queue": queue or "",
            "worker": worker or "",
            "q": q or "",
            "period": period,
            "since": since,
            "until": until,
        },
    )


@router.get("/between")
async def between(
    request: Request,
    _: VisitorOf,
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
) -> Any:
    """What ran between two times; without any: from 03:00 to 04:00 of the last night."""
    parts = parts_of(request)
    zone = ZoneInfo(parts.settings.timezone)
    night = datetime.now(zone).replace(hour=3, minute=0, second=0, microsecond=0)
    if night + timedelta(hours=1) > datetime.now(zone):
        night -= timedelta(days=1)
    start = _moment(since, zone.key) or night.astimezone(UTC)
    end = _moment(until, zone.key) or (
        (start + timedelta(hours=1)) if since else (night + timedelta(hours=1)).astimezone(UTC)
    )
    if start >= end:
        raise Problem(422, "The period must begin before it ends.")
    if end - start > LONGEST_PERIOD:
        raise Problem(422, "The period may have at most 31 days.")
    found = await read(parts, lambda c: read_between(c, start, end), 30.0)
    return render(
        request,
        "between.html",
        found=found,
        since=_shown(start, zone),
        until=_shown(end, zone),
    )


@router.get("/runs/{id:path}/events")
async def events(request: Request, id: str, _: VisitorOf) -> StreamingResponse:
    """A run as it goes on: an event for every change, until it has ended."""
    parts = parts_of(request)
    followers = request.app.state
    if getattr(followers, "followers", 0) >= MOST_FOLLOWERS:
        raise Problem(503, "Too many pages follow runs at once; load this one again to see more.")
    return StreamingResponse(
        _follow(request, parts, id),
        media_type="text/event-stream",
        # A proxy must hand every line on at once.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.post("/runs/{id:path}/cancel")
async def cancel(request: Request, id: str, who: OperatorOf) -> Any:
    """Cancel a run, waiting or running."""
    parts = parts_of(request)
    url = parts.settings.database_url.get_secret_value()
    await parts.ready()

    def work() -> str:
        with audit.noted(url, who.actor, "run.cancel", id) as note:
            state: str = parts.manager().cancel(id, reason=f"cancelled by {who.session.name}")
            note.detail["state"] = state
            return state

    await parts.run(work)
    return redirect(f"/runs/{segment(id)}", told="cancelled")


@router.post("/runs/{id:path}/retry")
async def retry(request: Request, id: str, who: OperatorOf) -> Any:
    """Run an ended run again with the same arguments, as a new one."""
    parts = parts_of(request)
    url = parts.settings.database_url.get_secret_value()
    await parts.ready()

    def work() -> str:
        with audit.noted(url, who.actor, "run.retry", id) as note:
            made: str = parts.manager().replay(id, succeeded_too=True)
            note.detail["run"] = made
            return made

    try:
        made = await parts.run(work)
    except NotReplayable as error:
        raise Problem(409, str(error)) from None
    return redirect(f"/runs/{segment(made)}", told="retried")


@router.get("/runs/{id:path}")
async def run(
    request: Request, id: str, _: VisitorOf, told: Annotated[str, Query(max_length=20)] = ""
) -> Any:
    """One run: state, times, progress, arguments, result, traceback."""
    parts = parts_of(request)

    def look() -> tuple[Run, list[Run]]:
        found = parts.ledger.get(_whole(parts, id))
        children = parts.ledger.find(
            Filters(parent_id=found.id, since=found.created_at - timedelta(minutes=1), limit=20)
        )
        return found, children

    found, children = await parts.run(look)
    return render(
        request,
        "run.html",
        run=found,
        children=children,
        told=told,
        progress=_progress(found),
        attempts=found.attempts if isinstance(found.attempts, list) else [],
    )


def _whole(parts: Parts, id: str) -> str:
    """The id that begins so, where there is one: people paste the first eight letters."""
    if len(id) < 6 or len(id) >= 36:
        return id
    ids = parts.ledger.ids_beginning(id, limit=2)
    return ids[0] if len(ids) == 1 else id


def _progress(run: Run) -> dict[str, Any] | None:
    """What a run says of itself, with its percentage if it gives one."""
    if not isinstance(run.progress, Mapping):
        return None
    percent = run.progress.get("progress")
    if isinstance(percent, bool) or not isinstance(percent, int | float):
        percent = None
    else:
        percent = max(0.0, min(100.0, float(percent)))
    step = run.progress.get("current_step") or run.progress.get("stage") or ""
    return {"percent": percent, "step": str(step)}


async def _follow(request: Request, parts: Parts, id: str) -> AsyncIterator[str]:
    shared = request.app.state
    shared.followers = getattr(shared, "followers", 0) + 1
    loop = asyncio.get_running_loop()
    begun = said = loop.time()
    before = ""
    try:
        while loop.time() - begun < FOLLOWED_SECONDS and not await request.is_disconnected():
            try:
                found = await parts.run(lambda: parts.ledger.get(id))
            except RunNotFound:
                yield "event: gone\ndata: {}\n\n"
                return
            except Exception:
                # PostgreSQL is away, say: the next look may find it again.
                found = None
            if found is not None:
                told = _told(request, found)
                if told != before:
                    before, said = told, loop.time()
                    yield f"event: run\ndata: {told}\n\n"
                if found.ended:
                    return
            if loop.time() - said > BREATH_SECONDS:
                said = loop.time()
                yield ": still there\n\n"
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        shared.followers -= 1


def _told(request: Request, run: Run) -> str:
    say, hide = translator(request), masker(parts_of(request))
    progress = _progress(run) or {"percent": None, "step": ""}
    percent = progress["percent"]
    return json.dumps(
        {
            "state": run.state,
            "state_said": say(run.state),
            "percent": percent,
            "percent_said": "" if percent is None else f"{percent:.0f} %",
            "step": hide(progress["step"]),
            "attempt": str(run.attempt),
            "worker": run.worker or "–",
            "started": formats.stamp(run.started_at, ZoneInfo(parts_of(request).settings.timezone)),
            "ended": run.ended,
        },
        ensure_ascii=False,
    )


def _moment(text: str, zone: str) -> datetime | None:
    if not text.strip():
        return None
    try:
        return moment(text.strip(), zone)
    except CadenceError as error:
        raise Problem(422, str(error)) from None


def _shown(at: datetime, zone: ZoneInfo) -> str:
    return at.astimezone(zone).replace(tzinfo=None).isoformat(timespec="seconds")


def _cursor(run: Run) -> str:
    return f"{run.created_at.isoformat()}|{run.id}"


def _position(cursor: str) -> tuple[datetime, str] | None:
    if not cursor:
        return None
    created, _, id = cursor.partition("|")
    try:
        at = datetime.fromisoformat(created)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not id:
        raise Problem(422, "This is not the continuation of a list.")
    return at, id
