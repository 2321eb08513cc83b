"""The dashboard's routes, put onto the API's application."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from ironbeat.api.dashboard import (
    changes,
    letters,
    overview,
    queues,
    runs,
    schedule_forms,
    schedules,
    signing,
    workloads,
)

STATIC = Path(__file__).parent / "static"


class _Static(StaticFiles):
    """Files that browsers may keep: their addresses carry the version."""

    def file_response(self, *arguments, **options):
        answer = super().file_response(*arguments, **options)
        answer.headers["Cache-Control"] = "public, max-age=86400"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer


def install(app: FastAPI) -> None:
    """Add the pages to ``app``, whose ``state.parts`` they use."""
    # A schedule's name is all the rest of a path: its page comes after its form.
    for module in (
        *(signing, overview, schedule_forms, schedules),
        *(runs, letters, queues, workloads, changes),
    ):
        app.include_router(module.router, include_in_schema=False)
    app.mount("/static", _Static(directory=STATIC), name="static")
