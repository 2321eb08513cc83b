"""Schedules as the application sees them: what code declares, and fires made by hand."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from ironbeat import database
from ironbeat.runs.model import Message
from ironbeat.schedules import declared, planner
from ironbeat.submission import BROKER_ERRORS

logger = logging.getLogger(__name__)


def import_declared(app: Any) -> declared.Imported:
    """Bring the schedules of the platform and of every workload switched on into the database.

    Raises :class:`ironbeat.schedules.definition.DefinitionError`, having changed nothing, when a
    declaration is wrong or names a task that does not exist.
    """
    app.loader.import_default_modules()
    context = app.ironbeat
    with database.connection(_url(app)) as connection:
        return declared.bring_in(
            connection,
            {workload.name: workload.schedules for workload in context.workloads},
            timezone=context.settings.timezone,
            tasks=app.tasks,
        )


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
