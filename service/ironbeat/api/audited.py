"""Changes that programs make over HTTP, in the audit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import Request

from ironbeat import database
from ironbeat.access import audit
from ironbeat.access.audit import Actor
from ironbeat.api.parts import parts_of
from ironbeat.observability.masking import masked

# What the ledger itself tells of: a run that was submitted.
_TOLD_ELSEWHERE = {"submit"}
_THINGS = {"schedules": "schedule", "runs": "run", "dead letters": "dead"}


async def audited(request: Request) -> AsyncIterator[None]:
    """Dependency: what a request changes is written down before, and how that went after."""
    route = request.scope["route"]
    verb = route.endpoint.__name__
    body = await _body(request)
    if request.method in ("GET", "HEAD") or verb in _TOLD_ELSEWHERE or body.get("dry_run"):
        yield
        return
    parts = parts_of(request)
    url = parts.settings.database_url.get_secret_value()
    actor: Actor = request.state.actor
    subject = str(next(iter(request.path_params.values()), None) or body.get("name") or "")
    action = f"{_THINGS.get(str(route.tags[0]), 'api') if route.tags else 'api'}.{verb}"

    def begin() -> int:
        with database.connection(url) as connection:
            return audit.begin(connection, actor, action, subject, masked(body))

    def complete(outcome: str) -> None:
        with database.connection(url) as connection:
            audit.complete(connection, entry, outcome)

    entry = await parts.run(begin)
    try:
        yield
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        await parts.run(lambda: complete(told))
        raise
    await parts.run(lambda: complete(audit.DONE))


async def _body(request: Request) -> Mapping[str, Any]:
    """The request's JSON object; empty for anything else, which the handler refuses better."""
    try:
        found = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
