"""The routes of the workload, under ``/api/analytics``: what a front end and a person look at."""

from __future__ import annotations

import json
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from fastapi.responses import HTMLResponse

from ironbeat.workloads.analytics import payload
from ironbeat.workloads.analytics.database import first, rows, transaction
from ironbeat.workloads.analytics.page import questions_page

router = APIRouter(tags=["analytics"])

Role = Annotated[Literal["user", "assistant"], Query(description="Whose messages.")]
Day = Annotated[
    date | None,
    Query(alias="date", description="As of the end of this day, if it was computed; else now."),
]

_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.get("/questions")
def questions(request: Request, role: Role = "user", day: Day = None) -> Response:
    """The hot questions, as they were last computed.

    With `If-None-Match` of the `ETag` seen before, 304 when nothing has changed since.
    """
    found = _payload(role, day)
    etag = f'"{found.etag}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "X-Cache": found.source}
    offered = [each.strip() for each in request.headers.get("if-none-match", "").split(",")]
    if any(each.removeprefix("W/") == etag or each == "*" for each in offered):
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type="application/json", headers=headers)


@router.get("/groups/{group}")
def group(
    group: Annotated[int, Path(ge=1, le=2**63 - 1, description="The group's number.")],
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many texts.")] = 100,
) -> dict[str, Any]:
    """One group: its words, its different texts with how often each was asked, its days."""
    with transaction() as cursor:
        found = first(cursor, "one_group", group=group)
        if found is None:
            raise HTTPException(404, f"there is no group {group}")
        found["members"] = rows(cursor, "members", group=group, number=limit)
        found["days"] = [
            {"day": row["day"].isoformat(), "messages": row["messages"]}
            for row in rows(cursor, "days_of_group", group=group)
        ]
    return found


@router.get("/page", response_class=HTMLResponse)
def page(role: Role = "user", day: Day = None) -> HTMLResponse:
    """The hot questions for people, with a chart over time."""
    found = _payload(role, day)
    return HTMLResponse(questions_page(json.loads(found.body)), headers=_PAGE_HEADERS)


def _payload(role: str, day: date | None) -> payload.Payload:
    found = payload.read(role=role, day=day)
    if found is None:
        when = f" for {day.isoformat()}" if day else " yet"
        raise HTTPException(
            404,
            f"no questions were computed{when}: the schedule update-question-analytics-daily does "
            "it, or `ironbeat analytics run" + (f" --date {day.isoformat()}`" if day else "`"),
        )
    return found
