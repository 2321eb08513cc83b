"""``soak``: two beats, two hundred one-second schedules, and every slot must run exactly once.

The schedules overlap freely and catch up on everything, so a slot that was not run is a fault and
no policy. Executions are counted by the task itself, with its slot; outcomes in the ledger.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from benchmarks import report
from benchmarks.programs import BINARIES, Trouble, running, wait_until
from benchmarks.report import Column, Figures
from benchmarks.servers import servers
from benchmarks.systems import ALL, Place

# From making the schedules to their first slots.
LEAD_SECONDS = 3.0

COLUMNS = (
    Column("slots", "slots"),
    Column("missed", "missed"),
    Column("doubled", "doubled"),
    Column("lateness_p50_ms", "late p50 ms"),
    Column("lateness_p99_ms", "late p99 ms"),
    Column("lateness_max_ms", "late max ms"),
)

# Anchored a fraction of a second apart, so that slots come due evenly.
_FILL = """
INSERT INTO ironbeat.schedules (name, task, kind, expression, timezone, args, overlap, catch_up,
    catch_up_max, anchor_at, starts_at, ends_at)
SELECT 'soak-' || i, 'bench.slot', 'interval', '1s', 'UTC', jsonb_build_array(i), 'allow', 'all',
    1000, %(start)s + make_interval(secs => i / %(count)s::double precision), %(start)s, %(end)s
FROM generate_series(0, %(count)s::int - 1) AS i
"""
_OUTCOMES = """
SELECT (regexp_match(schedule_name, '[0-9]+'))[1]::int, scheduled_for,
    extract(epoch FROM published_at - scheduled_for)::double precision
FROM ironbeat.run_history WHERE schedule_name LIKE 'soak-%' AND state = 'succeeded'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--seconds", type=int, default=600, help="how long (600)")
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--beats", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)


def run(arguments: argparse.Namespace, _peers: Sequence[str]) -> int:
    """Measure and print; returns 1 when a slot was missed or doubled."""
    with servers() as found:
        place = Place(found, found.folder / "soak", found.new_database())
        place.clean()
        workers = ALL["ironbeat"].commands(place, arguments.workers)
        beats: list[Sequence[str]] = [(str(BINARIES / "ironbeat"), "beat")] * arguments.beats
        with (
            psycopg.connect(place.database_url, autocommit=True) as connection,
            running([*workers, *beats], place.environment(), place.folder) as programs,
        ):

            def check() -> None:
                if dead := [program for program in programs if program.ended]:
                    raise Trouble(f"a program ended:\n{dead[0].output()}")

            wait_until(
                lambda: _count(connection, "leases") == len(programs), 90, "all start", programs
            )
            start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=LEAD_SECONDS)
            end = start + timedelta(seconds=arguments.seconds)
            connection.execute(_FILL, {"count": arguments.schedules, "start": start, "end": end})
            while (left := (end - datetime.now(UTC)).total_seconds()) > 0:
                time.sleep(min(10.0, left))
                check()
                report.say(f"{max(0, left - 10):.0f} s left, {place.notes.count()} executions")
            # Slots at the very end are still under way.
            time.sleep(1.0)
            wait_until(lambda: _count(connection, "runs") == 0, 300, "the last runs end", programs)
            figures = _account(connection, place, start, end, arguments.schedules)
    report.show(
        f"{arguments.schedules} one-second schedules, {arguments.beats} beats, "
        f"{arguments.seconds} s",
        {"ironbeat": figures},
        COLUMNS,
        as_json=arguments.json,
    )
    return int(bool(figures["missed"] or figures["doubled"]))


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM ironbeat.{table}").fetchone()  # noqa: S608
    return int(row[0]) if row else 0


def _account(
    connection: psycopg.Connection[Any],
    place: Place,
    start: datetime,
    end: datetime,
    schedules: int,
) -> Figures:
    """Compare the slots there had to be with executions and with outcomes."""
    executed = Counter((note.number, round(note.sent * 1000)) for note in place.notes.read())
    ended: Counter[tuple[int, int]] = Counter()
    late = []
    for number, slot, seconds in connection.execute(_OUTCOMES):
        ended[number, round(slot.timestamp() * 1000)] += 1
        late.append(seconds)
    expected = {
        (number, round((start.timestamp() + second + number / schedules) * 1000))
        for number in range(schedules)
        for second in range(round((end - start).total_seconds()))
    }
    # Whether a slot exactly at the beginning or the end belongs to it is not the question here.
    edges = {round(start.timestamp() * 1000), round(end.timestamp() * 1000)}
    expected = {slot for slot in expected if slot[1] not in edges}
    return {
        "slots": len(expected),
        "missed": sum(not (executed[slot] and ended[slot]) for slot in expected),
        "doubled": sum(n > 1 for n in executed.values()) + sum(n > 1 for n in ended.values()),
        "lateness_p50_ms": _ms(report.percentile(late, 0.5)),
        "lateness_p99_ms": _ms(report.percentile(late, 0.99)),
        "lateness_max_ms": _ms(max(late, default=None)),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
