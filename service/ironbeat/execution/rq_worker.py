"""A worker of RQ's that runs Ironbeat's tasks: under a lease, through the guard, into the ledger.

It is RQ's own worker, which forks a child (the *horse*) for each job, waits for it and ends it when
it takes too long. What it adds: a lease, so that a worker that was killed is noticed in seconds and
its runs move; cancellation; and the execution itself, which is Celery's tracer, so that results,
progress, links, chains and chords are those of a task that Celery's worker ran.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import psutil
import psycopg
import redis
from celery import signals, states
from celery.app.trace import build_tracer, setup_worker_optimizations, trace_task
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps as kombu_dumps
from rq import Worker as RQWorker
from rq.serializers import JSONSerializer
from sqlalchemy.exc import SQLAlchemyError

import ironbeat
from ironbeat import database
from ironbeat.execution import rq_carrier, runtime
from ironbeat.execution.custody import BROKER_ERRORS
from ironbeat.execution.interruption import Cancelled
from ironbeat.heap import settle
from ironbeat.runs import suspicion
from ironbeat.runs.guard import Guard
from ironbeat.runs.leases import Holder, Lease
from ironbeat.runs.model import LedgerUnavailable
from ironbeat.runs.outbox import Outbox
from ironbeat.runs.recorder import Recorder

logger = logging.getLogger(__name__)

KIND = "rq"
# A horse that was asked to stop and goes on for so long is killed.
INSIST_SECONDS = 10.0
# What RQ was given so long ago and nobody began is looked for.
STRAY_SECONDS = 60.0
STRAYS_EVERY_SECONDS = 30.0
STRAYS_AT_ONCE = 1000
# What was taken over is due after a second.
INHERITED_SECONDS = 1.1
INHERITED_LOOKS = 3
_PR_SET_PDEATHSIG = 1

_app: Any = None
_name = ""


class JobFailed(Exception):
    """A task failed; the ledger has its traceback. Raised so that RQ counts the job as failed."""


class Worker(RQWorker):
    """RQ's worker under a lease of the platform's."""

    #: Whoever preloads something for forked children looks for this (signal ``worker_init``).
    forks = True

    def __init__(self, app: Any, queues: Sequence[str], name: str) -> None:
        platform = app.ironbeat
        settings = platform.settings
        super().__init__(
            [rq_carrier.own_name(queue) for queue in queues],
            name=name,
            connection=rq_carrier.connect(settings),
            default_result_ttl=settings.rq_result_ttl,
            serializer=JSONSerializer,
        )
        self._app = app
        self._platform = platform
        self._ledger = platform.ledger
        self._process = psutil.Process()
        self._running: tuple[str, str, float] | None = None
        self._asked: dict[str, float] = {}
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self.lease = Lease(
            KIND,
            name,
            [rq_carrier.PREFIX + queue for queue in self.queue_names()],
            info=self._info,
            on_cancel=self._cancel,
            heir=self._inherit,
            inherits=(KIND,),
            each=self._look_for_strays,
            url=settings.database_url.get_secret_value(),
            lease_seconds=settings.lease_seconds,
            renew_seconds=settings.lease_renew_seconds,
        )
        self._runtime = runtime.Runtime(
            ledger=platform.ledger,
            guard=Guard(platform.ledger, self.lease.id, name),
            recorder=Recorder(platform.ledger),
            poison_limit=settings.poison_limit,
        )

    def run(self, *, burst: bool = False) -> None:
        """Take jobs until told to stop: at once when idle, else when the job under way has ended.

        ``burst``: until the queues are empty.
        """
        install(self._app, self._runtime, self.name)
        signals.worker_init.send(sender=self)
        self.lease.start()
        # What is asked of a server once, its children need not ask again.
        url = self._platform.settings.database_url.get_secret_value()
        with contextlib.suppress(psycopg.Error, SQLAlchemyError), database.connection(url):
            pass
        # Children that collect garbage would copy the pages of all that is loaded.
        settle()
        try:
            self.work(burst=burst, logging_level=None)
        finally:
            self._runtime.stopping = True
            self.lease.stop()

    # -- one job ----------------------------------------------------------------------------------

    def execute_job(self, job: Any, queue: Any) -> None:
        """Have a job run in a child."""
        with self._lock:
            self._running = _run_of(job), job.description or "", time.time()
        try:
            super().execute_job(job, queue)
        finally:
            with self._lock:
                self._running = None
                self._asked.pop(_run_of(job), None)

    def setup_work_horse_signals(self) -> None:
        """As RQ's; a cancellation interrupts, and nobody survives the worker that waits for it."""
        super().setup_work_horse_signals()
        signal.signal(signal.SIGUSR1, _interrupt)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def handle_work_horse_killed(self, job: Any, retpid: Any, ret_val: Any, rusage: Any) -> None:
        """A child ended without a word: count it, and let the run begin anew or end."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)
        seconds = time.time() - (self._running[2] if self._running else time.time())
        id = _run_of(job)
        try:
            if id in self._asked:
                self._ledger.end([id], "cancelled", "cancelled while running", running=True)
            elif seconds > float(job.timeout or rq_carrier.DEFAULT_TIMEOUT_SECONDS):
                error = f"it took more than {job.timeout} s and did not end by itself"
                self._ledger.end([id], "failed", None, error=error, running=True)
            else:
                self._ledger.release_crashed(id, lease=self.lease.id)
                self._ledger.publish_again([id])
        except LedgerUnavailable as error:
            logger.warning("the end of run %s is settled when the lease lapses: %s", id, error)

    # -- the lease's thread -----------------------------------------------------------------------

    def _info(self) -> dict[str, Any]:
        """What the monitors show of this worker."""
        with self._lock:
            running = self._running
        with self._process.oneshot():
            rss = self._process.memory_info().rss
            cpu = self._process.cpu_percent()
        if running and self.horse_pid:
            with contextlib.suppress(psutil.Error):
                rss = max(rss, psutil.Process(self.horse_pid).memory_info().rss)
        return {
            "rss_mb": round(rss / 2**20, 1),
            "cpu_pct": cpu,
            "concurrency": 1,
            "running": [
                {"id": id, "task": what.partition("(")[0], "since": since}
                for id, what, since in ([running] if running else [])
            ],
            "tasks": sorted(n for n in self._app.tasks if not n.startswith("celery.")),
            "version": ironbeat.__version__,
            "consumed": self.successful_job_count + self.failed_job_count,
        }

    def _cancel(self, ids: list[str]) -> None:
        """Interrupt the run of this worker that somebody asked to stop; insist after a while."""
        with self._lock:
            running, horse = self._running, self.horse_pid
        if running is None or running[0] not in ids or not horse:
            return
        first = self._asked.setdefault(running[0], time.monotonic())
        patient = time.monotonic() - first < INSIST_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.kill(horse, signal.SIGUSR1 if patient else signal.SIGKILL)

    def _inherit(self, dead: Holder, runs: dict[str, int], connection: object) -> None:
        """A worker of RQ's died: its runs are in the outbox again; what kills workers is buried."""
        limit = self._runtime.poison_limit
        poisonous = [id for id, crashes in runs.items() if crashes >= limit]
        if poisonous:
            reason = suspicion.died_of_it(limit)
            self._ledger.end(poisonous, "dead", reason, error=reason)
        # Not in the lease's own thread: a broker that hangs must not keep it from renewing.
        threading.Thread(target=self._publish_inherited, name="inheritance", daemon=True).start()

    def _publish_inherited(self) -> None:
        """Publish what was taken over as soon as it is due; a beat may be far, or away."""
        outbox = Outbox(self._ledger, self._platform.publish)
        for _ in range(INHERITED_LOOKS):
            time.sleep(INHERITED_SECONDS)
            try:
                outbox.sweep()
            except (LedgerUnavailable, OperationalError, *BROKER_ERRORS) as error:
                logger.warning("what was taken over is published by a beat: %s", error)
                return

    def _look_for_strays(self, connection: psycopg.Connection[Any]) -> None:
        """Publish again what RQ was given and no longer has.

        A worker may die between taking a job and beginning it, and RQ then counts it as failed.
        """
        if time.monotonic() - self._looked_at < STRAYS_EVERY_SECONDS:
            return
        self._looked_at = time.monotonic()
        for queue in self.lease.queues:
            found = self._ledger.waiting_since(queue, STRAY_SECONDS, limit=STRAYS_AT_ONCE)
            try:
                strays = self._platform.rq.strays(queue, found) if found else []
            except (redis.RedisError, OSError) as error:
                logger.warning("not looked for strays: %s", error)
                return
            if strays:
                logger.warning("%s runs that RQ no longer has are published again", len(strays))
                self._ledger.publish_again([id for id, _, _ in strays])


def install(app: Any, active: runtime.Runtime, name: str) -> None:
    """Let :func:`perform` run tasks of ``app`` in this process and those forked from it."""
    global _app, _name
    _app, _name = app, name
    # Without it a task's own `__call__` would run under a request other than the tracer's.
    setup_worker_optimizations(app, name)
    app.ironbeat.submission.recorder = active.recorder
    runtime.install(active)
    # What is made before a fork is there in every child. Making the result backend and its client
    # takes longer than a short task; it connects where it is used.
    _ = app.backend.client
    for task in app.tasks.values():
        task.__trace__ = build_tracer(task.name, task, app.loader, name, app=app)


def perform(message: Mapping[str, Any]) -> Any:
    """What every job calls: run the task whose message this is.

    Returns what the task returned. Raises :class:`JobFailed` when it failed for good; a retry is
    already in the ledger then, as is the outcome.
    """
    headers = dict(message["headers"])
    args, kwargs, embed = message["body"]
    id, name = headers["id"], headers["task"]
    active = runtime.current()
    if _app is None or active is None:
        raise RuntimeError("this job is for the workers that `ironbeat rq-worker` starts")
    task = _app.tasks.get(name)
    if task is None:
        error = f"no task is named {name!r} in this worker"
        active.ledger.end([id], "failed", None, error=error)
        raise JobFailed(error)
    properties = message.get("properties") or {}
    request = headers | (embed or {})
    request |= {
        "args": args,
        "kwargs": kwargs,
        "hostname": _name,
        "is_eager": False,
        "reply_to": properties.get("reply_to"),
        "correlation_id": id,
        "delivery_info": {
            "exchange": "",
            "routing_key": message["routing_key"],
            "priority": properties.get("priority"),
            "redelivered": False,
        },
    }
    try:
        traced = trace_task(task, id, args, kwargs, request, app=_app)
    except Cancelled:
        return {"cancelled": True}
    finally:
        with contextlib.suppress(LedgerUnavailable):
            active.recorder.flush()
    state = traced.info.state if traced.info is not None else states.SUCCESS
    if state == states.FAILURE:
        raise JobFailed(str(getattr(traced.retval, "exception", traced.retval)))
    if state != states.SUCCESS:
        return {"state": state}
    return _plain(traced.retval)


def _run_of(job: Any) -> str:
    """The id of the run that a job is an attempt of."""
    try:
        return str(job.args[0]["headers"]["id"])
    except (LookupError, TypeError, ValueError):
        return str(job.id)


def _plain(value: Any) -> Any:
    """A task's result as RQ's JSON can say it; Celery's knows more kinds of values."""
    try:
        return orjson.loads(orjson.dumps(value))
    except TypeError:
        return orjson.loads(kombu_dumps(value))


def _interrupt(_signum: int, _frame: Any) -> None:
    raise Cancelled
