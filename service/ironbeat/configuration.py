"""The configuration of the platform's Celery application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celery import Celery
from kombu import Queue as KombuQueue

from ironbeat.settings import Settings
from ironbeat.workload import Workload


def configure(app: Celery, settings: Settings, found: Sequence[Workload]) -> None:
    """The application's configuration: reliable rather than fast where the two differ."""
    queues = {queue.name: queue for workload in found for queue in workload.queues}
    app.conf.update(
        broker_url=settings.broker_url.get_secret_value(),
        result_backend=settings.result_backend.get_secret_value(),
        include=[module for workload in found for module in workload.tasks],
        task_queues=[
            KombuQueue(queue.name, routing_key=queue.routing_key or queue.name)
            for queue in queues.values()
        ],
        task_default_queue="default",
        task_routes={
            task: {"queue": route} if isinstance(route, str) else dict(route)
            for workload in found
            for task, route in workload.task_routes.items()
        },
        task_annotations=_time_limits(found, settings),
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        enable_utc=True,
        timezone=settings.timezone,
        task_acks_late=settings.task_acks_late,
        task_reject_on_worker_lost=settings.task_reject_on_worker_lost,
        task_acks_on_failure_or_timeout=True,
        task_track_started=True,
        task_send_sent_event=True,
        worker_send_task_events=True,
        worker_prefetch_multiplier=settings.worker_prefetch_multiplier,
        task_soft_time_limit=settings.task_soft_time_limit,
        task_time_limit=settings.task_time_limit,
        task_publish_retry_policy={
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.2,
        },
        result_expires=settings.result_expires or None,
        broker_connection_timeout=settings.broker_timeout_seconds,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # Of consumers that renew nothing; a worker's deliveries have a lease_timeout instead.
            "visibility_timeout": 3600,
            "socket_connect_timeout": 2,
            "socket_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "max_retries": 1,
            "interval_start": 0,
            "interval_max": 0.2,
        },
        redis_socket_connect_timeout=settings.broker_timeout_seconds,
        redis_socket_timeout=settings.broker_timeout_seconds,
        redis_backend_health_check_interval=10,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        beat_scheduler="ironbeat.schedules.beat:Scheduler",
    )


def _time_limits(found: Sequence[Workload], settings: Settings) -> list[Any]:
    defaults = {
        "soft_time_limit": settings.task_soft_time_limit,
        "time_limit": settings.task_time_limit,
    }
    return [_WorkloadLimits(w, defaults) for w in found if w.soft_time_limit or w.time_limit]


class _WorkloadLimits:
    """A Celery annotation: a workload's time limits for its tasks that set none."""

    def __init__(self, workload: Workload, defaults: Mapping[str, int]) -> None:
        self._workload = workload
        # Celery has given them to each task that sets none before it asks for annotations.
        self._defaults = defaults

    def annotate(self, task: Any) -> dict[str, Any] | None:
        # Celery hands over the task's class.
        if not self._workload.holds(task.__module__):
            return None
        limits = {
            "soft_time_limit": self._workload.soft_time_limit,
            "time_limit": self._workload.time_limit,
        }
        return {
            name: value
            for name, value in limits.items()
            if value is not None and getattr(task, name, None) in (None, self._defaults[name])
        }

    def annotate_any(self) -> dict[str, Any] | None:
        return None


def bounded(seconds: float) -> dict[str, Any]:
    """Transport options of a connection that gives up after ``seconds``."""
    return {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "socket_keepalive": True,
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.1,
        "connect_retries_timeout": seconds,
    }
