"""Errors and schedule check-ins for Sentry, when ``SENTRY_DSN`` is set; else nothing is imported.

Sentry's own Celery integration is not used: it patches the very methods that the guard and the
submission stand on, and costs every task. Celery's signals tell the same. Nothing here makes a task
wait: the SDK sends from a thread, and so are check-ins prepared.

A check-in's id is made from its run's, so that a copy of a run, or the end of a run that another
worker began, meets the same check-in.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal
from uuid import NAMESPACE_URL, uuid5

from ironbeat.observability import context
from ironbeat.observability.masking import Masker, masked, secrets_of
from ironbeat.settings import Settings, get_settings

if TYPE_CHECKING:
    from sentry_sdk._types import Event, Hint

logger = logging.getLogger(__name__)

CheckInStatus = Literal["in_progress", "ok", "error"]

FLUSH_SECONDS = 2.0
# A schedule's definition is read again after so long.
DEFINITION_SECONDS = 300.0
# Sentry takes six check-ins a minute of one monitor; failures are always told.
LEAST_SECONDS_BETWEEN = 25.0
WAITING_AT_MOST = 1000
LONGEST_SLUG = 50

# What the task signals tell, and what the worker's own failure report repeats.
_IGNORED_LOGGERS = ("celery.app.trace", "celery.worker.job", "celery.worker.request")
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True, slots=True)
class Monitored:
    """When a schedule fires, as Sentry has to know it. ``period_seconds`` is that of an interval;
    ``limit_seconds`` is how long its task may run."""

    kind: str
    expression: str
    timezone: str
    period_seconds: float | None = None
    limit_seconds: float = 900.0


Lookup = Callable[[str], "Monitored | None"]


def configure(
    program: str,
    settings: Settings | None = None,
    *,
    integrations: tuple[Any, ...] = (),
) -> bool:
    """Start reporting errors, if a DSN is set; whether one is."""
    settings = settings or get_settings()
    if settings.sentry_dsn is None or not settings.sentry_dsn.get_secret_value():
        return False
    import sentry_sdk
    from sentry_sdk.integrations.logging import LoggingIntegration, ignore_logger

    from ironbeat import __version__

    if sentry_sdk.is_initialized():
        return True
    for name in _IGNORED_LOGGERS:
        ignore_logger(name)
    sentry_sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        release=f"ironbeat@{__version__}",
        integrations=[
            # Breadcrumbs of every INFO line would cost each task; warnings tell the story.
            LoggingIntegration(level=logging.WARNING, event_level=logging.ERROR),
            *integrations,
        ],
        auto_enabling_integrations=False,
        send_default_pii=False,
        # A frame's variables may hold a sensitive argument in the clear.
        include_local_variables=False,
        shutdown_timeout=FLUSH_SECONDS,
        before_send=_scrubber(settings),
    )
    sentry_sdk.set_tag("program", program)
    return True


def hook_celery(lookup: Lookup | None = None, settings: Settings | None = None) -> None:
    """Report failures of tasks and, given the ``lookup`` of schedules by name, their check-ins.

    Does nothing without a DSN.
    """
    settings = settings or get_settings()
    if settings.sentry_dsn is None or not settings.sentry_dsn.get_secret_value():
        return
    from celery import signals

    program = next((word for word in sys.argv[1:] if word in ("worker", "beat")), "celery")
    configure(program, settings)
    signals.task_failure.connect(_failed, weak=False, dispatch_uid="ironbeat-sentry-failure")
    if lookup is not None:
        check_ins = CheckIns(lookup)
        signals.task_prerun.connect(
            check_ins.begun, weak=False, dispatch_uid="ironbeat-sentry-begun"
        )
        signals.task_postrun.connect(
            check_ins.ended, weak=False, dispatch_uid="ironbeat-sentry-ended"
        )
        # Handlers run in the order of their connection: what is drained is then flushed.
        for signal in (signals.worker_shutdown, signals.worker_process_shutdown):
            signal.connect(check_ins.drain, weak=False, dispatch_uid="ironbeat-sentry-drain")
    for signal in (signals.worker_shutdown, signals.worker_process_shutdown):
        signal.connect(flush, weak=False, dispatch_uid="ironbeat-sentry-flush")


def _failed(exception: BaseException | None = None, **_: Any) -> None:
    """Report a task's final failure, with what every log line tells of the run."""
    import sentry_sdk

    if exception is None:
        return
    about = context.current()
    with sentry_sdk.new_scope() as scope:
        for name in ("task", "run_id", "schedule", "workload", "worker", "attempt"):
            if about.get(name) is not None:
                scope.set_tag(name, about[name])
        if "task" in about:
            scope.set_transaction_name(about["task"])
        sentry_sdk.capture_exception(exception)


def flush(**_: Any) -> None:
    """Send what waits, for a bounded time; for those who end abruptly. Nothing without a DSN."""
    sdk = sys.modules.get("sentry_sdk")
    if sdk is not None and sdk.is_initialized():
        sdk.flush(FLUSH_SECONDS)


def _scrubber(settings: Settings) -> Callable[[Event, Hint], Event | None]:
    masker = Masker(secrets_of(settings))

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return masker(value)
        if isinstance(value, Mapping):
            return {key: clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner) for inner in value]
        return value

    def scrub(event: Event, hint: Hint) -> Event | None:
        scrubbed: Event = clean(masked(event, depth=12))
        return scrubbed

    return scrub


@dataclass(frozen=True, slots=True)
class _Told:
    schedule: str
    run_id: str
    status: CheckInStatus
    seconds: float | None = None


class CheckIns:
    """Tells Sentry when a schedule's run begins and how it ends, from a thread of its own."""

    def __init__(self, lookup: Lookup):
        self._lookup = lookup
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._waiting: SimpleQueue[_Told | threading.Event] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._definitions: dict[str, tuple[float, Monitored | None]] = {}
        self._last_told: dict[str, float] = {}
        self._untold: set[str] = set()
        self._began: dict[str, float] = {}

    def begun(self, task: Any = None, task_id: str | None = None, **_: Any) -> None:
        """Signal ``task_prerun``."""
        schedule = schedule_of(task)
        if schedule is None or task_id is None:
            return
        self._began[task_id] = time.monotonic()
        if not task.request.retries:
            self._put(_Told(schedule, task_id, "in_progress"))

    def ended(
        self, task: Any = None, task_id: str | None = None, state: str | None = None, **_: Any
    ) -> None:
        """Signal ``task_postrun``; a run that will be retried is still in progress."""
        schedule = schedule_of(task)
        if schedule is None or task_id is None:
            return
        began = self._began.pop(task_id, None)
        seconds = None if began is None else time.monotonic() - began
        if state == "SUCCESS":
            self._put(_Told(schedule, task_id, "ok", seconds))
        elif state == "FAILURE":
            self._put(_Told(schedule, task_id, "error", seconds))

    def drain(self, **_: Any) -> None:
        """Hand what waits to the SDK, for a bounded time: the process is about to end."""
        if self._thread is not None:
            handed = threading.Event()
            self._waiting.put(handed)
            handed.wait(FLUSH_SECONDS)

    def _put(self, told: _Told) -> None:
        if self._waiting.qsize() >= WAITING_AT_MOST:
            return
        self._waiting.put(told)
        if self._thread is None and self._starting.acquire(blocking=False):
            try:
                if self._thread is None:
                    thread = threading.Thread(
                        target=self._tell, name="ironbeat-check-ins", daemon=True
                    )
                    thread.start()
                    self._thread = thread
            finally:
                self._starting.release()

    def _tell(self) -> None:
        while True:
            told = self._waiting.get()
            if isinstance(told, threading.Event):
                told.set()
                continue
            try:
                self._send(told)
            except Exception as error:
                logger.warning("check-in of %s not sent: %s", told.schedule, error)

    def _send(self, told: _Told) -> None:
        from sentry_sdk.crons import capture_checkin

        definition = self._definition(told.schedule)
        config = monitor_config(definition) if definition is not None else None
        if config is None:
            return
        if self._too_often(told):
            return
        capture_checkin(
            monitor_slug=slug(told.schedule),
            check_in_id=uuid5(NAMESPACE_URL, f"ironbeat:{told.run_id}").hex,
            status=told.status,
            duration=told.seconds,
            monitor_config=config,  # type: ignore[arg-type]
        )

    def _too_often(self, told: _Told) -> bool:
        """Whether this run of a frequent schedule is left out; its failure never is."""
        now = time.monotonic()
        if told.status == "in_progress":
            if now - self._last_told.get(told.schedule, -math.inf) < LEAST_SECONDS_BETWEEN:
                self._untold.add(told.run_id)
                return True
            self._last_told[told.schedule] = now
            return False
        left_out = told.run_id in self._untold
        self._untold.discard(told.run_id)
        return left_out and told.status == "ok"

    def _definition(self, schedule: str) -> Monitored | None:
        read_at, definition = self._definitions.get(schedule, (-math.inf, None))
        if time.monotonic() - read_at > DEFINITION_SECONDS:
            definition = self._lookup(schedule)
            self._definitions[schedule] = (time.monotonic(), definition)
        return definition


def schedule_of(task: Any) -> str | None:
    """The name of the schedule whose run a task executes; ``None`` where somebody asked for it."""
    request = task.request
    header = vars(request).get("ironbeat") or (request.headers or {}).get("ironbeat")
    schedule = header.get("schedule") if isinstance(header, Mapping) else None
    return schedule if isinstance(schedule, str) and schedule else None


def slug(name: str) -> str:
    """The monitor's slug for a schedule: its name, if Sentry allows it, else one made from it."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")
    if plain == name and len(plain) <= LONGEST_SLUG:
        return plain
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{plain[: LONGEST_SLUG - 9].strip('-')}-{digest}".lstrip("-")


def monitor_config(definition: Monitored) -> dict[str, Any] | None:
    """What Sentry has to know of a schedule; ``None`` for one that fires once.

    Sentry counts in minutes: what fires more often is expected once a minute, and an interval of
    broken minutes at the next whole one.
    """
    schedule = _sentry_schedule(definition)
    if schedule is None:
        return None
    return {
        "schedule": schedule,
        "timezone": definition.timezone,
        "checkin_margin": 60 if definition.kind == "solar" else 2,
        "max_runtime": max(1, math.ceil(definition.limit_seconds / 60)),
        "failure_issue_threshold": 1,
        "recovery_threshold": 1,
    }


def _sentry_schedule(definition: Monitored) -> dict[str, Any] | None:
    if definition.kind == "cron":
        expression = _NICKNAMES.get(definition.expression, definition.expression)
        fields = expression.split()
        if len(fields) == 6:
            # The seconds come first; Sentry has none.
            fields = fields[1:]
        return {"type": "crontab", "value": " ".join(fields)}
    if definition.kind == "interval" and definition.period_seconds is not None:
        minutes = max(1, math.ceil(definition.period_seconds / 60))
        return {"type": "interval", "value": minutes, "unit": "minute"}
    if definition.kind == "solar":
        return {"type": "interval", "value": 1, "unit": "day"}
    return None
