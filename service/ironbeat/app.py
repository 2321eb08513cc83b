"""The Celery application, and `adopt` for one that exists already.

:func:`create_app` builds the platform's application from the settings and the enabled workloads.
:func:`adopt` gives an existing application the same abilities and leaves its tasks, names and
configuration as they are: both work by the mixin :class:`Platform`, which puts two hooks in place.
Every task message passes :mod:`ironbeat.submission` on its way out, and every execution passes
:mod:`ironbeat.execution.attempt` on its way in.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

import orjson
from celery import Celery
from celery.app.amqp import AMQP
from kombu import Queue as KombuQueue
from kombu.utils.imports import symbol_by_name

from ironbeat import workload as workloads
from ironbeat.execution import sealing, transport
from ironbeat.execution.attempt import guarded, retrying
from ironbeat.execution.membership import Membership
from ironbeat.observability import logs, sentry
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Message
from ironbeat.runs.recorder import Recorder
from ironbeat.schedules.monitored import monitored
from ironbeat.settings import Settings, get_settings
from ironbeat.submission import SENDING, Sending, Submission

logger = logging.getLogger(__name__)

PLATFORM = workloads.Workload(
    name="platform",
    tasks=("ironbeat.housekeeping",),
    queues=(workloads.Queue("default"),),
    schedules=(
        workloads.ScheduleSpec(
            name="ironbeat-prune-daily",
            task="ironbeat.prune",
            cron="10 4 * * *",
            expires=6 * 3600,
            catch_up="latest",
        ),
    ),
)

A = TypeVar("A", bound=Celery)


class SubmittingAMQP(transport.WithOurConnections, AMQP):
    """Celery's sender of task messages publishing through the platform's submission, and the
    platform's transport for Redis.
    """

    def _create_task_sender(self) -> Any:
        send = super()._create_task_sender()
        submission = self.app.ironbeat.submission

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            return send(submission.producer(producer), name, message, **options)

        return send_task_message


class Context:
    """What an application needs of the platform: settings, workloads, ledger, submission."""

    def __init__(
        self, app: Celery, settings: Settings, found: Sequence[workloads.Workload]
    ) -> None:
        self.app = app
        self.settings = settings
        self.workloads = tuple(found)
        url = settings.database_url.get_secret_value()
        self.ledger = Ledger(url, lease_seconds=settings.lease_seconds)
        self.recorder = Recorder(self.ledger)
        self._workload_of: dict[str, str] = {}
        self.submission = Submission(
            self.ledger, self.recorder, self.workload_of, use_broker=settings.use_redis
        )
        app.steps["worker"].add(Membership)

    def workload_of(self, task: str) -> str:
        """The name of the workload that a task belongs to; empty for anybody else's."""
        found = self._workload_of.get(task)
        if found is None:
            registered = self.app.tasks.get(task)
            module = getattr(registered, "__module__", "") if registered is not None else ""
            found = next((w.name for w in self.workloads if _covers(w, module)), "")
            self._workload_of[task] = found
        return found

    def publish(self, messages: Sequence[tuple[str, Message | str]]) -> None:
        """Hand messages of the ledger, as values or as JSON text, to the broker, pipelined.

        Raises one of :data:`ironbeat.submission.BROKER_ERRORS` when the broker does not take them;
        it may have taken some.
        """
        with self.app.producer_or_acquire() as producer, producer.batch():
            for _, found in messages:
                message = orjson.loads(found) if isinstance(found, str) else found
                producer.publish(
                    message["body"],
                    exchange=message.get("exchange") or "",
                    routing_key=message["routing_key"],
                    headers=message["headers"],
                    serializer="json",
                    retry=False,
                    **message.get("properties") or {},
                )


def _covers(workload: workloads.Workload, module: str) -> bool:
    return any(
        module == name or module.startswith(name.rsplit(".", 1)[0] + ".") for name in workload.tasks
    )


class Platform(Celery):
    """The two hooks. Used as a base class, and mixed into the class of an adopted application."""

    ironbeat: Context
    amqp_cls = f"{__name__}:SubmittingAMQP"

    def send_task(
        self, name: str, args: Any = None, kwargs: Any = None, *more: Any, **options: Any
    ) -> Any:
        """As Celery's, plus ``durable=True``: committed to the ledger before it is published.

        Arguments that the task declares ``sensitive`` are sealed.
        """
        task = options.get("task_type") or self._tasks.get(name)
        durable = options.pop("durable", None)
        if durable is None:
            durable = getattr(task, "durable", False)
        if sealing.names_of(task):
            args, kwargs, options["argsrepr"], options["kwargsrepr"] = sealing.seal(
                task, args, kwargs
            )
        sending = SENDING.get()
        token = SENDING.set(
            Sending(
                durable=bool(durable) or sending.durable,
                has_own_id=bool(options.get("task_id")),
                capture=sending.capture,
            )
        )
        try:
            return super().send_task(name, args, kwargs, *more, **options)
        finally:
            SENDING.reset(token)

    def connection_for_write(self, url: str | None = None, *args: Any, **options: Any) -> Any:
        """As Celery's, but no wait on a broker that hangs or refuses is longer than a setting."""
        limits = bounded(self.ironbeat.settings.broker_timeout_seconds)
        options["transport_options"] = limits | (options.get("transport_options") or {})
        return super().connection_for_write(url, *args, **options)

    def _task_from_fun(
        self, fun: Any, name: str | None = None, base: Any = None, **options: Any
    ) -> Any:
        task = super()._task_from_fun(fun, name=name, base=base, **options)
        guard_task(task)
        return task

    def register_task(self, task: Any, **options: Any) -> Any:
        """As Celery's; the task passes the guard."""
        registered = super().register_task(task, **options)
        guard_task(registered)
        return registered

    def _get_backend(self) -> Any:
        backend = super()._get_backend()
        # Subscribing to a result at submission costs a round trip and hangs with the backend;
        # whoever waits for the result subscribes then, and reads the state first.
        backend.on_task_call = _subscribe_later
        return backend


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


def _subscribe_later(producer: Any, task_id: str) -> None:
    """Nothing to do at submission."""


def guard_task(task: Any) -> None:
    """Put the guard in front of a task's class, once."""
    cls = type(task)
    if not getattr(cls.__call__, "__ironbeat_guarded__", False):
        cls.__call__ = guarded(cls.__call__)
        cls.retry = retrying(cls.retry)
    # Celery would store STARTED before the guard can tell a copy; the attempt does it itself.
    if task.track_started is not False:
        task.tracks_start = bool(
            task.track_started
            if task.track_started is not None
            else task.app.conf.task_track_started
        )
        task.track_started = False


def create_app(settings: Settings | None = None) -> Platform:
    """The platform's application with every enabled workload's tasks, queues and routes."""
    settings = settings or get_settings()
    found = (PLATFORM, *workloads.discover(enabled_names(settings)))
    app = Platform("ironbeat", set_as_current=False)
    configure(app, settings, found)
    app.ironbeat = Context(app, settings, found)
    app.set_default()
    app.set_current()
    logs.hook_celery()
    sentry.hook_celery(monitored, settings)
    return app


def enabled_names(settings: Settings) -> list[str] | None:
    """The workloads switched on by the setting; ``None`` for all that are installed."""
    names = [name.strip() for name in settings.workloads.split(",") if name.strip()]
    return names or None


def configure(app: Celery, settings: Settings, found: Sequence[workloads.Workload]) -> None:
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
            task: {"queue": queue}
            for workload in found
            for task, queue in workload.task_routes.items()
        },
        task_annotations=_time_limits(found),
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        enable_utc=True,
        timezone=settings.timezone,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=True,
        task_track_started=True,
        task_send_sent_event=True,
        worker_send_task_events=True,
        worker_prefetch_multiplier=1,
        task_soft_time_limit=600,
        task_time_limit=900,
        task_publish_retry_policy={
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.2,
        },
        result_expires=3600,
        broker_connection_timeout=2,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": 60,
            "socket_connect_timeout": 2,
            "socket_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "queue_order_strategy": "priority",
            "max_retries": 1,
            "interval_start": 0,
            "interval_max": 0.2,
        },
        redis_socket_connect_timeout=2,
        redis_socket_timeout=5,
        redis_backend_health_check_interval=10,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        beat_scheduler="ironbeat.schedules.beat:Scheduler",
    )


def _time_limits(found: Sequence[workloads.Workload]) -> list[Any]:
    return [_WorkloadLimits(w) for w in found if w.soft_time_limit or w.time_limit]


class _WorkloadLimits:
    """A Celery annotation: a workload's time limits for its tasks that set none."""

    def __init__(self, workload: workloads.Workload) -> None:
        self._workload = workload

    def annotate(self, task: Any) -> dict[str, Any] | None:
        if not _covers(self._workload, type(task).__module__):
            return None
        limits = {
            "soft_time_limit": self._workload.soft_time_limit,
            "time_limit": self._workload.time_limit,
        }
        return {k: v for k, v in limits.items() if v is not None and getattr(task, k, None) is None}

    def annotate_any(self) -> dict[str, Any] | None:
        return None


def adopt(app: A, settings: Settings | None = None) -> A:
    """Give an existing Celery application the ledger, the guard and the platform's commands.

    Its tasks, names, queues and configuration stay as they are. Call it once, where the application
    is made, in workers and in submitting processes alike. Returns the same application.
    """
    if isinstance(app, Platform):
        return app
    settings = settings or get_settings()
    cls = type(app)
    app.__class__ = type(f"Adopted{cls.__name__}", (Platform, cls), {"__doc__": cls.__doc__})
    app.__dict__.pop("amqp", None)
    app.amqp_cls = Platform.amqp_cls
    app.loader.import_task_module("ironbeat.housekeeping")
    names = enabled_names(settings)
    found = workloads.discover(names) if names else ()
    app.ironbeat = Context(app, settings, (PLATFORM, *found))
    for task in list(app._tasks.values()):
        guard_task(task)
    if "backend" in app.__dict__:
        del app.__dict__["backend"]
    return app


@lru_cache(maxsize=1)
def current_app() -> Platform:
    """The application of this process, made on first use.

    The setting ``app`` names one's own; it is adopted here unless it adopts itself. Raises
    :class:`ironbeat.workload.WorkloadError` when it cannot be imported or is no application.
    """
    settings = get_settings()
    if not settings.app:
        return create_app(settings)
    try:
        found = symbol_by_name(settings.app)
    except Exception as error:
        raise workloads.WorkloadError(
            f"IRONBEAT_APP={settings.app} cannot be imported ({error!r}); name it as "
            "package.module:attribute, and see that it is installed or on PYTHONPATH"
        ) from error
    if not isinstance(found, Celery):
        raise workloads.WorkloadError(
            f"IRONBEAT_APP={settings.app} is a {type(found).__name__}, not a Celery application"
        )
    return cast("Platform", adopt(found, settings))
