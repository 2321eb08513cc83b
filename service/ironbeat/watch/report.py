"""The structures that answer an operator's questions, for ``status``, ``report`` and the API."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

import psycopg

from ironbeat import __version__
from ironbeat.runs.deadletters import count_open
from ironbeat.settings import Settings, get_settings
from ironbeat.watch.backlog import Backlog, read_backlog
from ironbeat.watch.course import Step, read_course
from ironbeat.watch.fleet import Beat, Fleet, Process, Worker, read_fleet
from ironbeat.watch.health import Health, HealthCheck, describe
from ironbeat.watch.limits import (
    WORKER_MEMORY_NORMAL_MB,
    Limit,
    Measured,
    broken_limits,
    judge_limits,
)
from ironbeat.watch.modules import Module, import_modules
from ironbeat.watch.outcomes import (
    Between,
    Failure,
    Outcomes,
    Running,
    read_between,
    read_failures,
    read_outcomes,
    read_running,
)
from ironbeat.watch.punctuality import (
    Punctuality,
    Schedule,
    read_punctuality,
    read_schedules,
)
from ironbeat.watch.queues import (
    Broker,
    Queue,
    Waiting,
    next_messages,
    read_broker,
    read_queues,
)
from ironbeat.watch.stores import BROKER_ERRORS, Connect, Probe, broker, database
from ironbeat.workload import (
    ENTRY_POINT_GROUP,
    Workload,
    WorkloadError,
    discover,
    switched_off,
)

DEFAULT_QUEUE = "default"
WINDOW_SECONDS = 3600.0
FAILURES_SINCE = timedelta(hours=24)
# So long a process that a watchdog ended is named.
ENDED_SECONDS = 3600.0
DEADLINE_SECONDS = 5.0
# A day of a busy suite has millions of runs to sum up.
PERIOD_DEADLINE_SECONDS = 30.0

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue: what waits in the broker, what the ledger holds for it, and who consumes it.

    ``length``, ``by_priority`` and ``oldest`` are ``None`` when the broker does not answer.
    ``live`` are the ledger's runs by state.
    """

    name: str
    length: int | None
    by_priority: Mapping[int, int] | None
    oldest: Waiting | None
    live: Mapping[str, int]
    consumers: int

    @property
    def oldest_age_seconds(self) -> float | None:
        """The age of the message that has waited longest."""
        return self.oldest.age_seconds if self.oldest else None


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """PostgreSQL: its version, the size of the database, and how long all figures took to read."""

    version: str
    size_mb: float
    connections: int
    max_connections: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """How the suite is doing at ``at``. Parts that could not be read are ``None`` or empty, and
    ``problems`` says why. Runs are judged over the last ``window_seconds``. ``off`` are
    the installed workloads that do not run, each with the reason.
    """

    at: datetime
    version: str
    window_seconds: float
    health: Health
    limits: tuple[Limit, ...]
    workers: tuple[Worker, ...]
    beats: tuple[Beat, ...]
    schedulers: tuple[Process, ...]
    processes: tuple[Process, ...]
    queues: tuple[QueueStatus, ...]
    rq_workers: tuple[Worker, ...]
    broker: Broker | None
    database: DatabaseStatus | None
    backlog: Backlog | None
    outcomes: Outcomes | None
    punctuality: Punctuality | None
    schedules: tuple[Schedule, ...]
    running: tuple[Running, ...]
    failures: tuple[Failure, ...]
    problems: tuple[str, ...]
    off: Mapping[str, str] = field(default_factory=dict)

    @property
    def broken(self) -> tuple[Limit, ...]:
        """The limits that are broken right now, worst first."""
        return broken_limits(self.limits)


@dataclass(frozen=True, slots=True)
class Report:
    """The owners' ``monitor_celery`` report: the status, and what a period brought.

    ``waiting`` shows the next messages of each queue that has any; ``modules`` whether the task
    modules import; ``between`` what happened in the period, ``course`` how it went, step by step.
    """

    status: Status
    between: Between | None
    waiting: Mapping[str, tuple[Waiting, ...]]
    modules: tuple[Module, ...]
    course: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ledger:
    """What PostgreSQL says."""

    database: DatabaseStatus
    fleet: Fleet
    backlog: Backlog
    outcomes: Outcomes
    punctuality: Punctuality
    schedules: tuple[Schedule, ...]
    running: tuple[Running, ...]
    failures: tuple[Failure, ...]
    dead_letters: int


_DATABASE = """
SELECT current_setting('server_version'), pg_database_size(current_database()) / 1e6::float8,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       current_setting('max_connections')::integer
"""


def status(
    settings: Settings | None = None,
    *,
    window_seconds: float = WINDOW_SECONDS,
    schedule_limit: int = 200,
    failure_limit: int = 20,
    deadline: float = DEADLINE_SECONDS,
    health: HealthCheck | None = None,
    connect: Connect = database,
) -> Status:
    """How the suite is doing; answers within ``deadline`` seconds, with what was read by then.

    Those who ask again and again give the ``health`` check and the kept connections they have.
    """
    settings = settings or get_settings()
    workloads, problems = enabled_workloads(settings)
    asked = time.monotonic()

    def left() -> float:
        return max(0.0, deadline - (time.monotonic() - asked))

    state = Probe("health", (health or HealthCheck(settings)).check).start()
    ledger = Probe(
        "status",
        lambda: _read(connect, settings, window_seconds, schedule_limit, failure_limit, deadline),
    ).start()
    broker_state = Probe("broker", lambda: _read_broker(settings)).start()
    questions: list[Future[Any]] = [state, ledger, broker_state]
    wait(questions, timeout=left())
    read = _result(ledger, "PostgreSQL", problems)
    broker_seen = _result(broker_state, "Redis", problems) if settings.use_redis else None

    live = read.backlog.by_queue if read else {}
    consumers = (*read.fleet.workers, *read.fleet.rq_workers) if read else ()
    names = queue_names(workloads, consumers, live)
    lists: tuple[Queue, ...] = ()
    if broker_seen is not None:
        question = Probe("queues", lambda: _read_queues(settings, names)).start()
        wait([question], timeout=max(0.5, left()))
        lists = _result(question, "Redis", problems) or ()
    return Status(
        at=datetime.now(UTC),
        version=__version__,
        window_seconds=window_seconds,
        health=state.result(),
        limits=judge_limits(measure(settings, read, lists)),
        workers=read.fleet.workers if read else (),
        beats=read.fleet.beats if read else (),
        schedulers=read.fleet.schedulers if read else (),
        processes=read.fleet.others if read else (),
        queues=_queues(names, lists, live, tuple(each for each in consumers if each.alive)),
        rq_workers=read.fleet.rq_workers if read else (),
        broker=broker_seen,
        database=read.database if read else None,
        backlog=read.backlog if read else None,
        outcomes=read.outcomes if read else None,
        punctuality=read.punctuality if read else None,
        schedules=read.schedules if read else (),
        running=read.running if read else (),
        failures=read.failures if read else (),
        problems=tuple(dict.fromkeys(problems)),
        off=_switched_off(settings.enabled_workloads),
    )


def report(
    settings: Settings | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    waiting_limit: int = 10,
    deadline: float = DEADLINE_SECONDS,
) -> Report:
    """The status, and what happened from ``since`` to ``until`` (default: the last 24 hours)."""
    settings = settings or get_settings()
    until = until or datetime.now(UTC)
    since = since or until - FAILURES_SINCE
    if since >= until:
        raise ValueError(f"the period ends before it begins: {since} … {until}")
    now = status(settings, deadline=deadline)
    workloads, _ = enabled_workloads(settings)
    happened = waiting = None
    course: tuple[Step, ...] = ()
    problems: list[str] = []
    if now.database is not None:
        try:
            with database(settings, PERIOD_DEADLINE_SECONDS) as connection:
                happened = read_between(connection, since, until)
                course = read_course(connection, since, until)
        except psycopg.Error as error:
            problems.append(f"what happened in the period could not be read: {describe(error)}")
    if now.broker is not None:
        try:
            with broker(settings) as client:
                waiting = {
                    queue.name: next_messages(client, queue.name, waiting_limit)
                    for queue in now.queues
                    if queue.length
                }
        except BROKER_ERRORS as error:
            problems.append(f"what waits could not be read: {describe(error)}")
    now = replace(now, problems=(*now.problems, *problems))
    return Report(now, happened, waiting or {}, import_modules(workloads), course)


def measure(settings: Settings, read: _Ledger | None, lists: tuple[Queue, ...]) -> Measured:
    """The figures that the limits are about."""
    lengths = {queue.name: queue.length for queue in lists} if lists else None
    if read is None:
        return Measured(queue_lengths=lengths)
    workers, beats = read.fleet.live_workers, read.fleet.live_beats
    memory = [worker.rss_mb for worker in workers if worker.rss_mb is not None]
    ticks = [beat.tick_age_seconds for beat in beats if beat.tick_age_seconds is not None]
    # 0 switches recycling off; the owners' ceiling then still says what is much.
    ceiling = settings.worker_max_memory_mb or WORKER_MEMORY_NORMAL_MB
    response = max(min(ticks, default=0.0), read.punctuality.longest_overdue_seconds)
    return Measured(
        success_rate=read.outcomes.success_rate,
        error_rate=read.outcomes.error_rate,
        mean_run_seconds=read.outcomes.run.mean,
        queue_lengths=lengths,
        worker_memory_mb=max(memory, default=None),
        beat_response=response,
        beats=len(beats) + sum(process.alive for process in read.fleet.schedulers),
        workers=len(workers),
        longest_running_seconds=max((run.seconds for run in read.running), default=None),
        memory_share=max(memory) / ceiling if memory else None,
        silence=max((worker.silent_seconds for worker in workers), default=None),
        missed=read.punctuality.missed,
        dead_letters=read.dead_letters,
        ended=tuple(
            f"{each.name}: {each.finding}"
            for watchdog in read.fleet.watchdogs
            for each in watchdog.ended
            if each.seconds is not None and each.seconds < ENDED_SECONDS
        ),
    )


def enabled_workloads(settings: Settings) -> tuple[tuple[Workload, ...], list[str]]:
    """The workloads that are switched on and load, and what is wrong with the others."""
    found, problems = _load_workloads(settings.enabled_workloads)
    return found, list(problems)


# What is installed does not change under a running process, and looking it up takes long.
@lru_cache(maxsize=8)
def _load_workloads(
    names: tuple[str, ...] | None,
) -> tuple[tuple[Workload, ...], tuple[str, ...]]:
    found: list[Workload] = []
    problems: list[str] = []
    # One by one: a workload that does not load must not hide the others.
    installed = sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)})
    off = {} if names else switched_off()
    for name in names or [each for each in installed if each not in off]:
        try:
            found.extend(discover([name]))
        except WorkloadError as error:
            problems.append(str(error))
    return tuple(found), tuple(problems)


@lru_cache(maxsize=8)
def _switched_off(names: tuple[str, ...] | None) -> Mapping[str, str]:
    return switched_off(names)


def forget_workloads() -> None:
    """Look up what is installed again when it is next asked for."""
    _load_workloads.cache_clear()
    _switched_off.cache_clear()


def queue_names(
    workloads: Iterable[Workload], workers: Iterable[Worker], live: Iterable[str]
) -> list[str]:
    """Every queue that something declares, consumes or waits in; the default one first."""
    names = [DEFAULT_QUEUE]
    names += [queue.name for workload in workloads for queue in workload.queues]
    names += sorted({name for worker in workers for name in worker.queues})
    names += sorted(live)
    return list(dict.fromkeys(names))


def _read(
    connect: Connect,
    settings: Settings,
    window: float,
    schedule_limit: int,
    failure_limit: int,
    deadline: float,
) -> _Ledger:
    started = time.monotonic()
    now = datetime.now(UTC)
    with connect(settings, deadline, "ironbeat-status") as connection:
        version, size, connections, most = connection.execute(_DATABASE).fetchone() or ("", 0, 0, 0)
        fleet = read_fleet(connection)
        backlog = read_backlog(connection)
        ended = read_outcomes(connection, window)
        punctual = read_punctuality(connection)
        schedules = read_schedules(connection, limit=schedule_limit) if schedule_limit else ()
        running = read_running(connection)
        failed = read_failures(connection, now - FAILURES_SINCE, now, failure_limit)
        dead = count_open(connection)
    state = DatabaseStatus(version, float(size), connections, most, time.monotonic() - started)
    return _Ledger(state, fleet, backlog, ended, punctual, schedules, running, failed, dead)


def _read_broker(settings: Settings) -> Broker | None:
    if not settings.use_redis:
        return None
    with broker(settings) as client:
        return read_broker(client)


def _read_queues(settings: Settings, names: list[str]) -> tuple[Queue, ...]:
    with broker(settings) as client:
        return read_queues(client, names)


def _queues(
    names: list[str],
    lists: tuple[Queue, ...],
    live: Mapping[str, Mapping[str, int]],
    workers: tuple[Worker, ...],
) -> tuple[QueueStatus, ...]:
    found = {queue.name: queue for queue in lists}
    made = []
    for name in names:
        queue = found.get(name)
        made.append(
            QueueStatus(
                name=name,
                length=queue.length if queue else None,
                by_priority=queue.by_priority if queue else None,
                oldest=queue.oldest if queue else None,
                live=live.get(name, {}),
                # A worker that names no queue consumes all of them.
                consumers=sum(not worker.queues or name in worker.queues for worker in workers),
            )
        )
    return tuple(made)


def _result(question: Future[Found], server: str, problems: list[str]) -> Found | None:
    if not question.done():
        problems.append(f"{server}: no answer in time")
        return None
    error = question.exception()
    if error is not None:
        problems.append(f"{server}: {describe(error)}")
        return None
    return question.result()


def plain(value: Any) -> Any:
    """``value`` (any structure of this package) as what JSON can say: instants in ISO 8601."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)
