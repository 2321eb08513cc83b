"""How the suite is doing: read from PostgreSQL and Redis directly, never asked of the workers.

:func:`check_health` answers in under a second whatever hangs; :func:`status` and :func:`report`
answer an operator's questions with plain dataclasses, which :func:`plain` turns into JSON.
"""

from __future__ import annotations

from ironbeat.watch.backlog import Backlog
from ironbeat.watch.course import Step
from ironbeat.watch.fleet import Beat, Execution, Fleet, Process, Worker
from ironbeat.watch.health import Health, HealthCheck, check_health
from ironbeat.watch.limits import Limit
from ironbeat.watch.outcomes import Between, Failure, Outcomes, Running, Spread
from ironbeat.watch.punctuality import Punctuality, Schedule
from ironbeat.watch.queues import Broker, Queue, Waiting
from ironbeat.watch.report import QueueStatus, Report, Status, plain, report, status

__all__ = [
    "Backlog",
    "Beat",
    "Between",
    "Broker",
    "Execution",
    "Failure",
    "Fleet",
    "Health",
    "HealthCheck",
    "Limit",
    "Outcomes",
    "Process",
    "Punctuality",
    "Queue",
    "QueueStatus",
    "Report",
    "Running",
    "Schedule",
    "Spread",
    "Status",
    "Step",
    "Waiting",
    "Worker",
    "check_health",
    "plain",
    "report",
    "status",
]
