"""What an application needs of the platform: settings, workloads, ledger, submission."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from celery import Celery

from ironbeat.capacity import Capacity, Marks
from ironbeat.execution import bootsteps, publishing, results
from ironbeat.execution.membership import Membership
from ironbeat.execution.rq_carrier import PREFIX, RQCarrier, carries
from ironbeat.execution.task_scheduler import BrokerProbe, Fallback, TaskScheduler
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Message
from ironbeat.runs.recorder import Recorder
from ironbeat.settings import Settings, queue_caps
from ironbeat.submission import Submission
from ironbeat.workload import Workload

# What stands in the JSON text of every message for RQ, and hardly in another.
_OF_RQ = f'"{PREFIX}'
DISPATCHER = "ironbeat.execution.events:EventDispatcher"


class Context:
    """The platform's side of one application; its attribute ``ironbeat``."""

    def __init__(self, app: Celery, settings: Settings, found: Sequence[Workload]) -> None:
        self.app = app
        self.settings = settings
        self.workloads = tuple(found)
        url = settings.database_url.get_secret_value()
        self.ledger = Ledger(url, lease_seconds=settings.lease_seconds)
        self.recorder = Recorder(self.ledger)
        #: What is done when PostgreSQL has returned, by its kind.
        self.postponed = {results.CHORD_PART: lambda part: app.backend.count_part(part)}
        self._workload_of: dict[str, str] = {}
        self.rq = RQCarrier(settings)
        self.capacity = Capacity(
            _caps(settings, found),
            Marks(settings.broker_backlog, settings.broker_memory_percent),
            self.ledger,
            self._broker if settings.use_redis else None,
        )
        self.submission = Submission(
            self.ledger,
            self.recorder,
            self.workload_of,
            capacity=self.capacity,
            rq=self.rq,
            use_broker=settings.use_redis,
        )
        app.loader.override_backends = results.BACKENDS | app.loader.override_backends
        app.events.dispatcher_cls = DISPATCHER
        app.steps["worker"].update({Membership, Fallback})
        bootsteps.install(app)

    def _broker(self) -> Any:
        """A client of the broker, whose waits are bounded."""
        return self.app.connection_for_write().default_channel.client

    def watch_broker(self) -> None:
        """Keep this process from waiting for a broker that is gone: ask it on a thread of its own.

        For programs that publish all the time. A worker has its
        :class:`~ironbeat.execution.task_scheduler.TaskScheduler` anyway.
        """
        if self.settings.use_redis and self.app.connection_for_write().transport.driver_type == (
            "redis"
        ):
            TaskScheduler(BrokerProbe(self.app), self.submission.breaker).start()

    def workload_of(self, task: str) -> str:
        """The name of the workload that a task belongs to; empty for anybody else's."""
        found = self._workload_of.get(task)
        if found is None:
            registered = self.app.tasks.get(task)
            module = getattr(registered, "__module__", "") if registered is not None else ""
            found = next((w.name for w in self.workloads if w.holds(module)), "")
            self._workload_of[task] = found
        return found

    def publish(self, messages: Sequence[tuple[str, Message | str]]) -> None:
        """Hand messages of the ledger, as values or as JSON text, to the broker, pipelined.

        Raises one of :data:`ironbeat.submission.BROKER_ERRORS` when the broker does not take them;
        it may have taken some.
        """
        for_celery = self._to_rq(messages)
        if for_celery:
            with self.app.producer_or_acquire() as producer:
                publishing.put(producer, for_celery)

    def publish_first(self, messages: Sequence[tuple[str, Message | str]]) -> None:
        """:meth:`publish` messages that have waited already, in front of those that have not.

        Marks them as published. Raises as that does, and :class:`LedgerUnavailable`.
        """
        if not messages:
            return
        for_celery = self._to_rq(messages)
        if for_celery:
            with self.app.producer_or_acquire() as producer:
                publishing.put(producer, for_celery, first=True)
        self.ledger.mark_published([id for id, _ in messages])

    def _to_rq(self, messages: Sequence[tuple[str, Message | str]]) -> list[Message | str]:
        """Hand RQ those that it carries; returns the others."""
        for_rq: list[tuple[str, Message | str]] = []
        others: list[Message | str] = []
        for id, message in messages:
            if _goes_to_rq(message):
                for_rq.append((id, message))
            else:
                others.append(message)
        if for_rq:
            self.rq.publish(for_rq)
        return others


def _goes_to_rq(message: Message | str) -> bool:
    """Whether RQ carries a message, as a value or as JSON text, which is opened only if it may."""
    if isinstance(message, str):
        return _OF_RQ in message and carries(orjson.loads(message)["routing_key"])
    return carries(message["routing_key"])


def _caps(settings: Settings, found: Sequence[Workload]) -> dict[str, int]:
    """How many runs may wait in each queue, 0 for any number; the setting wins."""
    declared = {q.name: q.max_length for w in found for q in w.queues if q.max_length is not None}
    return declared | queue_caps(settings.queue_limits)
