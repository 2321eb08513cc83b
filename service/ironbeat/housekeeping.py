"""The platform's own workload: its tasks and schedules."""

from __future__ import annotations

from typing import Any

import structlog
from celery import shared_task

from ironbeat import database
from ironbeat.access import audit
from ironbeat.runs import pruning
from ironbeat.settings import get_settings
from ironbeat.workload import Queue, ScheduleSpec, Workload

workload = Workload(
    name="platform",
    tasks=("ironbeat.housekeeping",),
    queues=(Queue("default"),),
    schedules=(
        ScheduleSpec(
            name="ironbeat-prune-daily",
            task="ironbeat.prune",
            cron="10 4 * * *",
            expires=6 * 3600,
            catch_up="latest",
        ),
    ),
)

logger = structlog.get_logger(__name__)


@shared_task(name="ironbeat.prune")
def prune(days: int | None = None) -> dict[str, Any]:
    """Make the history's coming partitions and drop what is older than ``days``."""
    kept = days if days is not None else get_settings().history_days
    report = pruning.prune(days=kept)
    with database.connection() as connection:
        report["audit"] = audit.prune(connection, get_settings().audit_days)
    logger.info("history pruned", action="prune", **report)
    return report


@shared_task(name="ironbeat.echo")
def echo(message: str) -> dict[str, Any]:
    """Answer with the message: `ironbeat test` sends it through broker, worker and back."""
    return {"message": message}
