"""Schedules over HTTP: list, look at, add, edit, pause, resume, run, preview, backfill, remove."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

import psycopg
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from ironbeat import database, watch
from ironbeat.api import problems
from ironbeat.api.audited import Detail
from ironbeat.api.inputs import Body, Instant, Json, Text
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.problems import Problem
from ironbeat.api.runs import Submitted, answer
from ironbeat.schedules import planner, store
from ironbeat.schedules.definition import DefinitionError, from_input
from ironbeat.schedules.store import Schedule, ScheduleDeclared, ScheduleExists, ScheduleNotFound
from ironbeat.watch.punctuality import read_schedules

router = APIRouter(tags=["schedules"])

PartsOf = Annotated[Parts, Depends(parts_of)]
Name = Annotated[Text, Path(description="The schedule's name.")]
#: A length of time: seconds, or text such as ``10m``.
Length = Annotated[float, Field(ge=0)] | Text

MOST_BACKFILLED = 1000

Result = TypeVar("Result")
Connection = psycopg.Connection[Any]


class ScheduleBody(BaseModel):  # type: ignore[no-redef]  # the plugin trips over a field `kwargs`
    """A schedule: its definition, what it is worth saying of it, its next fire and its last run.

    ``state``: ``active``, ``paused``, ``finished`` (it never fires again) or ``invalid``.
    ``described``: its times in words. ``changed_from_declared``: what an operator changed of what
    code declares. Lengths of time are in seconds.
    """

    name: str
    state: Literal["active", "paused", "finished", "invalid"]
    described: str
    workload: str
    task: str
    kind: str
    expression: str
    timezone: str
    args: list[Any]
    kwargs: dict[str, Any]
    headers: dict[str, Any]
    queue: str | None
    priority: int | None
    starts_at: datetime | None
    ends_at: datetime | None
    jitter_seconds: int
    expires_seconds: int | None
    catch_up: str
    catch_up_max: int
    catch_up_window_seconds: int | None
    overlap: str
    enabled: bool
    declared: bool
    edited_at: datetime | None
    changed_from_declared: dict[str, Any]
    next_scheduled_for: datetime | None
    next_fire_at: datetime | None
    last_scheduled_for: datetime | None
    last_fired_at: datetime | None
    last_run: LastRun | None = None

    @classmethod
    def of(cls, found: Schedule, last: watch.Schedule | None = None) -> ScheduleBody:
        """The schedule as it is told."""
        return cls(
            **found.definition.as_json(),
            state=found.state,
            described=found.definition.describe(),
            declared=found.declared is not None,
            edited_at=found.edited_at,
            changed_from_declared={
                field: {"now": now, "declared": declared}
                for field, (now, declared) in found.differs_from_declared().items()
            },
            next_scheduled_for=found.next_scheduled_for,
            next_fire_at=found.next_fire_at,
            last_scheduled_for=found.last_scheduled_for,
            last_fired_at=found.last_fired_at,
            last_run=LastRun.of(last) if last is not None and last.last_run_id else None,
        )


class LastRun(BaseModel):
    """A schedule's last run that was not skipped; ``seconds``: how long the last ended one took."""

    id: str
    state: str
    scheduled_for: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    error: str | None

    @classmethod
    def of(cls, seen: watch.Schedule) -> LastRun:
        """The last run that the watch has seen."""
        return cls(
            id=seen.last_run_id or "",
            state=seen.last_state or "",
            scheduled_for=seen.last_scheduled_for,
            started_at=seen.last_started_at,
            ended_at=seen.last_ended_at,
            seconds=seen.last_seconds,
            error=seen.last_error,
        )


class SchedulePage(BaseModel):
    """Schedules; ``next`` is the ``offset`` of the following page when there may be one."""

    schedules: list[ScheduleBody]
    next: int | None


class Definition(Body):
    """What may be said of a schedule. Exactly one of ``cron``, ``every``, ``solar``, ``once`` says
    when; lengths of time are seconds or text such as ``10m``; times without an offset are those of
    the schedule's zone. An empty text takes a value away.
    """

    task: Text | None = None
    cron: Text | None = None
    every: Length | None = None
    solar: Text | None = None
    once: Text | None = None
    timezone: Text | None = None
    args: list[Json] | None = None
    kwargs: dict[str, Json] | None = None
    queue: Annotated[str, Field(max_length=200)] | None = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    starts_at: Annotated[str, Field(max_length=100)] | None = None
    ends_at: Annotated[str, Field(max_length=100)] | None = None
    jitter: Length | None = None
    expires: Length | Literal[""] | None = None
    catch_up: Literal["skip", "latest", "all", "window"] | None = None
    catch_up_max: Annotated[int, Field(ge=1)] | None = None
    catch_up_window: Length | Literal[""] | None = None
    overlap: Literal["skip", "queue_one", "allow", "cancel_other"] | None = None

    def given(self) -> dict[str, Any]:
        """The fields that the request holds; ``null`` where it may take a value away."""
        return self.model_dump(exclude_unset=True)


class NewSchedule(Definition):
    """A schedule to be made; ``enabled`` false lets it rest."""

    name: Text
    enabled: bool = True


class Fire(BaseModel):
    """A fire to come: its nominal time, and when it is due (with jitter)."""

    scheduled_for: datetime
    due_at: datetime


class Range(Body):
    """The slots from ``since`` up to ``until`` (default: now), at most ``limit``.

    ``dry_run``: only tell which slots lie in the range.
    """

    since: Instant
    until: Instant | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = MOST_BACKFILLED
    dry_run: bool = False


class Backfilled(BaseModel):
    """The runs that were made; slots that had theirs are left alone."""

    runs: list[str]
    slots: list[datetime] | None = None


async def _do(parts: Parts, work: Callable[[Connection], Result]) -> Result:
    def call() -> Result:
        url = parts.settings.database_url.get_secret_value()
        with database.connection(url) as connection:
            return work(connection)

    return await parts.run(call)


def _with_last(connection: Connection, found: list[Schedule]) -> list[ScheduleBody]:
    names = [schedule.name for schedule in found]
    last = {
        seen.name: seen for seen in read_schedules(connection, names=names, limit=len(names) or 1)
    }
    return [ScheduleBody.of(schedule, last.get(schedule.name)) for schedule in found]


@router.get("/schedules", response_model=SchedulePage)
async def schedules(
    parts: PartsOf,
    matching: Annotated[Text | None, Query(description="A part of the name.")] = None,
    workload: Annotated[Text | None, Query()] = None,
    task: Annotated[Text | None, Query()] = None,
    kind: Annotated[Literal["cron", "interval", "solar", "once"] | None, Query()] = None,
    queue: Annotated[Text | None, Query()] = None,
    enabled: Annotated[bool | None, Query()] = None,
    by_next: Annotated[bool, Query(description="The next to fire first; else by name.")] = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> Any:
    """Schedules with their next fire and their last run, a page at a time."""

    def read(connection: Connection) -> list[ScheduleBody]:
        found = store.listing(
            connection,
            matching=matching,
            workload=workload,
            task=task,
            kind=kind,
            queue=queue,
            enabled=enabled,
            by_next_fire=by_next,
            limit=limit,
            offset=offset,
        )
        return _with_last(connection, found)

    found = await _do(parts, read)
    following = offset + limit if len(found) == limit else None
    return answer(SchedulePage(schedules=found, next=following))


@router.post("/schedules", status_code=201, response_model=ScheduleBody)
async def add(body: NewSchedule, parts: PartsOf) -> Any:
    """Make a schedule. Beat follows within a second."""
    definition = from_input(body.given(), timezone=parts.settings.timezone)
    await parts.ready()
    app = parts.celery()
    made = await _do(
        parts, lambda c: store.add(c, definition, tasks=app.tasks, queues=app.amqp.queues)
    )
    return answer(ScheduleBody.of(made), 201)


@router.get("/schedules/{name:path}/next", response_model=list[Fire])
async def preview(
    name: Name, parts: PartsOf, count: Annotated[int, Query(ge=1, le=1000)] = 10
) -> Any:
    """The next fires; of a paused schedule, those it would make if it were resumed now."""
    coming = await _do(parts, lambda c: store.preview(c, name, count))
    fires = [Fire(scheduled_for=fire.scheduled_for, due_at=fire.due_at) for fire in coming]
    return JSONResponse(watch.plain([fire.model_dump() for fire in fires]))


@router.get("/schedules/{name:path}", response_model=ScheduleBody)
async def get(name: Name, parts: PartsOf) -> Any:
    """One schedule."""
    found = await _do(parts, lambda c: _with_last(c, [store.get(c, name)]))
    return answer(found[0])


@router.patch("/schedules/{name:path}", response_model=ScheduleBody)
async def edit(name: Name, body: Definition, parts: PartsOf) -> Any:
    """Change some fields. Beat follows within a second, and imports leave the edit alone."""
    changes = body.given()
    if not changes:
        raise Problem(422, "Nothing to change was given.")
    await parts.ready()
    app = parts.celery()
    changed = await _do(
        parts,
        lambda c: store.edit(c, name, changes, tasks=app.tasks, queues=app.amqp.queues),
    )
    return answer(ScheduleBody.of(changed))


@router.delete("/schedules/{name:path}", status_code=204)
async def remove(name: Name, parts: PartsOf) -> Response:
    """Forget a schedule; its runs stay. One that code declares can only be paused (409)."""
    await _do(parts, lambda c: store.remove(c, name))
    return Response(status_code=204)


@router.post("/schedules/{name:path}/pause", response_model=ScheduleBody)
async def pause(name: Name, parts: PartsOf) -> Any:
    """Let a schedule make no fires until it is resumed; runs on their way go on."""
    return answer(ScheduleBody.of(await _do(parts, lambda c: store.pause(c, name))))


@router.post("/schedules/{name:path}/resume", response_model=ScheduleBody)
async def resume(name: Name, parts: PartsOf) -> Any:
    """Let a schedule fire again from now on; nothing of the pause is caught up."""
    return answer(ScheduleBody.of(await _do(parts, lambda c: store.resume(c, name))))


@router.post("/schedules/{name:path}/restore", response_model=ScheduleBody)
async def restore(name: Name, parts: PartsOf) -> Any:
    """Undo an operator's edits: what code declares holds again."""
    return answer(ScheduleBody.of(await _do(parts, lambda c: store.restore(c, name))))


@router.post("/schedules/{name:path}/run", status_code=202, response_model=Submitted)
async def run(name: Name, parts: PartsOf, told: Detail) -> Any:
    """Run a schedule's task now; its own times stay as they are."""
    await parts.ready()

    def work() -> str:
        from ironbeat.dispatch.schedules import run_now

        return run_now(parts.celery(), name)

    id = told["run"] = await parts.run(work)
    return answer(Submitted(id=id), 202, {"Location": f"/api/runs/{id}"})


@router.post("/schedules/{name:path}/backfill", status_code=202, response_model=Backfilled)
async def backfill(name: Name, body: Range, parts: PartsOf, told: Detail) -> Any:
    """Make the runs of all slots in a range that never had one."""
    # A second early: the database's clock may be behind this machine's.
    latest = datetime.now(UTC) - timedelta(seconds=1)
    until = min(body.until or latest, latest)
    if body.since >= until:
        raise Problem(422, "`since` must lie before `until`, and in the past.")

    def slots(connection: Connection) -> list[datetime]:
        found = store.get(connection, name)
        times = found.definition.cadence(found.anchor_at)
        return planner.slots_between(times, body.since, until, body.limit)

    def work() -> list[str]:
        from ironbeat.dispatch.schedules import backfill as make

        return make(parts.celery(), name, body.since, until, limit=body.limit)

    try:
        if body.dry_run:
            return answer(Backfilled(runs=[], slots=await _do(parts, slots)), 200)
        await parts.ready()
        made = await parts.run(work, 60.0)
        told["runs"] = len(made)
        return answer(Backfilled(runs=made), 202)
    except DefinitionError:
        raise
    except ValueError as error:
        # Too many slots, or a row that somebody wrote by hand.
        raise Problem(422, str(error)) from None


def install_problems(app: FastAPI) -> None:
    """Make what is refused here a problem that tells what to do."""

    @app.exception_handler(ScheduleNotFound)
    async def unknown(_: Request, error: ScheduleNotFound) -> JSONResponse:
        return problems.response(404, str(error).strip("'\""))

    @app.exception_handler(ScheduleExists)
    @app.exception_handler(ScheduleDeclared)
    async def conflict(_: Request, error: Exception) -> JSONResponse:
        return problems.response(409, str(error))

    @app.exception_handler(DefinitionError)
    async def wrong(_: Request, error: DefinitionError) -> JSONResponse:
        errors = [{"where": f"body.{k}", "message": v} for k, v in error.problems.items()]
        return problems.response(422, str(error), errors)
