"""``throughput``: no-op tasks from a backlog that is there already, and one by one at low load.

Each system gets two worker processes. The backlog is prepared by the system's own calls in another
Redis database and moved to the workers in one step, so that what is measured begins with workers
that are up, warm and idle. It ends when every task has run *and* the broker holds nothing any more,
acknowledgements included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import producer, profile, report
from benchmarks.programs import Program, Usage, running, wait_until
from benchmarks.report import Column, Figures
from benchmarks.servers import RUN, STAGE, Servers, servers
from benchmarks.systems import ALL, Place, System

WORKERS = 2
WARM_UP = 300
# What a system takes longer for than this does not finish.
PATIENCE = 180.0

COLUMNS = (
    Column("drain_per_s", "drained/s"),
    Column("times_celery", "× celery", 2),
    Column("enqueue_per_s", "enqueued/s"),
    Column("latency_p50_ms", "p50 ms", 1),
    Column("latency_p99_ms", "p99 ms", 1),
    Column("cpu_us_per_task", "worker µs/task"),
    Column("server_cpu_us_per_task", "servers µs/task"),
    Column("rss_mb", "RSS MB"),
    Column("lost", "lost"),
    Column("doubled", "doubled"),
    Column("guarantees", "when a worker is killed"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="about how long a drain shall last (5)"
    )
    parser.add_argument("--tasks", type=int, help="a backlog of so many tasks instead")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 unless each task ran exactly once"
    )
    parser.add_argument(
        "--profile", action="store_true", help="say where Ironbeat's workers spend their time"
    )


def run(arguments: argparse.Namespace, peers: Sequence[str]) -> int:
    """Measure and print; returns the exit status."""
    names = ["ironbeat", *peers]
    rounds: dict[str, list[Figures | None]] = {name: [] for name in names}
    profiles: list[profile.Profile] = []
    with servers() as found:
        for number in range(arguments.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                report.say(f"round {number + 1}: {name}")
                measurement = _Measurement(found, ALL[name], arguments, profiles)
                rounds[name].append(report.attempt(name, measurement.figures))
    results = {name: report.median_of_finished(rounds[name]) for name in names}
    for name, figures in results.items():
        if "celery" in rounds:
            figures["times_celery"] = report.ratio(rounds[name], rounds["celery"], "drain_per_s")
        finished = [each for each in rounds[name] if each is not None]
        figures["lost"] = sum(each["lost"] for each in finished)
        figures["doubled"] = sum(each["doubled"] for each in finished)
        figures["version"] = ALL[name].version
        figures["guarantees"] = ALL[name].guarantees
    report.show(
        f"No-op tasks, {WORKERS} worker processes, medians of {arguments.rounds} rounds",
        results,
        COLUMNS,
        as_json=arguments.json,
        notes=[each.text() for each in profiles[-1:]],
    )
    wrong = results["ironbeat"]["lost"] or results["ironbeat"]["doubled"]
    return int(bool(arguments.check and wrong))


@dataclass
class _Measurement:
    servers: Servers
    system: System
    arguments: argparse.Namespace
    profiles: list[profile.Profile]

    def figures(self) -> Figures:
        """One round of one system."""
        database = self.servers.new_database()
        place = Place(self.servers, self.servers.folder / self.system.name, database)
        place.clean()
        try:
            with running(
                self.system.commands(place, WORKERS),
                self.system.environment(place),
                place.folder,
            ) as programs:
                return self._measure(place, programs)
        finally:
            self.servers.drop_database(database)

    def _measure(self, place: Place, programs: list[Program]) -> Figures:
        run = self.servers.redis_client(RUN)
        notes = place.notes
        system = self.system
        began = time.monotonic()
        self._produce(place, "flood", 0, WARM_UP)
        wait_until(
            lambda: notes.count() >= WARM_UP and system.left(run) == 0,
            PATIENCE,
            f"{system.name} warms up",
            programs,
        )
        rate = WARM_UP / (time.monotonic() - began)
        latencies = self._latencies(place, programs)

        # A second flood tells the rate: the first one began with the programs still starting.
        began = time.monotonic()
        before = notes.count()
        enqueued = self._produce(place, "flood", before, WARM_UP, stage=True)
        rate = max(rate, self._drain(place, programs, before + WARM_UP).per_s)

        count = self.arguments.tasks or int(min(30_000, max(500, rate * self.arguments.seconds)))
        before = notes.count()
        enqueued = self._produce(place, "flood", before, count, stage=True)
        with ExitStack() as stack:
            seen = []
            if self.arguments.profile and system.name == "ironbeat":
                seen = [stack.enter_context(profile.profiling(p.pid)) for p in programs]
            drained = self._drain(place, programs, before + count)
        if seen:
            self.profiles.append(profile.merged(each.profile for each in seen))
        ran = [note.number for note in notes.read()]
        return {
            "drain_per_s": drained.per_s,
            "enqueue_per_s": enqueued["per_s"],
            "latency_p50_ms": _ms(report.percentile(latencies, 0.5)),
            "latency_p99_ms": _ms(report.percentile(latencies, 0.99)),
            "cpu_us_per_task": drained.cpu / count * 1e6,
            "server_cpu_us_per_task": drained.server_cpu / count * 1e6,
            "rss_mb": drained.rss_mb,
            "tasks": count,
            "lost": before + count - len(set(ran)),
            "doubled": len(ran) - len(set(ran)),
        }

    def _latencies(self, place: Place, programs: list[Program]) -> list[float]:
        notes = place.notes
        before, count, per_second = notes.count(), 100, 20
        self._produce(place, "pace", before, count, per_second)
        wait_until(
            lambda: notes.count() >= before + count, 30, f"{self.system.name} idles", programs
        )
        # The first second wakes caches and connections up.
        return [note.began - note.sent for note in notes.read(before)][per_second:]

    def _drain(self, place: Place, programs: list[Program], total: int) -> _Drained:
        stage, run = self.servers.redis_client(STAGE), self.servers.redis_client(RUN)
        notes, system = place.notes, self.system
        pids = [program.pid for program in programs]
        served = [self.servers.redis.pid, self.servers.postgres.pid]
        count = total - notes.count()
        used, server_used = Usage.of(pids), Usage.of(served)
        began = time.perf_counter()
        system.release(stage, run)
        wait_until(
            lambda: notes.count() >= total and system.left(run) == 0,
            PATIENCE,
            f"{system.name} drains {count} tasks",
            programs,
        )
        seconds = time.perf_counter() - began
        after = Usage.of(pids)
        return _Drained(
            count / seconds,
            after.cpu - used.cpu,
            Usage.of(served).cpu - server_used.cpu,
            after.rss_mb,
        )

    def _produce(self, place: Place, *what: object, stage: bool = False) -> dict[str, float]:
        return producer.produce(
            self.system.module,
            self.system.environment(place, stage=stage),
            *what,
            log=place.folder / "producer.log",
        )


@dataclass(frozen=True, slots=True)
class _Drained:
    per_s: float
    cpu: float
    server_cpu: float
    rss_mb: float


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
