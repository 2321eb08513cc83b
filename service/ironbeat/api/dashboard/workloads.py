"""The workloads: their own pages, and the ratio of those that RQ may carry, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from fastapi import APIRouter, Request
from psycopg.rows import dict_row

from ironbeat.access import audit
from ironbeat.api.dashboard.overview import read, status_of
from ironbeat.api.dashboard.pages import PageRoute, redirect, render
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.problems import Problem
from ironbeat.api.visitors import OperatorOf, VisitorOf, form_of
from ironbeat.dispatch.ratio import StoredRatio
from ironbeat.execution.rq_carrier import PREFIX
from ironbeat.watch.report import enabled_workloads
from ironbeat.workload import Workload

router = APIRouter(route_class=PageRoute)

# A page for people that a workload's router may have, under /api/NAME.
PAGE_ROUTE = "/page"

_CARRIED = """
SELECT starts_with(queue, %(prefix)s) AS by_rq, count(*) AS ended,
       count(*) FILTER (WHERE state IN ('failed', 'dead')) AS failed,
       avg(extract(epoch FROM ended_at - started_at))::float8 AS mean
FROM (SELECT queue, state, started_at, ended_at FROM ironbeat.run_history
      WHERE ended_at > statement_timestamp() - interval '1 hour' AND workload = %(workload)s
      LIMIT 50000) AS latest
GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A workload on the page. ``ratio``: its share for Celery, ``None`` where RQ has no part."""

    workload: Workload
    page: str | None
    ratio: float | None
    waiting: Mapping[str, int]
    carried: Mapping[str, Mapping[str, Any]]


@router.get("/workloads")
async def workloads(request: Request, _: VisitorOf, told: str = "") -> Any:
    """Every workload that runs, and those that do not, with the reason."""
    parts = parts_of(request)
    seen = await status_of(parts)
    lengths = {queue.name: queue.length or 0 for queue in seen.queues}
    paths = _paths(request)

    def look(connection: psycopg.Connection[Any]) -> list[Shown]:
        return [
            _shown(parts, connection, each, lengths, paths)
            for each in enabled_workloads(parts.settings)[0]
        ]

    return render(
        request,
        "workloads.html",
        shown=await read(parts, look),
        off=seen.off,
        told=told[:20],
    )


@router.post("/workloads/{name}/ratio")
async def set_ratio(request: Request, name: str, who: OperatorOf) -> Any:
    """Set the share that goes to Celery; the rest goes to RQ."""
    parts, form = parts_of(request), await form_of(request)
    if name not in {each.name for each in enabled_workloads(parts.settings)[0] if each.rq}:
        raise Problem(404, f"RQ carries nothing of a workload {name!r}.")
    try:
        wanted = float(form.get("ratio", ""))
    except ValueError:
        raise Problem(422, "The ratio is a share from 0 to 1.") from None
    url = parts.settings.database_url.get_secret_value()

    def work() -> None:
        with audit.noted(url, who.actor, "ratio.set", name, {"ratio": wanted}) as note:
            note.detail["before"] = _ratio(parts, name).set(wanted)

    try:
        await parts.run(work)
    except ValueError as error:
        raise Problem(422, str(error)) from None
    return redirect("/workloads", told="ratio")


def _ratio(parts: Parts, name: str) -> StoredRatio:
    otherwise = 1.0 if parts.settings.use_celery else 0.0
    return StoredRatio(name, otherwise, parts.settings.database_url.get_secret_value())


def _shown(
    parts: Parts,
    connection: psycopg.Connection[Any],
    workload: Workload,
    lengths: Mapping[str, int],
    paths: set[str],
) -> Shown:
    page = f"/api/{workload.name}{PAGE_ROUTE}"
    if not workload.rq:
        return Shown(workload, page if page in paths else None, None, {}, {})
    with connection.cursor(row_factory=dict_row) as cursor:
        parameters = {"prefix": PREFIX, "workload": workload.name}
        rows = cursor.execute(_CARRIED, parameters).fetchall()
    carried = {"rq" if row["by_rq"] else "celery": row for row in rows}
    names = [queue.name for queue in workload.queues]
    waiting = {
        "celery": sum(lengths.get(name, 0) for name in names),
        "rq": sum(lengths.get(PREFIX + name, 0) for name in names),
    }
    ratio = _ratio(parts, workload.name).read()
    return Shown(workload, page if page in paths else None, ratio, waiting, carried)


def _paths(request: Request) -> set[str]:
    """The paths that the API answers, as its documentation has them."""
    return set(request.app.openapi()["paths"])
