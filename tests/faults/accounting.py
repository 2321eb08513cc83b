"""What was asked for, against what the ledger says and what the tasks themselves left behind."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

LIVE = "SELECT count(*) FROM ironbeat.runs WHERE task LIKE 'counting.%' AND scheduled_for IS NULL"
ENDED = """
    SELECT id, count(*), min(state) FROM ironbeat.run_history
    WHERE task LIKE 'counting.%' GROUP BY id
"""
SLOTS = """
    SELECT s.name, f.scheduled_for, f.run_id FROM ironbeat.fires f
    JOIN ironbeat.schedules s ON s.id = f.schedule_id WHERE s.task = 'counting.tick'
    ORDER BY s.name, f.scheduled_for
"""


@dataclass
class Traces:
    """When executions began and ended, by run id, in seconds since the epoch."""

    begins: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, path: Path) -> Traces:
        """The traces of a file that the tasks append to."""
        found = cls()
        for line in path.read_text().splitlines():
            event, id, at, _ = line.split()
            (found.begins if event == "begin" else found.ends)[id].append(float(at))
        return found

    @property
    def repeated(self) -> int:
        """Executions beyond the first of each run: what died in the middle and ran again."""
        return sum(len(times) - 1 for times in self.begins.values())

    @property
    def overlapped(self) -> int:
        """Runs of which a second execution began before the first one ended, and both ended."""
        return sum(
            1
            for id, begins in self.begins.items()
            if len(begins) > 1 and len(self.ends[id]) > 1 and sorted(begins)[1] < min(self.ends[id])
        )

    def longest_pause(self, since: float, until: float) -> float:
        """The longest time in which no task began."""
        times = sorted(t for all in self.begins.values() for t in all if since <= t <= until)
        return max((b - a for a, b in zip([since, *times], times, strict=False)), default=0.0)


@dataclass(frozen=True)
class Account:
    """One row of the fault table. ``lost`` and ``doubled`` must be 0."""

    scenario: str
    submitted: int
    fires: int
    lost: int
    missed: int
    doubled: int
    repeated: int
    overlapped: int
    recovery_s: float
    pause_s: float

    def problems(self) -> list[str]:
        """What is wrong with it; empty when it holds."""
        wrong = {"lost": self.lost, "missed": self.missed, "doubled": self.doubled}
        return [f"{self.scenario}: {count} {name}" for name, count in wrong.items() if count]


def settle(url: str, submitted: Sequence[str], until: float, seconds: float) -> None:
    """Wait until every submitted run has ended, and every slot's up to ``until`` (seconds since the
    epoch), or ``seconds`` have passed.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with psycopg.connect(url) as connection:
            ended = {row[0] for row in connection.execute(ENDED)}
            slots = connection.execute(SLOTS).fetchall()
        due = [run for _, at, run in slots if at.timestamp() <= until]
        if ended.issuperset(submitted) and ended.issuperset(due):
            return
        time.sleep(0.5)


def reckon(
    scenario: str,
    url: str,
    traces: Traces,
    submitted: Sequence[str],
    until: float,
    recovery_s: float,
    pause_s: float,
) -> Account:
    """Account for every submitted id and every due slot up to ``until`` (seconds since epoch)."""
    with psycopg.connect(url) as connection:
        ended = {id: (count, state) for id, count, state in connection.execute(ENDED)}
        slots = connection.execute(SLOTS).fetchall()
    expected = [*submitted, *(run for _, at, run in slots if at.timestamp() <= until)]
    lost = [id for id in expected if ended.get(id, (0, ""))[1] != "succeeded"]
    doubled = [id for id in expected if ended.get(id, (0, ""))[0] > 1]
    return Account(
        scenario=scenario,
        submitted=len(submitted),
        fires=len(expected) - len(submitted),
        lost=len(lost),
        missed=missed((name, at) for name, at, _ in slots),
        doubled=len(doubled) + sum(n - 1 for n in Counter(expected).values()),
        repeated=traces.repeated,
        overlapped=traces.overlapped,
        recovery_s=round(recovery_s, 1),
        pause_s=round(pause_s, 1),
    )


def missed(slots: Iterable[tuple[str, Any]]) -> int:
    """Seconds without a fire between the first and the last one of each one-second schedule."""
    times: dict[str, list[float]] = defaultdict(list)
    for name, at in slots:
        times[name].append(at.timestamp())
    return sum(
        round(found[-1] - found[0]) + 1 - len(found) for found in map(sorted, times.values())
    )
