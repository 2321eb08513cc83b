"""The figures of the whole suite as Prometheus metrics, read when they are asked for.

Every metric is documented here, where it is made; ``/metrics`` carries the same text. Times are in
seconds and memory in bytes, as Prometheus wants them. Figures that a hanging server keeps back are
left out rather than reported as zero, and ``ironbeat_up`` tells which server it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ironbeat import __version__
from ironbeat.runs.deadletters import count_open
from ironbeat.runs.leases import count_lost
from ironbeat.runs.model import ENDED_STATES
from ironbeat.runs.throttles import Standing, read_standing
from ironbeat.settings import Settings
from ironbeat.watch.backlog import Backlog, read_backlog
from ironbeat.watch.fleet import Fleet, Process, Worker, read_fleet
from ironbeat.watch.health import BEAT_STALLED_SECONDS
from ironbeat.watch.outcomes import read_running
from ironbeat.watch.punctuality import Punctuality, read_punctuality
from ironbeat.watch.queues import Broker, Queue, read_broker, read_queues
from ironbeat.watch.report import enabled_workloads, queue_names
from ironbeat.watch.stores import Connect, Probe, broker, database
from ironbeat.watch.totals import (
    LATENESS_BOUNDS,
    RUN_BOUNDS,
    WAIT_BOUNDS,
    Durations,
    Totals,
    read_totals,
)

# The kinds of processes whose loss is counted.
LEASED = ("worker", "beat", "scheduler", "watchdog", "scaler")
# How long a scrape may take in all; Prometheus gives up after ten seconds by default.
DEADLINE_SECONDS = 3.0

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Ledger:
    """What PostgreSQL says at one scrape."""

    fleet: Fleet
    backlog: Backlog
    punctuality: Punctuality
    longest_running: float
    totals: Totals
    dead_letters: int
    throttles: tuple[Standing, ...]
    lost: Mapping[str, int]


class Exposition(Collector):
    """A collector that reads the suite's figures at each scrape.

    One instance serves a process; scrapes that overlap share what is read.
    """

    def __init__(
        self,
        settings: Settings,
        deadline: float = DEADLINE_SECONDS,
        connect: Connect = database,
    ):
        self._settings = settings
        self._connect = connect
        self._deadline = deadline
        self._names = queue_names(enabled_workloads(settings)[0], (), ())
        self._ledger = Probe("metrics", self._read_ledger)
        self._queues = Probe("metrics-queues", self._read_broker)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the servers."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The figures now."""
        settings = self._settings
        yield version_metric()
        questions: dict[str, Future[Any]] = {"database": self._ledger.start()}
        if settings.use_redis:
            questions["redis"] = self._queues.start()
        wait(questions.values(), timeout=self._deadline)
        ledger: Ledger | None = _answer(questions["database"])
        broker_seen: tuple[Broker, tuple[Queue, ...]] | None = (
            _answer(questions["redis"]) if settings.use_redis else None
        )
        yield store_metrics({name: _answer(each) is not None for name, each in questions.items()})
        if broker_seen is not None:
            yield from broker_metrics(*broker_seen)
        if ledger is not None:
            self._names = queue_names(
                enabled_workloads(settings)[0], ledger.fleet.workers, ledger.backlog.by_queue
            )
            yield from fleet_metrics(ledger.fleet, settings.worker_max_memory_mb)
            yield from lease_metrics(ledger.fleet, ledger.lost)
            yield from backlog_metrics(ledger.backlog, ledger.longest_running)
            yield from punctuality_metrics(ledger.punctuality)
            yield from total_metrics(ledger.totals)
            yield from overload_metrics(ledger.fleet, ledger.dead_letters, ledger.throttles)

    def _read_ledger(self) -> Ledger:
        with self._connect(
            self._settings, self._deadline, "ironbeat-metrics", read_only=False
        ) as connection:
            longest = read_running(connection, limit=1)
            return Ledger(
                fleet=read_fleet(connection),
                backlog=read_backlog(connection),
                punctuality=read_punctuality(connection),
                longest_running=longest[0].seconds if longest else 0.0,
                totals=read_totals(connection),
                dead_letters=count_open(connection),
                throttles=read_standing(connection),
                lost=count_lost(connection),
            )

    def _read_broker(self) -> tuple[Broker, tuple[Queue, ...]]:
        with broker(self._settings) as client:
            return read_broker(client), read_queues(client, self._names)


def _answer(question: Future[Found]) -> Found | None:
    if not question.done() or question.exception() is not None:
        return None
    return question.result()


def families() -> Iterator[Metric]:
    """Every metric of the suite, without figures: its name, type, labels and meaning."""
    nobody = Fleet((), (), (), ())
    yield version_metric()
    yield store_metrics({})
    yield from broker_metrics(Broker("", 0, 0, "", False, 0, 0, 0), ())
    yield from fleet_metrics(nobody, 0)
    yield from lease_metrics(nobody, {})
    yield from backlog_metrics(Backlog({}, 0, 0.0, 0, 0), 0.0)
    yield from punctuality_metrics(
        Punctuality(0, 0, None, 0, 0.0, 0, (), 0, None, None, None, overdue_by={})
    )
    yield from total_metrics(Totals(datetime.fromtimestamp(0, UTC)))
    yield from overload_metrics(nobody, 0, ())


def version_metric() -> Metric:
    """Which version answers."""
    return InfoMetricFamily("ironbeat", "The version that answers.", value={"version": __version__})


def store_metrics(answered: Mapping[str, bool]) -> Metric:
    """Which servers answered this scrape."""
    up = GaugeMetricFamily(
        "ironbeat_up", "Whether a server answered this scrape (1) or not (0).", labels=["store"]
    )
    for name, does in answered.items():
        up.add_metric([name], float(does))
    return up


def broker_metrics(state: Broker, queues: Sequence[Queue]) -> Iterator[Metric]:
    """What waits in the broker, and how full it is."""
    length = GaugeMetricFamily(
        "ironbeat_queue_length",
        "Messages waiting in a queue of the broker, by priority step.",
        labels=["queue", "priority"],
    )
    age = GaugeMetricFamily(
        "ironbeat_queue_oldest_seconds",
        "Age of the message that has waited longest in a queue; 0 when none waits.",
        labels=["queue"],
    )
    for queue in queues:
        for step, number in queue.by_priority.items():
            length.add_metric([queue.name, str(step)], number)
        age.add_metric([queue.name], queue.oldest_age_seconds or 0.0)
    yield length
    yield age
    yield _gauge(
        "ironbeat_unacked_messages",
        "Messages that a worker holds and has not acknowledged; part of the backlog.",
        state.unacked,
    )
    yield _gauge(
        "ironbeat_unreadable_messages",
        "Messages put aside because no worker could make sense of them.",
        state.unreadable,
    )
    yield _gauge(
        "ironbeat_broker_memory_bytes", "Memory the broker uses.", state.used_memory_mb * 1e6
    )
    yield _gauge(
        "ironbeat_broker_memory_limit_bytes",
        "The broker's maxmemory; 0 when it has none.",
        state.max_memory_mb * 1e6,
    )
    yield _gauge("ironbeat_broker_clients", "Connections to the broker.", state.clients)
    yield _gauge(
        "ironbeat_broker_append_only",
        "Whether the broker's append-only file is on.",
        state.append_only,
    )
    yield _gauge(
        "ironbeat_broker_noeviction",
        "Whether the broker refuses to drop queued messages when it is full.",
        state.policy == "noeviction",
    )


def fleet_metrics(fleet: Fleet, memory_limit_mb: float) -> Iterator[Metric]:
    """Workers and beats that are alive; a worker recycles above ``memory_limit_mb`` (0: never)."""
    yield _gauge("ironbeat_workers", "Workers whose lease holds.", len(fleet.live_workers))
    yield _gauge("ironbeat_beats", "Beats whose lease holds.", len(fleet.live_beats))
    yield _gauge(
        "ironbeat_task_schedulers",
        "Broker-less TaskSchedulers that are active: the fallback.",
        sum(process.alive for process in fleet.schedulers),
    )
    yield _gauge(
        "ironbeat_workers_drawing",
        "Workers that draw their runs from the ledger because Redis is away.",
        sum(worker.drawing for worker in fleet.live_workers),
    )
    yield _least(
        "ironbeat_beat_tick_age_seconds",
        f"Time since the freshest beat ticked; stuck above {BEAT_STALLED_SECONDS:g}.",
        (beat.tick_age_seconds for beat in fleet.live_beats),
    )
    yield _least(
        "ironbeat_heartbeat_age_seconds",
        "Time since the heartbeat address last took a ping (from beat's start, if it never did); "
        "absent where none is set.",
        (beat.heartbeat_age_seconds for beat in fleet.live_beats),
    )
    yield _gauge(
        "ironbeat_worker_memory_limit_bytes",
        "Resident memory above which a worker recycles; 0: it never does.",
        memory_limit_mb * 2**20,
    )
    # A name that two workers share, against the rules, must not make the whole answer invalid.
    workers: Mapping[str, Worker] = {worker.name: worker for worker in fleet.live_workers}
    for name, help, value in (
        ("ironbeat_worker_memory_bytes", "Resident memory of a worker.", _memory),
        ("ironbeat_worker_cpu_percent", "CPU of a worker, percent of one core.", _cpu),
        ("ironbeat_worker_running_tasks", "Tasks that a worker is executing.", _running),
    ):
        family = GaugeMetricFamily(name, help, labels=["worker"])
        for worker in workers.values():
            figure = value(worker)
            if figure is not None:
                family.add_metric([worker.name], figure)
        yield family
    silence = GaugeMetricFamily(
        "ironbeat_worker_silent_seconds",
        "Time since a worker renewed its lease, until another takes its work over.",
        labels=["worker"],
    )
    # The living ones come first: a name belongs to its latest holder.
    for name, worker in {each.name: each for each in reversed(fleet.workers)}.items():
        silence.add_metric([name], worker.silent_seconds)
    yield silence
    consumed = CounterMetricFamily(
        "ironbeat_worker_consumed",
        "Messages that a worker has consumed since it started.",
        labels=["worker"],
    )
    for worker in workers.values():
        if worker.consumed is not None:
            consumed.add_metric([worker.name], worker.consumed)
    yield consumed
    consumers = GaugeMetricFamily(
        "ironbeat_queue_consumers",
        "Live workers that consume from a queue they name.",
        labels=["queue"],
    )
    for queue in sorted({name for worker in fleet.live_workers for name in worker.queues}):
        consumers.add_metric([queue], sum(queue in w.queues for w in fleet.live_workers))
    yield consumers


def lease_metrics(fleet: Fleet, lost: Mapping[str, int]) -> Iterator[Metric]:
    """Processes that ended, or fell silent, without giving their lease back."""
    lapsed = GaugeMetricFamily(
        "ironbeat_lapsed_leases",
        "Leases that lapsed in the last ten minutes and that nobody has taken over yet, by kind.",
        labels=["kind"],
    )
    taken = CounterMetricFamily(
        "ironbeat_leases_lost",
        "Processes whose work was taken over, as they had died or fallen silent, by kind.",
        labels=["kind"],
    )
    everybody: list[Process] = [*fleet.workers, *fleet.beats, *fleet.schedulers, *fleet.others]
    for kind in LEASED:
        lapsed.add_metric([kind], sum(p.kind == kind and not p.alive for p in everybody))
        taken.add_metric([kind], lost.get(kind, 0))
    yield lapsed
    yield taken


def backlog_metrics(backlog: Backlog, longest_running: float) -> Iterator[Metric]:
    """What the ledger still owes."""
    live = GaugeMetricFamily(
        "ironbeat_live_runs", "Runs that have not ended, by state.", labels=["queue", "state"]
    )
    for queue, states in backlog.by_queue.items():
        for state, number in states.items():
            live.add_metric([queue, state], number)
    yield live
    yield _gauge(
        "ironbeat_outbox_runs",
        "Runs that are committed and should have been published by now.",
        backlog.outbox_due,
    )
    yield _gauge(
        "ironbeat_outbox_age_seconds",
        "How long the oldest of them should have been published.",
        backlog.outbox_age_seconds,
    )
    yield _gauge(
        "ironbeat_outbox_held_runs",
        "Runs held back until another run of their schedule ends.",
        backlog.outbox_held,
    )
    yield _gauge(
        "ironbeat_longest_running_seconds",
        "How long the longest running task has been running; 0 when none is.",
        longest_running,
    )


def punctuality_metrics(punctuality: Punctuality) -> Iterator[Metric]:
    """How schedules keep their times."""
    yield _gauge("ironbeat_schedules", "Schedules, paused ones too.", punctuality.schedules)
    yield _gauge("ironbeat_schedules_enabled", "Schedules that fire.", punctuality.enabled)
    yield _gauge(
        "ironbeat_schedules_overdue", "Schedules that are due and not fired.", punctuality.overdue
    )
    yield _gauge(
        "ironbeat_schedules_missed",
        "Schedules over a minute overdue, and fires of the last five minutes that came so late.",
        punctuality.missed,
    )
    yield _gauge(
        "ironbeat_longest_overdue_seconds",
        "How long the schedule that waits longest for beat has been due.",
        punctuality.longest_overdue_seconds,
    )
    overdue = GaugeMetricFamily(
        "ironbeat_schedule_overdue_seconds",
        "How long a schedule has been due; of the ten that are longest over a minute overdue.",
        labels=["schedule"],
    )
    for name, seconds in punctuality.overdue_by.items():
        overdue.add_metric([name], seconds)
    yield overdue


def overload_metrics(
    fleet: Fleet, dead_letters: int, throttles: Iterable[Standing]
) -> Iterator[Metric]:
    """What was given up, ended by force, held back and added."""
    yield _gauge("ironbeat_dead_letters", "Dead runs that nobody has dealt with yet.", dead_letters)
    ended = CounterMetricFamily(
        "ironbeat_watchdog_ended",
        "Processes that a host's watchdog ended: hung, silent or stalled.",
        labels=["host", "finding"],
    )
    for watchdog in fleet.watchdogs:
        for finding in ("hung", "silent", "stalled"):
            ended.add_metric([watchdog.host, finding], watchdog.counts.get(finding, 0))
    yield ended
    spares = GaugeMetricFamily(
        "ironbeat_spare_workers", "Workers that a host's scaler has added.", labels=["host"]
    )
    for scaler in fleet.scalers:
        if scaler.spares_running is not None:
            spares.add_metric([scaler.host], scaler.spares_running)
    yield spares
    runs = GaugeMetricFamily(
        "ironbeat_throttled_runs",
        "Runs under a limit over all workers: executing, in line, or promised a start.",
        labels=["throttle", "what"],
    )
    for each in throttles:
        runs.add_metric([each.name, "executing"], each.executing)
        runs.add_metric([each.name, "in line"], each.in_line)
        runs.add_metric([each.name, "promised"], each.promised)
    yield runs


def total_metrics(totals: Totals) -> Iterator[Metric]:
    """All runs and fires since they were first counted."""
    ended = CounterMetricFamily(
        "ironbeat_runs",
        "Runs that ended, by task, queue and how (succeeded, failed, dead, expired…).",
        labels=["task", "queue", "state"],
    )
    run: dict[tuple[str, ...], Durations] = {}
    waited: dict[tuple[str, ...], Durations] = {}
    for series in totals.runs.values():
        ended.add_metric([series.task, series.queue, series.state], series.number)
        _sum(run, (series.task,), series.run)
        _sum(waited, (series.queue,), series.wait)
    yield ended
    # A counter that appears with its first failure has not grown, for Prometheus: these are there.
    outcomes = CounterMetricFamily(
        "ironbeat_outcomes",
        "Runs that ended, of all tasks, by how; every state is there from the beginning.",
        labels=["state"],
    )
    for state in sorted(ENDED_STATES):
        outcomes.add_metric(
            [state], sum(each.number for each in totals.runs.values() if each.state == state)
        )
    yield outcomes
    yield _histogram(
        "ironbeat_run_seconds",
        "Execution time of ended runs: their last attempt, by task.",
        ("task",),
        run,
        RUN_BOUNDS,
    )
    yield _histogram(
        "ironbeat_wait_seconds",
        "Time from a run's submission (or its eta) to its first start, by queue.",
        ("queue",),
        waited,
        WAIT_BOUNDS,
    )
    yield _histogram(
        "ironbeat_fire_lateness_seconds",
        "How late fires came: from the scheduled time, less the schedule's jitter.",
        (),
        {(): totals.fires},
        LATENESS_BOUNDS,
    )
    yield CounterMetricFamily(
        "ironbeat_fires", "Fires of schedules.", value=totals.fires.counts[-1]
    )


def _sum(found: dict[tuple[str, ...], Durations], key: tuple[str, ...], more: Durations) -> None:
    if key in found:
        found[key].add(more.counts, more.sum)
    else:
        found[key] = Durations(list(more.counts), more.sum)


def _histogram(
    name: str,
    help: str,
    labels: Sequence[str],
    values: Mapping[tuple[str, ...], Durations],
    bounds: Sequence[float],
) -> Metric:
    family = HistogramMetricFamily(name, help, labels=labels)
    edges = [*map(str, bounds), "+Inf"]
    for key, durations in values.items():
        buckets = list(zip(edges, map(float, durations.counts), strict=True))
        family.add_metric(list(key), buckets=buckets, sum_value=durations.sum)
    return family


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=float(value))


def _least(name: str, help: str, values: Iterable[float | None]) -> Metric:
    """The least of the values; without any, no figure."""
    family = GaugeMetricFamily(name, help)
    known = [value for value in values if value is not None]
    if known:
        family.add_metric([], min(known))
    return family


def _memory(worker: Worker) -> float | None:
    return None if worker.rss_mb is None else worker.rss_mb * 2**20


def _cpu(worker: Worker) -> float | None:
    return worker.cpu_pct


def _running(worker: Worker) -> float | None:
    return float(len(worker.running))
