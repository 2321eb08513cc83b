"""Schedules as an outside monitor has to know them."""

from __future__ import annotations

from ironbeat import database
from ironbeat.observability.sentry import Monitored
from ironbeat.schedules import cadence
from ironbeat.settings import get_settings

_DEFINITION = "SELECT kind, expression, timezone FROM ironbeat.schedules WHERE name = %s"


def monitored(name: str) -> Monitored | None:
    """When the schedule with this name fires; ``None`` when there is none (any more)."""
    with database.connection() as connection:
        row = connection.execute(_DEFINITION, (name,)).fetchone()
    if row is None:
        return None
    kind, expression, timezone = row
    period = cadence.interval(expression).total_seconds() if kind == "interval" else None
    return Monitored(kind, expression, timezone, period, get_settings().task_time_limit)
