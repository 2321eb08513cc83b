"""Dead letters: the list, and what is done about them. One of them is the page of its run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from ironbeat.access import audit
from ironbeat.api.dashboard.pages import PageRoute, redirect, render, segment
from ironbeat.api.parts import parts_of
from ironbeat.api.problems import Problem
from ironbeat.api.visitors import OperatorOf, VisitorOf
from ironbeat.runs.deadletters import DeadLetters, NotADeadLetter
from ironbeat.runs.replay import NotReplayable

router = APIRouter(route_class=PageRoute)

PAGE = 50


@router.get("/dead")
async def letters(
    request: Request,
    _: VisitorOf,
    task: Annotated[str, Query(max_length=500)] = "",
    queue: Annotated[str, Query(max_length=500)] = "",
    handled: bool = False,
    after: Annotated[str, Query(max_length=400)] = "",
    told: Annotated[str, Query(max_length=20)] = "",
) -> Any:
    """Dead letters, the latest first."""
    parts = parts_of(request)
    before = _position(after)
    found = await parts.run(
        lambda: DeadLetters(parts.ledger).find(
            task=task or None,
            queue=queue or None,
            before=before,
            handled_too=handled,
            limit=PAGE,
        )
    )
    following = f"{found[-1].ended_at.isoformat()}|{found[-1].id}" if len(found) == PAGE else None
    return render(
        request,
        "dead.html",
        letters=found,
        following=following,
        task=task,
        queue=queue,
        handled=handled,
        told=told,
    )


@router.post("/dead/{id:path}/replay")
async def replay(request: Request, id: str, who: OperatorOf) -> Any:
    """Run it again as a new run, once."""
    parts = parts_of(request)
    url = parts.settings.database_url.get_secret_value()
    await parts.ready()

    def work() -> str:
        from ironbeat.dispatch.deadletters import replay_letter

        with audit.noted(url, who.actor, "dead.replay", id) as note:
            made = replay_letter(parts.manager(), id)
            note.detail["run"] = made
            return made

    try:
        made = await parts.run(work)
    except (NotADeadLetter, NotReplayable) as error:
        raise Problem(409, str(error)) from None
    return redirect(f"/runs/{segment(made)}", told="retried")


@router.post("/dead/{id:path}/drop")
async def drop(request: Request, id: str, who: OperatorOf) -> Any:
    """Take it off the list without running it."""
    parts = parts_of(request)
    url = parts.settings.database_url.get_secret_value()

    def work() -> None:
        with audit.noted(url, who.actor, "dead.drop", id):
            DeadLetters(parts.ledger).drop(id)

    try:
        await parts.run(work)
    except NotADeadLetter as error:
        raise Problem(409, str(error)) from None
    return redirect("/dead", told="dropped")


def _position(cursor: str) -> tuple[datetime, str] | None:
    if not cursor:
        return None
    ended, _, id = cursor.partition("|")
    try:
        at = datetime.fromisoformat(ended)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not id:
        raise Problem(422, "This is not the continuation of a list.")
    return at, id
