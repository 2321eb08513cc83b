"""The HTTP application, put together."""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import HTMLResponse

from ironbeat import __version__, database
from ironbeat.api import dashboard, dead, pages, probes, problems, runs, schedules, watching
from ironbeat.api.audited import Audited
from ironbeat.api.envelope import Envelope
from ironbeat.api.parts import Parts
from ironbeat.api.security import Guard
from ironbeat.api.server import end_with_parent
from ironbeat.heap import settle
from ironbeat.observability import logs, sentry
from ironbeat.observability.metrics import get_metrics
from ironbeat.settings import Settings, get_settings
from ironbeat.watch.exposition import Exposition
from ironbeat.watch.report import enabled_workloads
from ironbeat.workload import Workload

logger = logging.getLogger(__name__)

DESCRIPTION = """\
Everything but `/health` and `/metrics` wants the token: `Authorization: Bearer TOKEN`. Times are \
ISO 8601 with an offset. Errors are `application/problem+json`."""


def create_api(settings: Settings | None = None) -> FastAPI:
    """The application with the platform's routes and those of the enabled workloads."""
    settings = settings or get_settings()
    app = FastAPI(
        title="Ironbeat",
        version=__version__,
        description=DESCRIPTION,
        # The standard pages load scripts from elsewhere; ours need none.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
    )
    guard = Guard(settings)
    parts = app.state.parts = Parts(settings)
    exposition = Exposition(settings, connect=parts.kept.database)
    app.state.registries = probes.registries_of(exposition)
    problems.install(app)
    schedules.install_problems(app)
    app.include_router(probes.router, dependencies=[Depends(guard.token_or_monitor)])
    guarded = [Depends(guard.token)]
    for router in (watching.router, runs.router, dead.router, schedules.router):
        app.include_router(router, prefix="/api", dependencies=[*guarded, Depends(Audited())])
    for workload in enabled_workloads(settings)[0]:
        found = _router_of(workload)
        if found is not None:
            noted = [*guarded, Depends(Audited(workload.name))]
            app.include_router(found, prefix=f"/api/{workload.name}", dependencies=noted)
    _add_documentation(app, guard)
    dashboard.install(app)
    app.add_middleware(
        Envelope,
        max_body=settings.api_max_body_bytes,
        seconds=float(settings.api_timeout),
        metrics=get_metrics(),
    )
    return app


def serve_api() -> FastAPI:
    """The application of one server process, with its logs and error reports set up."""
    from sentry_sdk.integrations.fastapi import FastApiIntegration
    from sentry_sdk.integrations.starlette import StarletteIntegration

    end_with_parent()
    settings = get_settings()
    logs.configure("api", settings=settings, replace=False)
    logging.getLogger("uvicorn.access").addFilter(_worth_a_line)
    sentry.configure("api", settings, integrations=(StarletteIntegration(), FastApiIntegration()))
    app = create_api(settings)
    app.state.prepared = settle
    return app


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Not the probes that went well, of which there is one every few seconds."""
    try:
        _, _, path, _, status = record.args  # type: ignore[misc]
        return not (status == 200 and path in ("/health", "/metrics"))
    except (TypeError, ValueError):
        return True


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.parts.prepare(then=getattr(app.state, "prepared", None))
    yield
    app.state.parts.kept.close()
    database.dispose()


def _router_of(workload: Workload) -> APIRouter | None:
    if workload.router is None:
        return None
    module, _, attribute = workload.router.partition(":")
    try:
        router = getattr(importlib.import_module(module), attribute or "router")
        if not isinstance(router, APIRouter):
            raise TypeError(f"{workload.router} is a {type(router).__name__}, not an APIRouter")
    except Exception:
        # One workload's mistake must not take health and the others' routes away.
        logger.exception("the routes of workload %s are left out", workload.name)
        return None
    return router


def _add_documentation(app: FastAPI, guard: Guard) -> None:
    guarded = [Depends(guard.token)]

    @app.get("/openapi.json", include_in_schema=False, dependencies=guarded)
    async def schema() -> dict[str, object]:
        return app.openapi()

    @app.get("/docs", include_in_schema=False, dependencies=guarded)
    async def documentation() -> HTMLResponse:
        return HTMLResponse(pages.documentation(app.openapi()), headers=pages.HEADERS)
