"""The audit: who changed what, when, from where, and how that went."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from ironbeat.access import audit
from ironbeat.api.dashboard.overview import read
from ironbeat.api.dashboard.pages import PageRoute, render
from ironbeat.api.parts import parts_of
from ironbeat.api.visitors import VisitorOf

router = APIRouter(route_class=PageRoute)

PAGE = 50


@router.get("/audit")
async def changes(
    request: Request,
    _: VisitorOf,
    who: Annotated[str, Query(max_length=200)] = "",
    action: Annotated[str, Query(max_length=100)] = "",
    subject: Annotated[str, Query(max_length=500)] = "",
    before: Annotated[int | None, Query(ge=1)] = None,
) -> Any:
    """The latest changes that meet the conditions."""
    found = await read(
        parts_of(request),
        lambda c: audit.entries(
            c,
            who=who or None,
            action=action or None,
            subject=subject or None,
            before=before,
            limit=PAGE,
        ),
    )
    return render(
        request,
        "audit.html",
        entries=found,
        following=found[-1].id if len(found) == PAGE else None,
        chosen={"who": who, "action": action, "subject": subject},
    )
