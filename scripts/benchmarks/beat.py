"""``beat``: how late many schedules fire, and what the scheduler needs for it.

``--schedules`` of one period, of which ``--due`` come due each second, evenly. Each due time is
known beforehand; a message's lateness is the time from then until it arrives in the broker, where a
reader takes every message out at once. So everything is in it: noticing, planning, committing and
publishing. What has not arrived a while after the window is missed, and counts as so late at least.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import redis

from benchmarks import report
from benchmarks.programs import Program, Trouble, Usage, running, wait_until
from benchmarks.report import Column, Figures
from benchmarks.schedulers import EDITED, QUEUE, period
from benchmarks.servers import RUN, Servers, servers
from benchmarks.systems import Place

# From the first message to the beginning of the window.
SETTLE_SECONDS = 5.0
START_SECONDS = 90.0
# After the window, until what has not arrived counts as missed.
GRACE_SECONDS = 5.0

COLUMNS = (
    Column("lateness_p50_ms", "late p50 ms"),
    Column("lateness_p99_ms", "late p99 ms"),
    Column("fired_per_s", "fired/s", 1),
    Column("missed", "missed"),
    Column("doubled", "doubled"),
    Column("cpu_pct", "CPU % of a core", 1),
    Column("server_cpu_pct", "servers' CPU %", 1),
    Column("rss_mb", "RSS MB each"),
    Column("startup_s", "start to first fire s", 2),
    Column("edit_to_effect_s", "edit to effect s", 2),
)


#: The module of each scheduler in :mod:`benchmarks.schedulers`.
MODULES = {
    "ironbeat": "ironbeat_beat",
    "django-celery-beat": "django_beat",
    "redbeat": "redbeat",
    "sqlalchemy-celery-beat": "sqlalchemy_beat",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--schedules", type=int, default=10_000, metavar="N")
    parser.add_argument("--due", type=float, default=100.0, metavar="PER_S")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="the window")
    parser.add_argument(
        "--beats", type=int, default=1, help="beats of Ironbeat at once; peers allow one"
    )
    parser.add_argument("--rounds", type=int, default=1)


def run(arguments: argparse.Namespace, peers: Sequence[str]) -> int:
    """Measure and print; returns the exit status."""
    # What was due before the window must not be due again in it.
    longest = period(arguments.schedules, arguments.due) - 2 * SETTLE_SECONDS - GRACE_SECONDS
    if arguments.seconds > longest:
        raise Trouble(
            f"--seconds may be {longest:.0f} at most: each schedule shall be due once, and "
            f"{arguments.schedules} of them with {arguments.due:g} due a second fire every "
            f"{period(arguments.schedules, arguments.due)} s"
        )
    names = ["ironbeat", *peers]
    rounds: dict[str, list[Figures | None]] = {name: [] for name in names}
    with servers() as found:
        for number in range(arguments.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                report.say(f"round {number + 1}: {name}")
                measurement = _Measurement(found, name, arguments)
                rounds[name].append(report.attempt(name, measurement.figures))
    report.show(
        f"{arguments.schedules:,} schedules, {arguments.due:g} due a second, "
        f"{arguments.seconds:g} s, {arguments.beats} of Ironbeat's beats",
        {name: report.median_of_finished(rounds[name]) for name in names},
        COLUMNS,
        as_json=arguments.json,
    )
    return 0


class Arrivals:
    """Takes every message out of the queue as it comes, and notes when that was."""

    def __init__(self, client: redis.Redis) -> None:
        self.seen: list[tuple[int, float]] = []
        self._client = client
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        while not self._over.is_set():
            found = self._client.blmpop(0.5, 1, QUEUE, direction="RIGHT", count=1000)
            now = time.time()
            for raw in found[1] if found else ():
                body = json.loads(base64.b64decode(json.loads(raw)["body"]))
                self.seen.append((int(body[0][0]), now))

    def first(self, number: int | None = None) -> float | None:
        """When the first message came, of a schedule or of any."""
        for each, at in tuple(self.seen):
            if number is None or each == number:
                return at
        return None

    def stop(self) -> None:
        """End."""
        self._over.set()
        self._thread.join(5)


@dataclass
class _Measurement:
    servers: Servers
    name: str
    arguments: argparse.Namespace

    def figures(self) -> Figures:
        """One round of one scheduler."""
        ours = self.name == "ironbeat"
        database = self.servers.new_database(tables=ours)
        place = Place(self.servers, self.servers.folder / self.name, database)
        place.clean()
        environment = place.environment()
        start = self._ask(place, "fill", self.arguments.schedules, self.arguments.due)
        if time.time() > start + 1.0:
            raise Trouble(f"{self.name}: making the schedules took longer than was allowed for")
        if ours:
            from benchmarks.apps import ironbeat_app

            ironbeat_app.install(place.folder)
        command = self._command(place)
        arrivals = Arrivals(self.servers.redis_client(RUN))
        try:
            # A second later, so that something is due when it starts.
            time.sleep(max(0.0, start + 1.0 - time.time()))
            beats = self.arguments.beats if ours else 1
            began = time.time()
            with running([command] * beats, environment, place.folder) as programs:
                return self._watch(place, programs, arrivals, began, start)
        finally:
            arrivals.stop()
            self.servers.drop_database(database)

    def _watch(
        self,
        place: Place,
        programs: list[Program],
        arrivals: Arrivals,
        began: float,
        start: float,
    ) -> Figures:
        seconds = self.arguments.seconds
        wait_until(lambda: bool(arrivals.seen), START_SECONDS, f"{self.name} starts", programs)
        opens = time.time() + SETTLE_SECONDS
        time.sleep(SETTLE_SECONDS)
        pids = [program.pid for program in programs]
        served = [self.servers.redis.pid, self.servers.postgres.pid]
        used, server_used = Usage.of(pids), Usage.of(served)
        time.sleep(seconds / 2)
        edited = self._ask(place, "edit")
        closes = opens + seconds
        time.sleep(max(0.0, closes - time.time()))
        after, server_after = Usage.of(pids), Usage.of(served)
        if dead := [program for program in programs if program.ended]:
            raise Trouble(f"{self.name} ended:\n{dead[0].output()}")
        time.sleep(GRACE_SECONDS)
        effect = arrivals.first(EDITED)
        first = arrivals.first()
        late, missed, doubled = self._account(arrivals, start, opens, closes)
        return {
            "lateness_p50_ms": _ms(report.percentile(late, 0.5)),
            "lateness_p99_ms": _ms(report.percentile(late, 0.99)),
            "fired_per_s": sum(opens <= at < closes for _, at in arrivals.seen) / seconds,
            "missed": missed,
            "doubled": doubled,
            "cpu_pct": (after.cpu - used.cpu) / seconds * 100,
            "server_cpu_pct": (server_after.cpu - server_used.cpu) / seconds * 100,
            "rss_mb": max(Usage.of([pid]).rss_mb for pid in pids),
            "startup_s": first - began if first is not None else None,
            "edit_to_effect_s": effect - edited if effect is not None else None,
        }

    def _account(
        self, arrivals: Arrivals, start: float, opens: float, closes: float
    ) -> tuple[list[float], int, int]:
        """Lateness of all that were due in the window, and how many came never, and too often."""
        came: dict[int, float] = {}
        times: Counter[int] = Counter()
        for number, at in tuple(arrivals.seen):
            came.setdefault(number, at)
            times[number] += 1
        late, missed, doubled = [], 0, 0
        for number in range(self.arguments.schedules):
            due = start + number / self.arguments.due
            if opens <= due < closes:
                late.append(came.get(number, closes + GRACE_SECONDS) - due)
                missed += number not in came
                doubled += times[number] > 1
        return late, missed, doubled

    def _command(self, place: Place) -> Sequence[str]:
        module = f"benchmarks.schedulers.{MODULES[self.name]}"
        code = f"import {module} as m, json; print(json.dumps(m.command()))"
        found: list[str] = json.loads(self._python(place, "-c", code))
        return found

    def _ask(self, place: Place, *what: object) -> float:
        module = MODULES[self.name]
        found: float = json.loads(
            self._python(place, "-m", "benchmarks.schedulers", module, *map(str, what))
        )
        return found

    def _python(self, place: Place, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **place.environment()},
        )
        if done.returncode != 0:
            raise Trouble(f"{self.name}: {done.stderr[-3000:]}")
        return done.stdout.splitlines()[-1]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
