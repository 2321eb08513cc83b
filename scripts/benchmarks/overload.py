"""``overload``: a million runs in one go, and what it does to everything else.

One process submits all of them with ``TaskManager.submit_many`` while workers and a beat with
one-second schedules are at work. Once a second the memory of every process, of Redis, and the time
that ``health`` takes are noted; afterwards every run must have succeeded once, and the fires must
have kept their times.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from benchmarks import report
from benchmarks.programs import BINARIES, Program, Trouble, Usage, running, wait_until
from benchmarks.report import Column, Figures
from benchmarks.servers import RUN, Servers, servers
from benchmarks.systems import ALL, Place
from ironbeat.settings import Settings
from ironbeat.watch import check_health

COLUMNS = (
    Column("runs", "runs"),
    Column("submitted_per_s", "submitted/s"),
    Column("drained_per_s", "ended/s"),
    Column("lost", "lost"),
    Column("submitter_mb", "submitter MB"),
    Column("beat_mb", "beat MB"),
    Column("worker_mb", "worker MB"),
    Column("redis_mb", "Redis MB"),
    Column("queue", "longest queue"),
    Column("late_p99_ms", "late p99 ms"),
    Column("late_max_ms", "late max ms"),
    Column("health_max_ms", "health max ms"),
)

_SCHEDULES = """
INSERT INTO ironbeat.schedules (name, task, kind, expression, timezone, args, overlap, catch_up,
    catch_up_max)
SELECT 'tick-' || i, 'bench.fire', 'interval', '1s', 'UTC', jsonb_build_array(i), 'allow', 'all',
    10000 FROM generate_series(1, 20) AS i
"""
_LATE = """
SELECT extract(epoch FROM fired_at - scheduled_for)::float8 * 1000 FROM ironbeat.fires
"""
_ENDED = """
SELECT count(*) FILTER (WHERE state = 'succeeded') FROM ironbeat.run_history
WHERE schedule_name IS NULL
"""
_SUBMIT = "from benchmarks.apps import ironbeat_app; ironbeat_app.{call}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--runs", type=int, default=1_000_000, help="how many (1,000,000)")
    parser.add_argument("--bytes", type=int, default=0, help="size of an argument of each (0)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--patience", type=float, default=3600, help="seconds at most (3600)")


def run(arguments: argparse.Namespace, _peers: Sequence[str]) -> int:
    """Measure and print; returns 1 when a run was lost."""
    with servers() as found:
        place = Place(found, found.folder / "overload", found.new_database())
        place.clean()
        workers = ALL["ironbeat"].commands(place, arguments.workers)
        beat = (str(BINARIES / "ironbeat"), "beat")
        with (
            psycopg.connect(place.database_url, autocommit=True) as connection,
            running([beat, *workers], place.environment(), place.folder) as programs,
        ):
            leases = "SELECT count(*) FROM ironbeat.leases"
            wait_until(
                lambda: _one(connection, leases) == len(programs), 120, "all start", programs
            )
            connection.execute(_SCHEDULES)
            figures = _flood(found, place, connection, programs, arguments)
            figures |= _fires(connection)
    report.show(
        f"{arguments.runs:,} runs in one go, {arguments.bytes:,} bytes each",
        {"ironbeat": figures},
        COLUMNS,
        as_json=arguments.json,
    )
    return int(bool(figures["lost"]))


@dataclass
class Peaks:
    """The largest figures seen so far."""

    figures: Figures = field(default_factory=dict)

    def see(self, **values: float) -> None:
        """Keep what is larger than before."""
        for name, value in values.items():
            self.figures[name] = max(self.figures.get(name, 0.0), value)


def _flood(
    found: Servers,
    place: Place,
    connection: psycopg.Connection[Any],
    programs: list[Program],
    arguments: argparse.Namespace,
) -> Figures:
    settings = Settings.model_validate(
        {"database_url": place.database_url, "broker_url": found.redis_url(RUN)}
    )
    call = f"submit_large({arguments.runs}, {arguments.bytes})"
    command = (sys.executable, "-c", _SUBMIT.format(call=call))
    peaks, began, submitted = Peaks(), time.monotonic(), 0.0
    with (
        running([command], place.environment(), place.folder / "submitter") as [submitter],
        found.redis_client(RUN) as client,
    ):
        ended = 0
        while ended < arguments.runs:
            if time.monotonic() - began > arguments.patience:
                break
            if submitter.ended and not submitted:
                submitted = time.monotonic() - began
                if "Traceback" in submitter.output():
                    raise Trouble(submitter.output())
            if dead := [program for program in programs if program.ended]:
                raise Trouble(f"a program ended:\n{dead[0].output()}")
            peaks.see(
                submitter_mb=Usage.of([submitter.pid]).rss_mb,
                beat_mb=Usage.of([programs[0].pid]).rss_mb,
                worker_mb=max(Usage.of([each.pid]).rss_mb for each in programs[1:]),
                redis_mb=client.info("memory")["used_memory"] / 2**20,
                queue=client.llen("default"),
                health_max_ms=check_health(settings).seconds * 1000,
            )
            time.sleep(1.0)
            ended = _one(connection, _ENDED)
            report.say(f"{ended:,} of {arguments.runs:,} have ended")
        seconds = time.monotonic() - began
    return {
        "runs": arguments.runs,
        "submitted_per_s": arguments.runs / submitted if submitted else None,
        "drained_per_s": ended / seconds,
        "lost": arguments.runs - ended,
        **peaks.figures,
    }


def _fires(connection: psycopg.Connection[Any]) -> Figures:
    late = [row[0] for row in connection.execute(_LATE)]
    return {"late_p99_ms": report.percentile(late, 0.99), "late_max_ms": max(late, default=None)}


def _one(connection: psycopg.Connection[Any], query: str) -> int:
    row = connection.execute(query).fetchone()  # type: ignore[arg-type]
    return int(row[0]) if row else 0
