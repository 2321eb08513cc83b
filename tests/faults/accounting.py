"""What was asked for, against what the ledger says and what the tasks themselves left behind."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

ENDED = """
    SELECT id, count(*), min(state) FROM ironbeat.run_history
    WHERE task LIKE 'counting.%' GROUP BY id
"""
SLOTS = """
    SELECT s.name, extract(epoch FROM f.scheduled_for)::double precision, f.run_id
    FROM ironbeat.fires f JOIN ironbeat.schedules s ON s.id = f.schedule_id
    WHERE s.task = 'counting.tick'
        AND f.scheduled_for BETWEEN to_timestamp(%(since)s) AND to_timestamp(%(until)s)
    ORDER BY s.name, f.scheduled_for
"""


@dataclass
class Traces:
    """When executions began and ended, by run id, in seconds since the epoch."""

    begins: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, path: Path, since: float = 0.0) -> Traces:
        """The traces of a file that the tasks append to, of executions that began since then."""
        return cls.of(path.read_text().splitlines(), since)

    @classmethod
    def of(cls, lines: Iterable[str], since: float = 0.0) -> Traces:
        """The traces that these lines are, of executions that began since then."""
        found = cls()
        for line in lines:
            event, id, at, _ = line.split()
            if event == "begin" and float(at) >= since:
                found.begins[id].append(float(at))
            elif event == "end" and id in found.begins:
                found.ends[id].append(float(at))
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
    """What one scenario came to. ``lost``, ``missed`` and ``doubled`` must be 0.

    ``submitted`` and ``fires`` are what was asked for, ``repeated`` executions after the first of a
    run, ``overlapped`` runs of which two executions ran at once and both ended. ``recovery_s`` is
    what the scenario measured, ``pause_s`` the longest time in which no task began.
    """

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
    refused: int = 0


@dataclass(frozen=True)
class Window:
    """What is accounted for: what was due or begun in this time, in seconds since the epoch."""

    url: str
    since: float
    until: float

    def slots(self) -> list[tuple[str, float, str]]:
        """The slots that were fired: schedule, when, run."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(SLOTS, {"since": self.since, "until": self.until}).fetchall()

    def ended(self) -> dict[str, tuple[int, str]]:
        """The runs that have ended: how often (once), and how."""
        with psycopg.connect(self.url) as connection:
            return {id: (n, state) for id, n, state in connection.execute(ENDED)}


def settle(window: Window, submitted: Sequence[str], seconds: float) -> None:
    """Wait until every submitted run and every slot's has ended, or ``seconds`` have passed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended = window.ended()
        if ended.keys() >= {*submitted, *(run for _, _, run in window.slots())}:
            return
        time.sleep(0.5)


def reckon(
    scenario: str,
    window: Window,
    traces: Traces,
    submitted: Sequence[str],
    recovery_s: float,
    pause_s: float,
    refused: int = 0,
) -> Account:
    """Account for every submitted id and every due slot."""
    ended, slots = window.ended(), window.slots()
    expected = [*submitted, *(run for _, _, run in slots)]
    lost = [id for id in expected if ended.get(id, (0, ""))[1] != "succeeded"]
    doubled = [id for id in expected if ended.get(id, (0, ""))[0] > 1]
    return Account(
        scenario=scenario,
        submitted=len(submitted),
        fires=len(slots),
        lost=len(lost),
        missed=missed((name, at) for name, at, _ in slots),
        doubled=len(doubled) + sum(n - 1 for n in Counter(expected).values()),
        repeated=traces.repeated,
        overlapped=traces.overlapped,
        recovery_s=round(recovery_s, 1),
        pause_s=round(pause_s, 1),
        refused=refused,
    )


def missed(slots: Iterable[tuple[str, float]]) -> int:
    """Seconds without a fire between the first and the last one of each one-second schedule."""
    times: dict[str, list[float]] = defaultdict(list)
    for name, at in slots:
        times[name].append(at)
    return sum(
        round(found[-1] - found[0]) + 1 - len(found) for found in map(sorted, times.values())
    )
