"""Changes that programs make over HTTP, in the audit.

Every route under ``/api`` with a changing method is audited, the workloads' too, unless its tags
say :data:`TAKES_DATA`. A test goes through all of them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import Depends, Request

from ironbeat import database
from ironbeat.access import audit
from ironbeat.access.audit import Actor
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.visitors import address_of

#: Tag of a route that takes data in (messages, recordings) and changes nothing that was set.
TAKES_DATA = "takes data"

READING = frozenset({"GET", "HEAD", "OPTIONS"})
SUBMIT = "run.submit"
# The one whose body may ask for a preview. Elsewhere the word in a body means nothing.
_BACKFILL = "schedule.backfill"
# The ledger keeps a run's arguments, encrypted where they are sensitive; the audit has its id.
_IN_THE_LEDGER = frozenset({"args", "kwargs"})
_THINGS = {"schedules": "schedule", "runs": "run", "dead letters": "dead"}


class Audited:
    """Dependency: what a request changes is written down before, and how that went after.

    ``thing`` begins the names of the actions; without it the route's first tag says it.
    """

    def __init__(self, thing: str | None = None) -> None:
        self._thing = thing

    async def __call__(self, request: Request) -> AsyncIterator[None]:
        """Let the request pass, between its two notes."""
        told: dict[str, Any] = {}
        request.state.audit_detail = told
        parts, route = parts_of(request), request.scope["route"]
        if request.method in READING or TAKES_DATA in route.tags:
            yield
            return
        body = await _body(request)
        action = f"{self._of(route)}.{route.endpoint.__name__}"
        unwanted = action == SUBMIT and not parts.settings.audit_submissions
        if unwanted or (action == _BACKFILL and body.get("dry_run") is True):
            yield
            return
        entry = await parts.run(lambda: self._begin(request, parts, action, body))
        try:
            yield
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
            await parts.run(lambda: _complete(parts, entry, outcome, told))
            raise
        await parts.run(lambda: _complete(parts, entry, audit.DONE, told))

    def _of(self, route: Any) -> str:
        return self._thing or (_THINGS.get(str(route.tags[0]), "api") if route.tags else "api")

    @staticmethod
    def _begin(request: Request, parts: Parts, action: str, body: Mapping[str, Any]) -> int:
        # Who came by a guard of the route's own is not known here.
        actor = getattr(request.state, "actor", Actor("unknown", "api", address_of(request)))
        named = next(iter(request.path_params.values()), None)
        subject = str(named or body.get("name") or body.get("task") or "")
        detail = parts.mask.within(
            {name: value for name, value in body.items() if name not in _IN_THE_LEDGER}
            if action == SUBMIT
            else body
        )
        with database.connection(parts.settings.database_url.get_secret_value()) as connection:
            return audit.begin(connection, actor, action, subject, detail)


def detail_of(request: Request) -> dict[str, Any]:
    """Dependency: what a handler puts in here stands in the audit's entry, too."""
    found: dict[str, Any] = request.state.audit_detail
    return found


Detail = Annotated[dict[str, Any], Depends(detail_of)]


def _complete(parts: Parts, entry: int, outcome: str, detail: Mapping[str, Any]) -> None:
    with database.connection(parts.settings.database_url.get_secret_value()) as connection:
        audit.complete(connection, entry, outcome, detail)


async def _body(request: Request) -> Mapping[str, Any]:
    """The request's JSON object; empty for anything else, which the handler refuses better."""
    try:
        found = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
