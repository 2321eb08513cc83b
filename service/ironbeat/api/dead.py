"""Dead letters over HTTP: what ``ironbeat dead`` does."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from ironbeat.api.audited import Detail
from ironbeat.api.inputs import Instant, Text
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.problems import Problem
from ironbeat.api.runs import RunBody, RunId, Submitted, answer
from ironbeat.runs.deadletters import DeadLetter, DeadLetters, NotADeadLetter
from ironbeat.runs.replay import NotReplayable

router = APIRouter(tags=["dead letters"])

PartsOf = Annotated[Parts, Depends(parts_of)]


class Letters(BaseModel):
    """Dead letters, the latest first; ``next`` continues the list when there may be more."""

    letters: list[DeadLetter]
    next: str | None


class Letter(BaseModel):
    """A dead letter and its run: last words are in the run's ``traceback``."""

    letter: DeadLetter
    run: RunBody


class Dropped(BaseModel):
    """The letter that is off the list."""

    id: str
    handled: str


@router.get("/dead", response_model=Letters)
async def dead(
    parts: PartsOf,
    task: Annotated[Text | None, Query()] = None,
    queue: Annotated[Text | None, Query()] = None,
    since: Annotated[Instant | None, Query(description="Dead from then on.")] = None,
    handled: Annotated[bool, Query(description="Also those that were dealt with.")] = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    after: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
) -> Any:
    """Dead letters that meet every condition, a page at a time."""
    before = _position(after) if after else None
    found = await parts.run(
        lambda: DeadLetters(parts.ledger).find(
            task=task,
            queue=queue,
            since=since,
            before=before,
            handled_too=handled,
            limit=limit,
        )
    )
    following = _cursor(found[-1]) if len(found) == limit else None
    return answer(Letters(letters=found, next=following))


@router.get("/dead/{id}", response_model=Letter)
async def letter(id: RunId, parts: PartsOf) -> Any:
    """One dead letter with its run."""

    def read() -> Letter:
        found = DeadLetters(parts.ledger).get(id)
        return Letter(letter=found, run=RunBody.of(parts.ledger.get(id)))

    try:
        return answer(await parts.run(read))
    except NotADeadLetter as error:
        raise Problem(404, str(error)) from None


@router.post("/dead/{id}/replay", status_code=202, response_model=Submitted)
async def replay(id: RunId, parts: PartsOf, told: Detail) -> Any:
    """Run it again as a new run, once."""

    def work() -> str:
        # Celery takes seconds to import, which health must not wait for.
        from ironbeat.dispatch.deadletters import replay_letter

        return replay_letter(parts.manager(), id)

    await parts.ready()
    try:
        made = told["run"] = await parts.run(work)
    except (NotADeadLetter, NotReplayable) as error:
        raise Problem(409, str(error)) from None
    return answer(Submitted(id=made), 202, {"Location": f"/api/runs/{made}"})


@router.delete("/dead/{id}", response_model=Dropped)
async def drop(id: RunId, parts: PartsOf) -> Any:
    """Take it off the list without running it; the run stays in the history."""
    try:
        await parts.run(lambda: DeadLetters(parts.ledger).drop(id))
    except NotADeadLetter as error:
        raise Problem(409, str(error)) from None
    return answer(Dropped(id=id, handled="dropped"))


def _cursor(found: DeadLetter) -> str:
    text = json.dumps([found.ended_at.isoformat(), found.id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[datetime, str]:
    try:
        ended, id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        position = datetime.fromisoformat(ended)
        if position.tzinfo is None or not isinstance(id, str):
            raise ValueError
    except (ValueError, TypeError, binascii.Error):
        raise Problem(422, "`after` is not the `next` of a page.") from None
    return position, id
