"""The Celery application, and `adopt` for one that exists already.

:func:`create_app` builds the platform's application from the settings and the enabled workloads.
:func:`adopt` gives an existing application the same abilities and leaves its tasks, names and
configuration as they are: both work by the mixin :class:`Platform`, which puts two hooks in place.
Every task message passes :mod:`ironbeat.submission` on its way out, and every execution passes
:mod:`ironbeat.execution.attempt` on its way in.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, TypeVar, cast

from celery import Celery
from celery import Task as StockTask
from celery.app.amqp import AMQP, Queues
from kombu import Queue
from kombu.utils.imports import symbol_by_name

from ironbeat import housekeeping
from ironbeat import workload as workloads
from ironbeat.configuration import bounded, configure
from ironbeat.context import Context
from ironbeat.execution import ledger_transport, sealing, transport
from ironbeat.execution.attempt import guarded, retrying
from ironbeat.execution.leaving import farewells
from ironbeat.execution.messages import REQUEST
from ironbeat.execution.results import LedgerBackend
from ironbeat.execution.rq_carrier import carries
from ironbeat.observability import heartbeat, logs, sentry
from ironbeat.schedules.monitored import monitored
from ironbeat.settings import Settings, get_settings
from ironbeat.submission import SENDING, Sending

logger = logging.getLogger(__name__)

A = TypeVar("A", bound=Celery)


class KnownQueues(Queues):
    """Celery's queues; one of RQ's may be named, and does not become one that workers consume."""

    def __missing__(self, name: str) -> Any:
        if carries(name):
            return Queue(name, exchange=self.default_exchange, routing_key=name)
        return super().__missing__(name)


class SubmittingAMQP(transport.WithOurConnections, AMQP):
    """Celery's sender of task messages publishing through the platform's submission, and the
    platform's transport for Redis.
    """

    queues_cls = KnownQueues

    def _create_task_sender(self) -> Any:
        send = super()._create_task_sender()
        submission = self.app.ironbeat.submission

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            return send(submission.producer(producer), name, message, **options)

        return send_task_message


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

    def connection_for_read(self, url: str | None = None, *args: Any, **options: Any) -> Any:
        """As Celery's; to the ledger where there is no broker, whatever the environment names."""
        return super().connection_for_read(url or self._ledger_url(), *args, **options)

    def _ledger_url(self) -> str | None:
        return None if self.ironbeat.settings.use_redis else ledger_transport.URL

    def connection_for_write(self, url: str | None = None, *args: Any, **options: Any) -> Any:
        """As Celery's, but no wait on a broker that hangs or refuses is longer than a setting."""
        url = url or self._ledger_url()
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
        if not self.ironbeat.settings.use_redis:
            # The environment's name for it would win over the configuration.
            return LedgerBackend(app=self)
        backend = super()._get_backend()
        # Subscribing to a result at submission costs a round trip and hangs with the backend;
        # whoever waits for the result subscribes then, and reads the state first.
        backend.on_task_call = _subscribe_later
        return backend


def _subscribe_later(producer: Any, task_id: str) -> None:
    """Nothing to do at submission."""


def guard_task(task: Any) -> None:
    """Put the guard in front of a task's class, once."""
    cls = type(task)
    if not getattr(cls.__call__, "__ironbeat_guarded__", False):
        cls.__call__ = guarded(cls.__call__)
        cls.retry = retrying(cls.retry)
        if cls.Request == StockTask.Request:
            cls.Request = REQUEST
    # Celery would store STARTED before the guard can tell a copy; the attempt does it itself.
    if task.track_started is not False:
        task.tracks_start = bool(
            task.track_started
            if task.track_started is not None
            else task.app.conf.task_track_started
        )
        task.track_started = False


def create_app(settings: Settings | None = None) -> Platform:
    """The platform's application with every enabled workload's tasks, queues and routes.

    The task modules are imported, so that a submission of an unknown task, or with arguments that
    do not fit, is refused where it is made. Raises :class:`ironbeat.workload.WorkloadError`.
    """
    settings = settings or get_settings()
    found = (housekeeping.workload, *workloads.discover(settings.enabled_workloads))
    app = Platform("ironbeat", set_as_current=False)
    configure(app, settings, found)
    app.ironbeat = Context(app, settings, found)
    app.set_default()
    app.set_current()
    logs.hook_celery()
    sentry.hook_celery(monitored, settings)
    heartbeat.hook_celery(settings)
    if _last_words not in farewells:
        farewells.append(_last_words)
    try:
        app.loader.import_default_modules()
    except Exception as error:
        raise workloads.WorkloadError(f"the tasks cannot be imported: {error!r}") from error
    return app


def _last_words() -> None:
    """Write what was logged and reported: a worker that leaves at once must still say why."""
    sentry.flush()
    logs.flush()


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
    names = settings.enabled_workloads
    found = workloads.discover(names) if names else ()
    app.ironbeat = Context(app, settings, (housekeeping.workload, *found))
    heartbeat.hook_celery(settings)
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
