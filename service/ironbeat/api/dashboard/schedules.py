"""The schedules: a list, what is to come, one of them, and what is done with it by a button."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo

import psycopg
from fastapi import APIRouter, Query, Request

from ironbeat import database
from ironbeat.access import audit
from ironbeat.api.dashboard.overview import read
from ironbeat.api.dashboard.pages import PageRoute, redirect, render, segment, translator
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.problems import Problem
from ironbeat.api.visitors import OperatorOf, Visitor, VisitorOf, form_of
from ironbeat.schedules import planner, store, wording_zh
from ironbeat.schedules.cadence import CadenceError, moment
from ironbeat.schedules.definition import FIELDS, Definition, DefinitionError
from ironbeat.watch import lately
from ironbeat.watch.punctuality import read_schedules

router = APIRouter(route_class=PageRoute)

PAGE = 50
COMING = 10
LAST_RUNS = 20
MOST_BACKFILLED = 1000
SHOWN_SLOTS = 50

Connection = psycopg.Connection[Any]
Changed = TypeVar("Changed")
Text = Annotated[str | None, Query(max_length=200)]

# What a kind of schedule is called where a person gives it.
KINDS = {"cron": "cron", "interval": "every", "solar": "solar", "once": "once"}


def in_words(request: Request) -> Callable[[Any], str]:
    """Says when a schedule fires, in the reader's language."""
    language = translator(request).language

    def say(found: Any) -> str:
        try:
            if language != "en":
                return wording_zh.describe(
                    found.kind, found.expression, found.timezone, simplified=language == "zh-CN"
                )
            return Definition.of_row(
                dict.fromkeys(FIELDS, None)
                | {"kind": found.kind, "expression": found.expression, "timezone": found.timezone}
            ).describe()
        except (CadenceError, ValueError) as error:
            return str(error)

    return say


@router.get("/schedules")
async def schedules(
    request: Request,
    _: VisitorOf,
    q: Text = None,
    workload: Text = None,
    only: Literal["", "on", "paused"] = "",
    order: Literal["name", "next"] = "name",
    view: Literal["list", "timeline"] = "list",
    after: Annotated[str, Query(max_length=300)] = "",
    told: Annotated[str, Query(max_length=20)] = "",
) -> Any:
    """A page of schedules, as a list or on a line of the next 24 hours."""
    now = datetime.now(UTC)
    enabled = {"": None, "on": True, "paused": False}[only]

    def look(connection: Connection) -> Any:
        found = lately.names(
            connection,
            text=q or None,
            workload=workload or None,
            enabled=enabled,
            by_next=order == "next" or view == "timeline",
            after=after,
            limit=PAGE + 1,
        )
        shown = found[:PAGE]
        if view == "timeline":
            return found, lately.read_coming(connection, shown, now), {}
        rows = {row.name: row for row in read_schedules(connection, names=shown, limit=PAGE)}
        listed = [rows[name] for name in shown if name in rows]
        return found, listed, lately.read_past(connection, [row.id for row in listed])

    found, rows, past = await read(parts_of(request), look)
    return render(
        request,
        "timeline.html" if view == "timeline" else "schedules.html",
        rows=rows,
        past=past,
        words=in_words(request),
        following=found[PAGE - 1] if len(found) > PAGE and order == "name" else None,
        more=len(found) > PAGE,
        q=q or "",
        workload=workload or "",
        only=only,
        order=order,
        view=view,
        told=told,
    )


@router.post("/schedules/{name:path}/pause")
async def pause(request: Request, name: str, who: OperatorOf) -> Any:
    """Let a schedule make no fires until it is resumed."""
    parts = parts_of(request)
    await change(parts, who, "schedule.pause", name, lambda c: store.pause(c, name))
    return await _back(request, name, "paused")


@router.post("/schedules/{name:path}/resume")
async def resume(request: Request, name: str, who: OperatorOf) -> Any:
    """Let a schedule fire again, from now on."""
    parts = parts_of(request)
    await change(parts, who, "schedule.resume", name, lambda c: store.resume(c, name))
    return await _back(request, name, "resumed")


@router.post("/schedules/{name:path}/restore")
async def restore(request: Request, name: str, who: OperatorOf) -> Any:
    """Undo edits: what code declares holds again."""
    parts = parts_of(request)
    await change(parts, who, "schedule.restore", name, lambda c: store.restore(c, name))
    return redirect(f"/schedules/{segment(name)}", told="restored")


@router.post("/schedules/{name:path}/remove")
async def remove(request: Request, name: str, who: OperatorOf) -> Any:
    """Forget a schedule; its runs stay."""
    await change(parts_of(request), who, "schedule.remove", name, lambda c: store.remove(c, name))
    return redirect("/schedules", told="removed")


@router.post("/schedules/{name:path}/run")
async def run(request: Request, name: str, who: OperatorOf) -> Any:
    """Run a schedule's task now."""
    parts = parts_of(request)
    url = parts.settings.database_url.get_secret_value()
    await parts.ready()

    def work() -> str:
        from ironbeat.dispatch.schedules import run_now

        with audit.noted(url, who.actor, "schedule.run", name) as note:
            id = run_now(parts.celery(), name)
            note.detail["run"] = id
            return id

    return redirect(f"/runs/{segment(await parts.run(work))}", told="started")


@router.post("/schedules/{name:path}/backfill")
async def backfill(request: Request, name: str, who: OperatorOf) -> Any:
    """Show the slots of a period that have no run, or make their runs once that is confirmed."""
    form, parts = await form_of(request), parts_of(request)
    zone = parts.settings.timezone
    # A second early: the database's clock may be behind this machine's.
    latest = datetime.now(UTC) - timedelta(seconds=1)
    try:
        since = moment(form.get("since", ""), zone)
        until = min(moment(form["until"], zone) if form.get("until") else latest, latest)
    except CadenceError as error:
        raise Problem(422, str(error)) from None
    if since >= until:
        raise Problem(422, "The period must begin before it ends, and in the past.")
    try:
        if form.get("sure") == "yes":
            made = await _backfilled(parts, who, name, since, until)
            return redirect(f"/schedules/{segment(name)}", told="backfilled", number=made)
        return await _preview(request, parts, name, since, until)
    except DefinitionError:
        raise
    except ValueError as error:
        raise Problem(422, str(error)) from None


async def _backfilled(
    parts: Parts, who: Visitor, name: str, since: datetime, until: datetime
) -> int:
    url = parts.settings.database_url.get_secret_value()
    await parts.ready()

    def work() -> int:
        from ironbeat.dispatch.schedules import backfill as make

        period = {"since": since, "until": until}
        with audit.noted(url, who.actor, "schedule.backfill", name, period) as note:
            made = len(make(parts.celery(), name, since, until, limit=MOST_BACKFILLED))
            note.detail["runs"] = made
            return made

    return await parts.run(work, 60.0)


async def _preview(
    request: Request, parts: Parts, name: str, since: datetime, until: datetime
) -> Any:
    def look(connection: Connection) -> Any:
        found = store.get(connection, name)
        times = found.definition.cadence(found.anchor_at)
        slots = planner.slots_between(times, since, until, MOST_BACKFILLED)
        rows = connection.execute(
            "SELECT scheduled_for FROM ironbeat.fires WHERE schedule_id = %s"
            " AND scheduled_for >= %s AND scheduled_for < %s",
            (found.id, since, until),
        ).fetchall()
        taken = {row[0] for row in rows}
        return found, [slot for slot in slots if slot not in taken], len(slots)

    found, slots, number = await read(parts, look)
    zone = ZoneInfo(parts.settings.timezone)
    return render(
        request,
        "backfill.html",
        schedule=found,
        slots=slots[:SHOWN_SLOTS],
        number=len(slots),
        taken=number - len(slots),
        since=since.astimezone(zone).replace(tzinfo=None).isoformat(),
        until=until.astimezone(zone).replace(tzinfo=None).isoformat(),
        since_at=since,
        until_at=until,
    )


@router.get("/schedules/{name:path}")
async def schedule(
    request: Request,
    name: str,
    _: VisitorOf,
    told: Annotated[str, Query(max_length=20)] = "",
    number: int = 0,
) -> Any:
    """One schedule: when it ran and runs next, and everything that can be done with it."""

    def look(connection: Connection) -> Any:
        found = store.get(connection, name)
        [seen] = read_schedules(connection, names=[name], limit=1)
        past = lately.read_past(connection, [found.id], LAST_RUNS)[found.id]
        try:
            coming = store.preview(connection, name, COMING)
        except DefinitionError:
            coming = []
        changes = audit.entries(connection, action="schedule.", subject=name, limit=10)
        return found, seen, past, coming, changes

    found, seen, past, coming, changes = await read(parts_of(request), look)
    return render(
        request,
        "schedule.html",
        schedule=found,
        definition=found.definition,
        seen=seen,
        past=past,
        coming=coming,
        changes=changes,
        words=in_words(request),
        told=told,
        number=number,
        kind=KINDS.get(found.definition.kind, found.definition.kind),
    )


async def change(
    parts: Parts,
    who: Visitor,
    action: str,
    name: str,
    work: Callable[[Connection], Changed],
    detail: Mapping[str, Any] | None = None,
) -> Changed:
    """Change a schedule, and have that in the audit. ``detail`` is masked here."""
    url = parts.settings.database_url.get_secret_value()
    noted = parts.mask.within(detail or {})

    def call() -> Changed:
        with (
            audit.noted(url, who.actor, action, name, noted),
            database.connection(url) as connection,
        ):
            return work(connection)

    return await parts.run(call)


async def _back(request: Request, name: str, told: str) -> Any:
    """To where the button was: the list, or the schedule's page."""
    came = (await form_of(request)).get("back", "")
    if came.startswith("/schedules?") or came == "/schedules":
        return redirect(came)
    return redirect(f"/schedules/{segment(name)}", told=told)
