"""How queues and limits went over the last days: a look every half minute, kept in PostgreSQL.

Every host's watchdog offers to look; the first one in a slot of the clock does, so there is one row
per queue and slot however many hosts there are, and the history goes on as long as one of them is
up. It survives every restart, and what is older than a week goes by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg

from ironbeat import queries
from ironbeat.settings import Settings
from ironbeat.watch import stores
from ironbeat.watch.report import Status, status

logger = logging.getLogger(__name__)

SQL = queries.load("ironbeat.watch", "history.sql")

EVERY_SECONDS = 30.0
KEPT = timedelta(days=7)
DEADLINE_SECONDS = 10.0
# A plot has at most so many points, and so many lines.
MOST_POINTS = 240
MOST_LINES = 8

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One queue over time: at ``times[i]`` (seconds since the epoch) ``lengths[i]`` waited.

    ``oldest`` is the age in seconds of the message that had waited longest. A step nobody looked
    in has ``None``.
    """

    queue: str
    lengths: Sequence[int | None]
    oldest: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Course:
    """The queues over time; all lines share ``times``, which lie ``step`` seconds apart."""

    times: Sequence[int]
    step: float
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Trend:
    """The figure of one limit over time; ``ok`` says of each step whether the limit held."""

    values: Sequence[float | None]
    ok: Sequence[bool]


def sample(settings: Settings, *, every: float = EVERY_SECONDS) -> bool:
    """Look, unless somebody has looked in this slot already; returns whether this one did.

    Raises :class:`psycopg.Error` when PostgreSQL is away.
    """
    with stores.database(
        settings, DEADLINE_SECONDS, "ironbeat-history", read_only=False
    ) as connection:
        row = connection.execute(SQL["take_slot"], {"every": every}).fetchone()
        if row is None:
            return False
        seen = status(settings, schedule_limit=0, failure_limit=0, deadline=DEADLINE_SECONDS / 2)
        record(connection, row[0], seen)
        connection.execute(SQL["forget"], {"seconds": KEPT.total_seconds()})
        return True


def record(connection: Connection, at: datetime, seen: Status) -> None:
    """Keep what was ``seen`` under the slot ``at``."""
    queues = [
        {"queue": queue.name, "length": queue.length, "oldest": queue.oldest_age_seconds}
        for queue in seen.queues
        if queue.length is not None
    ]
    limits = [{"name": each.name, "value": each.value, "ok": each.ok} for each in seen.limits]
    for name, rows in (("add_queues", queues), ("add_limits", limits)):
        connection.execute(SQL[name], {"at": at, "rows": orjson.dumps(rows).decode()})


def read_queues(connection: Connection, period: timedelta, queue: str | None = None) -> Course:
    """The longest queues over the last ``period``, or the one named."""
    since, step = _grid(period)
    rows = connection.execute(
        SQL["queues"], {"since": since, "step": step, "queue": queue, "most": MOST_LINES}
    ).fetchall()
    times = _times(since, step)
    place = {time: number for number, time in enumerate(times)}
    lengths: dict[str, list[int | None]] = {}
    oldest: dict[str, list[float | None]] = {}
    for time, name, length, age in rows:
        if time in place:
            lengths.setdefault(name, [None] * len(times))[place[time]] = length
            # A queue that is empty has nothing that waits: that is no gap.
            oldest.setdefault(name, [None] * len(times))[place[time]] = age or 0.0
    return Course(times, step, [Line(name, lengths[name], oldest[name]) for name in lengths])


def read_limits(connection: Connection, period: timedelta) -> Mapping[str, Trend]:
    """The limits' figures over the last ``period``, by the limits' names."""
    since, step = _grid(period, 60)
    rows = connection.execute(SQL["limits"], {"since": since, "step": step}).fetchall()
    times = _times(since, step)
    place = {time: number for number, time in enumerate(times)}
    values: dict[str, list[float | None]] = {}
    ok: dict[str, list[bool]] = {}
    for name, time, value, fine in rows:
        if time in place:
            values.setdefault(name, [None] * len(times))[place[time]] = value
            ok.setdefault(name, [True] * len(times))[place[time]] = fine
    return {name: Trend(values[name], ok[name]) for name in values}


def read_since(connection: Connection) -> tuple[Mapping[str, datetime], Mapping[str, datetime]]:
    """Since when limits have been broken, and queues not empty, without a pause; a day at most."""
    broken = connection.execute(SQL["broken_since"]).fetchall()
    waiting = connection.execute(SQL["waiting_since"]).fetchall()
    found = ({name: at for name, at in rows if at is not None} for rows in (broken, waiting))
    return next(found), next(found)


def _grid(period: timedelta, most: int = MOST_POINTS) -> tuple[datetime, float]:
    """Where a plot of ``period`` begins, and how long its steps are (whole slots)."""
    slots = max(1, -(-period.total_seconds() // (most * EVERY_SECONDS)))
    return datetime.now(UTC) - period, slots * EVERY_SECONDS


def _times(since: datetime, step: float) -> list[int]:
    epoch = datetime(2000, 1, 1, tzinfo=UTC)
    first = int((since - epoch).total_seconds() // step) + 1
    last = int((datetime.now(UTC) - epoch).total_seconds() // step)
    start = int(epoch.timestamp())
    return [start + int(number * step) for number in range(first, last + 1)]


class Sampler:
    """Looks every slot, in a thread of its own: what hangs here holds nobody else up."""

    def __init__(self, settings: Settings, every: float = EVERY_SECONDS) -> None:
        self._settings = settings
        self._every = every
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin, in the background."""
        threading.Thread(target=self._run, name="history", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._every / 3):
            try:
                sample(self._settings, every=self._every)
            except (psycopg.Error, OSError) as error:
                # The stores' own alarms say it louder.
                logger.debug("nothing was noted of this moment: %s", error)
            except Exception:
                logger.exception("while noting how the queues are")
