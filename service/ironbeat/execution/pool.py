"""The pool ``ironbeat``: tasks run on the worker's own main thread, one at a time.

A process a worker, with supervisord above it, is simpler than a parent with children and several
times as fast, since a message and its result cross no pipe. What a child process would give is done
by two threads and a timer:

* Control commands (``ping``, ``revoke``, ``stats``, …) are answered by a thread of their own while
  a task runs.
* The soft time limit is a timer's signal, which raises ``SoftTimeLimitExceeded`` in the task.
* A watchdog records a task that reaches its hard limit as failed, gives back what was fetched but
  not begun, and ends the process; supervisord starts it again. It does the same when a task ignores
  its cancellation. While a task takes long, the watchdog also gives back what waits behind it and
  sends acknowledgements that are due.

A task that holds the interpreter lock in C code for long defeats all of these, as does one that
takes SIGALRM for itself. The process makes room for a fresh one by number of tasks and by memory.

Choose it with ``CELERY_CUSTOM_WORKER_POOL=ironbeat.execution.pool:TaskPool`` and
``--pool custom --concurrency 1``.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import current_task, signals
from celery.concurrency.base import BasePool
from celery.exceptions import (
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerShutdown,
    WorkerTerminate,
)
from celery.utils.log import get_logger
from celery.worker import state

from ironbeat.execution.custody import consumption, custodies
from ironbeat.execution.interruption import Abandoned, Cancelled, Interrupted
from ironbeat.execution.leaving import ExitStatus, leave
from ironbeat.execution.ledger_transport import holdings
from ironbeat.execution.limits import Recycling, TimeLimits
from ironbeat.heap import settle

logger = get_logger(__name__)

# How often the watchdog looks while tasks run, and how long it keeps looking when none does.
WATCH_SECONDS = 0.020
REST_AFTER_SECONDS = 1.0
# A task that was cancelled may clean up for so long.
GRACE_SECONDS = 5.0
MEMORY_CHECK_SECONDS = 1.0

_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


class TaskAborted(Exception):
    """A task ended by something that is no ordinary exception, such as ``sys.exit()``."""


class Job:
    """The task that runs."""

    __slots__ = (
        "armed",
        "began",
        "ended",
        "interrupted",
        "interruption",
        "interruption_at",
        "limits",
        "on_timeout",
        "request",
        "soft_expired",
        "soft_reported",
    )

    def __init__(
        self, request: Any, limits: TimeLimits, on_timeout: Callable[..., None] | None
    ) -> None:
        self.request = request
        self.limits = limits
        self.on_timeout = on_timeout
        self.began = monotonic()
        # Whether the task's own code is on the stack, so that raising in it makes sense.
        self.armed = False
        self.interruption: type[Interrupted] | None = None
        self.interruption_at = 0.0
        self.interrupted = False
        self.soft_expired = self.soft_reported = False
        # Held by whoever brings the task to its end: the main thread or the watchdog.
        self.ended = threading.Lock()

    def interrupt(self, how: type[Interrupted]) -> None:
        """Ask for the task to be ended."""
        if self.interruption is None:
            self.interruption_at = monotonic()
            self.interruption = how

    def report_soft_limit(self) -> None:
        """Say so, once, if the soft limit has passed; not in the signal handler, which may be
        called in the middle of a line that is being logged.
        """
        if self.soft_expired and not self.soft_reported:
            self.soft_reported = True
            if self.on_timeout is not None:
                self.on_timeout(True, self.limits.soft)

    @property
    def name(self) -> str:
        """The task's name and id, for people."""
        return f"{self.request.name}[{self.request.id}]" if self.request is not None else "a task"


class TaskPool(BasePool):
    """Runs each task where the message is handed over."""

    body_can_be_buffer = True
    signal_safe = True
    # Gives remote control a connection of its own, run by spawn_n().
    is_green = True

    #: See :class:`~ironbeat.execution.limits.Recycling`; seconds.
    min_age = 15.0
    min_age_by_count = 300.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        asked = kwargs.get("limit", args[0] if args else None)
        if asked not in (None, 1):
            logger.warning("a worker with this pool runs one task at a time, not %s", asked)
        self.limit = 1
        self.limits = TimeLimits(self.options.get("soft_timeout"), self.options.get("timeout"))
        self.recycling = Recycling(
            max_tasks=self.options.get("maxtasksperchild"),
            max_memory_kb=self.options.get("max_memory_per_child"),
            min_age=self.min_age,
            min_age_by_count=self.min_age_by_count,
        )
        self.hostname = (self.options.get("initargs") or (None, None))[1]
        self.tasks = 0
        self.born = monotonic()
        #: The task that runs, if one does.
        self.job: Job | None = None
        self._main = threading.get_ident()
        self._pid = os.getpid()
        self._timed = False
        self._memory_checked = monotonic()
        self._awake = threading.Event()
        self._stopped = False
        self._controls = 0
        consumption.inline = True

    # -- the pool's life -------------------------------------------------------------------------

    def on_start(self) -> None:
        """Prepare the thread that will run the tasks."""
        self._main = threading.get_ident()
        self._pid = os.getpid()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, self._on_signal)
            self._timed = True
        else:
            logger.warning("not on the main thread: no soft time limits, no cancellation")
        signals.worker_shutting_down.connect(self._on_shutting_down)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        signals.worker_process_init.send(sender=self.hostname)
        # Tests start pools on threads of a process that goes on to load other things.
        if self._timed:
            settle()

    def on_stop(self) -> None:
        """The worker stops, or leaves with a task still running."""
        if self._stopped:
            return
        self._stopped = True
        self._awake.set()
        signals.worker_process_shutdown.send(sender=self.hostname, pid=os.getpid(), exitcode=0)

    on_terminate = on_stop

    def _on_shutting_down(self, **_: Any) -> None:
        consumption.stopping = True

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        info.update(
            {
                "max-concurrency": 1,
                "processes": [os.getpid()],
                "max-tasks-per-child": self.recycling.max_tasks or "N/A",
                "put-guarded-by-semaphore": True,
                "timeouts": (self.limits.soft or 0, self.limits.hard or 0),
                "tasks": self.tasks,
            }
        )
        return info

    # -- running a task --------------------------------------------------------------------------

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = (),
        kwargs: Any = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> None:
        """Run a task to its end, and report it."""
        limits = self.limits
        if soft_timeout or timeout:
            limits = TimeLimits.of(TimeLimits(soft_timeout, timeout), limits)
        job = Job(getattr(accept_callback, "__self__", None), limits, timeout_callback)
        if kwargs:
            target = partial(target, **kwargs)
        self._take(job, target, args, accept_callback, callback, error_callback)

    def run(
        self, request: Any, target: Callable[..., Any], args: Sequence[Any], limits: TimeLimits
    ) -> None:
        """Run a request's task to its end, and report it to the request."""
        job = Job(request, limits, request.on_timeout)
        self._take(job, target, args, request.on_accepted, request.on_success, request.on_failure)

    def _take(
        self,
        job: Job,
        target: Callable[..., Any],
        args: Sequence[Any],
        accepted: Callable[..., Any] | None,
        callback: Callable[..., Any] | None,
        error_callback: Callable[..., Any] | None,
    ) -> None:
        self.job = job
        if not self._awake.is_set():
            self._awake.set()
        try:
            if accepted is not None:
                accepted(self._pid, job.began)
            if job.interruption is None:
                self._run(job, target, args, callback, error_callback)
        finally:
            self.job = None
        if current_task:
            # It was interrupted while Celery cleaned up after it.
            self._recycle("an interruption that left a task on Celery's stack")
        self.tasks += 1
        self._maybe_recycle()

    def _run(
        self,
        job: Job,
        target: Callable[..., Any],
        args: Sequence[Any],
        callback: Callable[..., Any] | None,
        error_callback: Callable[..., Any] | None,
    ) -> None:
        report = callback
        try:
            outcome = self._execute(job, target, args)
        except (WorkerShutdown, WorkerTerminate):
            raise
        except Interrupted as interruption:
            # Whoever interrupted it has said so already.
            logger.warning("%s %s", job.name, type(interruption).__name__.lower())
            state.task_ready(job.request)
            report = outcome = None
        except SoftTimeLimitExceeded:
            # It came between the task's end and our own code.
            report, outcome = error_callback, ExceptionInfo()
        except BaseException as error:
            report, outcome = error_callback, _aborted(error)
            if isinstance(error, MemoryError):
                self._recycle("out of memory")
        job.report_soft_limit()
        if not job.ended.acquire(blocking=False):
            # The watchdog has recorded this task as failed and is about to end the process.
            threading.Event().wait()
        if report is not None:
            report(outcome)

    def _execute(self, job: Job, target: Callable[..., Any], args: Sequence[Any]) -> Any:
        soft = job.limits.soft if self._timed else None
        try:
            job.armed = True
            if soft:
                signal.setitimer(signal.ITIMER_REAL, soft)
            return target(*args)
        finally:
            job.armed = False
            if soft:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Raise, in the task that runs, what it is due. On the main thread, between two steps."""
        job = self.job
        if job is None or not job.armed:
            return
        if job.interruption is not None:
            # Once: what the task does on its way out is not to be interrupted.
            if not job.interrupted:
                job.interrupted = True
                raise job.interruption
            return
        soft = job.limits.soft
        if soft and not job.soft_expired and monotonic() - job.began >= soft:
            job.soft_expired = True
            raise SoftTimeLimitExceeded(soft)

    # -- ending a task from outside --------------------------------------------------------------

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """End the task that runs; Celery's ``revoke(terminate=True)`` and cold shutdown call this.

        SIGKILL ends the process with it.
        """
        job = self.job
        if job is None:
            return
        on_main_thread = threading.get_ident() == self._main
        # A cold shutdown speaks from a signal handler, on top of the task itself. Before the task
        # has begun it is a revocation that arrived in time.
        job.interrupt(Abandoned if on_main_thread and job.armed else Cancelled)
        if signal == _SIGKILL:
            job.interruption_at -= GRACE_SECONDS
        self._nudge()

    def _nudge(self) -> None:
        if self._timed:
            signal.pthread_kill(self._main, signal.SIGALRM)

    # -- remote control --------------------------------------------------------------------------

    def spawn_n(self, loop: Callable[..., Any], consumer: Any) -> None:
        """Answer remote control on a thread, as long as ``consumer`` keeps its connection."""
        self._controls += 1
        threading.Thread(
            target=self._control, args=(self._controls, loop, consumer), name="control", daemon=True
        ).start()

    def _control(self, generation: int, loop: Callable[..., Any], consumer: Any) -> None:
        while True:
            try:
                loop(consumer)
                return
            except WorkerShutdown as request:
                state.should_stop = request.code or 0
                consumption.stopping = True
            except WorkerTerminate as request:
                state.should_terminate = request.code or 1
                consumption.stopping = True
            except Exception as error:
                logger.warning("remote control interrupted: %r", error)
            if state.should_stop is not None or state.should_terminate is not None:
                # The main thread may be waiting for messages.
                consumer.call_soon(int)
                return
            sleep(1.0)
            # With a new connection the consumer has started a new thread like this one.
            if generation != self._controls or consumer.connection is None or self._stopped:
                return

    # -- the watchdog ----------------------------------------------------------------------------

    def _watch(self) -> None:
        busy_at = monotonic()
        seen: Job | None = None
        while True:
            sleep(WATCH_SECONDS)
            job = self.job
            if job is not None:
                busy_at = monotonic()
                if job is seen:
                    self._attend(job)
            elif self._stopped:
                return
            elif monotonic() - busy_at > REST_AFTER_SECONDS:
                self._awake.clear()
                # A task that began before the clearing has not set it again.
                if self.job is None:
                    self._awake.wait()
                busy_at = monotonic()
            seen = job

    def _attend(self, job: Job) -> None:
        """Look after a task that has been running for a moment."""
        try:
            for custody in custodies():
                custody.relieve()
            holdings.relieve()
            if job.request is not None:
                consumption.hooks.on_lasting(job.request.id)
            job.report_soft_limit()
        except Exception:
            logger.exception("the watchdog stumbled")
        now = monotonic()
        if job.interruption is not None:
            if now - job.interruption_at >= GRACE_SECONDS:
                self._end_by_force(job, ExitStatus.TERMINATED)
            elif not job.interrupted:
                self._nudge()
        elif job.limits.hard and now - job.began >= job.limits.hard:
            self._end_by_force(job, ExitStatus.HARD_LIMIT)

    def _end_by_force(self, job: Job, status: ExitStatus) -> None:
        if not job.ended.acquire(blocking=False):
            return
        error: BaseException
        if status is ExitStatus.HARD_LIMIT:
            why = f"{job.name} reached its hard limit of {job.limits.hard} s"
            error = TimeLimitExceeded(job.limits.hard)
        else:
            why = f"{job.name} did not end when it was told to"
            error = Cancelled() if job.interruption is None else job.interruption()
        watchman = threading.Thread(
            target=self._record_forced_end, args=(job, status, error), daemon=True
        )
        watchman.start()
        # The result backend and the ledger may be away; the process ends nevertheless.
        watchman.join(10.0)
        leave(status, why)

    def _record_forced_end(self, job: Job, status: ExitStatus, error: BaseException) -> None:
        try:
            if job.request is not None and not isinstance(error, Abandoned):
                consumption.hooks.on_forced_end(job.request.id, error)
        except Exception:
            logger.exception("while recording the end of %s", job.name)
        try:
            if status is ExitStatus.HARD_LIMIT and job.on_timeout is not None:
                job.on_timeout(False, job.limits.hard)
        except Exception:
            logger.exception("while reporting the end of %s", job.name)

    # -- recycling -------------------------------------------------------------------------------

    def _maybe_recycle(self) -> None:
        now = monotonic()
        memory = 0
        if self.recycling.max_memory_kb and now - self._memory_checked >= MEMORY_CHECK_SECONDS:
            self._memory_checked = now
            memory = resident_kb()
        reason = self.recycling.reason(self.tasks, now - self.born, memory)
        if reason is not None:
            self._recycle(reason)

    def _recycle(self, reason: str) -> None:
        if state.should_stop is None:
            logger.info("worker makes room for a fresh one after %s", reason)
            consumption.stopping = True
            state.should_stop = int(ExitStatus.RECYCLED)


_SIGKILL = signal.SIGKILL


def resident_kb() -> int:
    """The memory that this process occupies, in KiB; 0 where it cannot be told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_KB
    except OSError:
        return 0


def _aborted(error: BaseException) -> ExceptionInfo:
    try:
        raise TaskAborted(f"the task ended with {error!r}") from error
    except TaskAborted:
        return ExceptionInfo()
