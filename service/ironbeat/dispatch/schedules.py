"""Schedules as the application sees them: what code declares, and fires made by hand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from ironbeat import database
from ironbeat.runs.model import Message
from ironbeat.schedules import declared, imports, planner, store
from ironbeat.submission import BROKER_ERRORS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Declared:
    """What an import of declared schedules did.

    ``notes`` and ``refused``: what was lost of entries of an adopted application's
    ``beat_schedule``, and which of them could not be translated, by name.
    """

    done: declared.Imported
    notes: Mapping[str, Sequence[str]]
    refused: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What was taken over from another scheduler's tables.

    ``added`` are new, ``present`` were left alone as a schedule of that name is there already;
    ``notes`` and ``refused`` as :class:`Declared` has them.
    """

    added: Sequence[str]
    present: Sequence[str]
    notes: Mapping[str, Sequence[str]]
    refused: Mapping[str, str]


def import_declared(app: Any) -> Declared:
    """Bring in the schedules that code declares: the platform's, the workloads', the application's.

    An adopted application declares its own in ``beat_schedule``. Raises
    :class:`ironbeat.schedules.definition.DefinitionError`, having changed nothing, when a
    declaration is wrong or names a task that does not exist.
    """
    app.loader.import_default_modules()
    context = app.ironbeat
    specs = {workload.name: list(workload.schedules) for workload in context.workloads}
    found = imports.from_beat_schedule(app.conf.beat_schedule or {}, timezone=str(app.timezone))
    if found.specs:
        specs.setdefault(app.main or "application", []).extend(found.specs)
    with database.connection(_url(app)) as connection:
        done = declared.bring_in(
            connection, specs, timezone=context.settings.timezone, tasks=app.tasks
        )
    return Declared(done, found.notes, found.refused)


def take_over_django(app: Any, url: str | None = None, *, dry_run: bool = False) -> TakenOver:
    """Add the schedules of django-celery-beat's tables as the operator's own.

    ``url`` is the Django project's database (default: Ironbeat's own); it is only read. May be
    repeated. Raises :class:`ironbeat.schedules.imports.ImportProblem`.
    """
    app.loader.import_default_modules()
    timezone = app.ironbeat.settings.timezone
    found = imports.from_django(url or _url(app), timezone=timezone)
    notes = {name: list(lost) for name, lost in found.notes.items()}
    for spec in found.specs:
        if spec.task not in app.tasks:
            notes.setdefault(spec.name, []).append(f"no task is named {spec.task!r} here")
    with database.connection(_url(app)) as connection:
        if dry_run:
            there = {each.name for each in store.listing(connection)}
            added = [spec.name for spec in found.specs if spec.name not in there]
            present = [spec.name for spec in found.specs if spec.name in there]
        else:
            added, present = imports.take_over(connection, found, timezone=timezone)
    return TakenOver(added, present, notes, found.refused)


def run_now(app: Any, name: str) -> str:
    """Run a schedule's task now, whatever its policies; returns the run's id.

    Its next fires stay as they are. Raises :class:`ironbeat.schedules.store.ScheduleNotFound`.
    """
    with database.connection(_url(app)) as connection:
        made = planner.fire_now(connection, name, lambda task: queue_of(app, task))
    _publish(app, made)
    return made[0][0]


def backfill(
    app: Any, name: str, since: datetime, until: datetime, *, limit: int = planner.LIMIT
) -> list[str]:
    """Make the runs of all slots in ``[since, until)`` that never had one; returns their ids.

    Raises :class:`ironbeat.schedules.store.ScheduleNotFound`, and :class:`ValueError` when the
    range holds more slots than ``limit`` or reaches into the future.
    """
    with database.connection(_url(app)) as connection:
        made = planner.backfill(
            connection, name, since, until, lambda task: queue_of(app, task), limit=limit
        )
    _publish(app, made)
    return [id for id, _ in made]


def queue_of(app: Any, task: str) -> str:
    """The queue of a task whose schedule names none."""
    route = app.amqp.router.route({}, task, (), {}, app.tasks.get(task))
    queue = route.get("queue")
    return cast("str", getattr(queue, "name", queue) or app.conf.task_default_queue)


def _publish(app: Any, made: Sequence[tuple[str, Message]]) -> None:
    """Hand committed runs to the broker; what it does not take stays in the outbox."""
    submission = app.ironbeat.submission
    if not made or not submission.use_broker or submission.breaker.open:
        return
    try:
        app.ironbeat.publish(made)
    except BROKER_ERRORS as error:
        submission.breaker.trip()
        logger.warning("%s runs wait in the outbox: %s", len(made), error)
        return
    submission.recorder.published([id for id, _ in made])


def _url(app: Any) -> str:
    return cast("str", app.ironbeat.settings.database_url.get_secret_value())
