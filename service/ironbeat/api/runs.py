"""Runs over HTTP: submit, list, look at, cancel."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, model_validator

from ironbeat import watch
from ironbeat.api.audited import Detail
from ironbeat.api.inputs import Body, Instant, Json, Text
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.problems import Problem
from ironbeat.runs.model import ENDED_STATES, LIVE_STATES, UNSUCCESSFUL_STATES, Filters, Run, State

router = APIRouter(tags=["runs"])

PartsOf = Annotated[Parts, Depends(parts_of)]
RunId = Annotated[Text, Path(description="A run's id, which is its Celery task id.")]

Wanted = Literal[
    "pending", "published", "running", "retrying", "succeeded", "failed", "cancelled", "skipped",
    "expired", "dead", "live", "ended", "unsuccessful",
]  # fmt: skip
_GROUPS: dict[str, frozenset[State]] = {
    "live": LIVE_STATES,
    "ended": ENDED_STATES,
    "unsuccessful": UNSUCCESSFUL_STATES,
}


class RunBody(BaseModel):  # type: ignore[no-redef]  # the plugin trips over a field `kwargs`
    """One execution that was asked for. ``seconds``: how long its last attempt took."""

    id: str
    task: str
    state: State
    workload: str
    queue: str
    priority: int | None
    schedule: str | None
    scheduled_for: datetime | None
    created_at: datetime
    published_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    worker: str | None
    attempt: int
    retries: int
    crashes: int
    args: str | None
    kwargs: str | None
    progress: Any
    result: Any
    error: str | None
    traceback: str | None
    reason: str | None
    eta: datetime | None
    expires_at: datetime | None
    idempotency_key: str | None
    parent_id: str | None
    root_id: str | None
    group_id: str | None
    durable: bool
    attempts: Any
    cancel_requested_at: datetime | None

    @classmethod
    def of(cls, run: Run) -> RunBody:
        """The run as it is told: without the message it travelled in."""
        fields = {name: getattr(run, name) for name in cls.model_fields if hasattr(run, name)}
        return cls(**fields, schedule=run.schedule_name, args=run.argsrepr, kwargs=run.kwargsrepr)


class Page(BaseModel):
    """Runs, newest first; ``next`` continues the list when there may be more."""

    runs: list[RunBody]
    next: str | None


class SubmitBody(Body):
    """A task to run. ``countdown`` and ``expires`` are seconds from now; times carry an offset.

    A repeated submission with the same ``idempotency_key`` within ``idempotency_window`` seconds
    returns the first run.
    """

    task: Text
    args: list[Json] = Field(default_factory=list, max_length=1000)
    kwargs: dict[str, Json] = Field(default_factory=dict, max_length=1000)
    queue: Text | None = None
    priority: Annotated[int, Field(ge=0, le=9)] | None = None
    countdown: Annotated[float, Field(ge=0, le=31_536_000)] | None = None
    eta: Instant | None = None
    expires: Annotated[float, Field(gt=0, le=31_536_000)] | None = None
    idempotency_key: Text | None = None
    idempotency_window: Annotated[float, Field(gt=0, le=31_536_000)] = 86400.0

    @model_validator(mode="after")
    def _one_time(self) -> SubmitBody:
        if self.countdown is not None and self.eta is not None:
            raise ValueError("give either countdown or eta")
        return self


class Submitted(BaseModel):
    """The run that was made, or found by its idempotency key."""

    id: str


class Cancelled(BaseModel):
    """``cancelled``; ``stopping`` while its worker interrupts it; or the state it had ended in."""

    id: str
    state: str


def answer(value: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    """``value`` as the response's body; results may hold what only the encoder can say."""
    return JSONResponse(watch.plain(value.model_dump()), status, headers)


@router.post("/tasks", status_code=202, response_model=Submitted)
async def submit(body: SubmitBody, parts: PartsOf, told: Detail) -> Any:
    """Submit a task: committed to the ledger when this returns, so it is not lost any more."""

    def work() -> str:
        # Celery takes seconds to import, which health must not wait for.
        from ironbeat.dispatch import TaskRejected

        try:
            return hand_over()
        except TaskRejected as error:
            raise Problem(422, str(error)) from None

    def hand_over() -> str:
        return parts.manager().submit(
            body.task,
            body.args,
            body.kwargs,
            queue=body.queue,
            priority=body.priority,
            countdown=body.countdown,
            eta=body.eta,
            expires=body.expires,
            idempotency_key=body.idempotency_key,
            idempotency_window=body.idempotency_window,
        )

    await parts.ready()
    id = told["run"] = await parts.run(work)
    return answer(Submitted(id=id), 202, {"Location": f"/api/runs/{id}"})


@router.get("/tasks", response_model=list[str])
async def tasks(parts: PartsOf) -> Any:
    """The names of the tasks that may be submitted."""

    await parts.ready()
    return sorted(name for name in parts.celery().tasks if not name.startswith("celery."))


@router.get("/runs", response_model=Page)
async def runs(
    parts: PartsOf,
    state: Annotated[list[Wanted] | None, Query(description="May be repeated.")] = None,
    task: Annotated[Text | None, Query()] = None,
    schedule: Annotated[Text | None, Query()] = None,
    workload: Annotated[Text | None, Query()] = None,
    queue: Annotated[Text | None, Query()] = None,
    worker: Annotated[Text | None, Query()] = None,
    text: Annotated[Text | None, Query(description="In task, arguments or error.")] = None,
    since: Annotated[Instant | None, Query(description="Created from then on.")] = None,
    until: Annotated[Instant | None, Query(description="Created before then.")] = None,
    parent_id: Annotated[Text | None, Query()] = None,
    group_id: Annotated[Text | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    after: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
) -> Any:
    """Runs that meet every condition, newest first, a page at a time."""
    named: set[State] = set()
    for wanted in state or ():
        named |= _GROUPS.get(wanted, frozenset((wanted,)))  # type: ignore[arg-type]
    filters = Filters(
        states=tuple(sorted(named)),
        task=task,
        schedule=schedule,
        workload=workload,
        queue=queue,
        worker=worker,
        text=text,
        since=since,
        until=until,
        parent_id=parent_id,
        group_id=group_id,
        before=_position(after) if after else None,
        limit=limit,
    )
    found = await parts.run(lambda: parts.ledger.find(filters))
    following = _cursor(found[-1]) if len(found) == limit else None
    return answer(Page(runs=[RunBody.of(run) for run in found], next=following))


@router.get("/runs/{id}", response_model=RunBody)
async def run(id: RunId, parts: PartsOf) -> Any:
    """One run: state, times, progress, result, error and traceback."""
    return answer(RunBody.of(await parts.run(lambda: parts.ledger.get(id))))


@router.post("/runs/{id}/cancel", response_model=Cancelled)
async def cancel(id: RunId, parts: PartsOf, told: Detail) -> Any:
    """Cancel a run, waiting or running. One that has ended stays as it is."""
    await parts.ready()
    state = await parts.run(lambda: parts.manager().cancel(id, reason="cancelled over HTTP"))
    told["state"] = state
    return answer(Cancelled(id=id, state=state))


def _cursor(run: Run) -> str:
    text = json.dumps([run.created_at.isoformat(), run.id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[datetime, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        created, id = json.loads(base64.urlsafe_b64decode(padded))
        position = datetime.fromisoformat(created)
        if position.tzinfo is None or not isinstance(id, str):
            raise ValueError
    except (ValueError, TypeError, binascii.Error):
        raise Problem(422, "`after` is not the `next` of a page.") from None
    return position, id
