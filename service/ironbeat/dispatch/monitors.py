"""CeleryMonitor and RQMonitor: how either side is doing, in the words of those who ask.

The figures come from the ledger, the leases and the brokers' own lists. Nothing is broadcast: a
worker that is busy, or gone, answers no question, and its lease has said what it was doing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import redis

from ironbeat import database
from ironbeat.dispatch.manager import TaskManager
from ironbeat.dispatch.purging import purge_queue
from ironbeat.execution import deliveries
from ironbeat.execution.rq_carrier import PREFIX, carries, own_name
from ironbeat.runs.model import Filters, LedgerUnavailable, State
from ironbeat.watch.fleet import Fleet, Worker, read_fleet
from ironbeat.watch.queues import read_queues
from ironbeat.watch.stores import broker

LISTED_AT_MOST = 1000
_WAITING: tuple[State, ...] = ("pending", "published", "retrying")


class _Monitor:
    def __init__(self, app: Any = None) -> None:
        self.tasks = TaskManager(app)
        self.app = self.tasks.app
        self._settings = self.app.ironbeat.settings

    def _fleet(self) -> Fleet:
        with database.connection(self._settings.database_url.get_secret_value()) as connection:
            return read_fleet(connection)

    def get_queue_length(self, queue: str) -> int:
        """How many messages wait in one queue, all its priorities together."""
        with broker(self._settings) as client:
            [found] = read_queues(client, [queue])
        return found.length

    def purge_queue(self, queue: str) -> int:
        """Take everything that waits out of this one queue; returns how many.

        Raises :class:`ironbeat.dispatch.purging.QueueNotFound`.
        """
        purged = purge_queue(self.app, queue)
        return max(purged.messages, purged.runs)

    def cancel_task(self, id: str) -> str:
        """Cancel a run; one that is executing is interrupted. As :meth:`TaskManager.cancel`."""
        return self.tasks.cancel(id)

    def get_task_info(self, id: str) -> dict[str, Any]:
        """``task_id, state, result, traceback, info`` of a run.

        ``state`` is the ledger's; ``info`` is what a running task last said of itself, and of an
        ended one its error or reason. Raises :class:`ironbeat.runs.model.RunNotFound`.
        """
        run = self.tasks.status(id)
        return {
            "task_id": run.id,
            "state": run.state,
            "result": run.result,
            "traceback": run.traceback,
            "info": (run.error or run.reason) if run.ended else run.progress,
        }


class CeleryMonitor(_Monitor):
    """Celery's side."""

    def get_worker_stats(self, queue: str | None = None) -> dict[str, Any]:
        """What the workers are and do; with ``queue``, those that consume from it.

        ``active_workers`` is their number; ``registered_tasks`` the names that any of them knows;
        ``active_tasks`` what is being executed; ``scheduled_tasks`` what waits for its time;
        ``reserved_tasks`` the ids that workers have taken and not begun.
        """
        live = [
            worker
            for worker in self._fleet().live_workers
            if queue is None or queue in worker.queues
        ]
        active = [_active(worker) for worker in live]
        running = {each["id"] for several in active for each in several}
        return {
            "active_workers": len(live),
            "registered_tasks": sorted({task for worker in live for task in worker.tasks}),
            "active_tasks": [each for several in active for each in several],
            "scheduled_tasks": self._scheduled(),
            "reserved_tasks": [id for id in self._held() if id not in running],
        }

    def _scheduled(self) -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        found = self.tasks.ledger.find(Filters(states=_WAITING, limit=LISTED_AT_MOST))
        return [
            {"id": run.id, "task": run.task, "eta": run.eta.isoformat()}
            for run in found
            if run.eta is not None and run.eta > now and not carries(run.queue)
        ]

    def _held(self) -> list[str]:
        with broker(self._settings) as client:
            return deliveries.held(client, limit=LISTED_AT_MOST)

    def health_check(self) -> dict[str, Any]:
        """``status`` ``healthy`` with ``active_workers`` and ``worker_names``, else the ``reason``.

        Never raises: what cannot be reached is the reason.
        """
        try:
            live = self._fleet().live_workers
        except (psycopg.Error, LedgerUnavailable, OSError):
            return {"status": "unhealthy", "reason": "the database does not answer"}
        if not live:
            return {"status": "unhealthy", "reason": "no active workers"}
        try:
            with broker(self._settings) as client:
                client.ping()
        except (redis.RedisError, OSError):
            return {"status": "unhealthy", "reason": "the broker does not answer"}
        return {
            "status": "healthy",
            "active_workers": len(live),
            "worker_names": [worker.name for worker in live],
        }


class RQMonitor(_Monitor):
    """RQ's side; its queues are named as Celery's are, or with ``rq:`` before the name."""

    def get_queue_length(self, queue: str) -> int:
        """How many jobs wait in one queue of RQ's."""
        return super().get_queue_length(PREFIX + own_name(queue))

    def purge_queue(self, queue: str) -> int:
        """Take everything that waits out of this one queue of RQ's; returns how many."""
        return super().purge_queue(PREFIX + own_name(queue))

    def get_queue_stats(self, queue: str = "metadata_queue") -> dict[str, int]:
        """``queue_length``, ``failed_jobs`` (that RQ still keeps) and ``worker_count`` (alive)."""
        name = PREFIX + own_name(queue)
        counts = self.app.ironbeat.rq.counts(name)
        workers = [w for w in self._fleet().rq_workers if w.alive and name in w.queues]
        return {
            "queue_length": counts.waiting,
            "failed_jobs": counts.failed,
            "worker_count": len(workers),
        }


def _active(worker: Worker) -> list[dict[str, Any]]:
    return [
        {
            "id": execution.id,
            "task": execution.task,
            "worker": worker.name,
            "since": execution.since.isoformat() if execution.since else None,
        }
        for execution in worker.running
    ]
