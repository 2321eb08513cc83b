"""Who is at work: workers and beats, as their leases tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

# A lease that lapsed this long ago no longer says anything about now.
GONE_AFTER_SECONDS = 600

_LEASES = """
SELECT id, kind, name, host, pid, queues, started_at, renewed_at, info,
       expires_at > clock_timestamp() AS alive,
       greatest(0, extract(epoch FROM clock_timestamp() - renewed_at))::float8 AS silent_seconds,
       clock_timestamp() AS now
FROM ironbeat.leases
WHERE expires_at > clock_timestamp() - make_interval(secs => %(gone)s)
ORDER BY alive DESC, kind, name, started_at DESC
"""


@dataclass(frozen=True, slots=True)
class Execution:
    """What a worker is doing: one task since a time, ``seconds`` ago."""

    id: str
    task: str
    since: datetime | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Process:
    """What every process with a lease tells of itself.

    ``alive``: its lease has not lapsed. ``silent_seconds``: since it last renewed it. ``rss_mb`` is
    resident memory, ``cpu_pct`` percent of one core; ``None`` where it has not told.
    """

    id: str
    kind: str
    name: str
    host: str
    pid: int
    alive: bool
    started_at: datetime
    renewed_at: datetime
    silent_seconds: float
    version: str | None
    rss_mb: float | None
    cpu_pct: float | None


@dataclass(frozen=True, slots=True)
class Worker(Process):
    """A worker: what it consumes from, has registered, is running, and how much it has consumed.

    ``drawing``: it draws its runs from the ledger, as the broker is away.
    """

    queues: tuple[str, ...]
    concurrency: int | None
    running: tuple[Execution, ...]
    tasks: tuple[str, ...]
    consumed: int | None
    drawing: bool = False


@dataclass(frozen=True, slots=True)
class Beat(Process):
    """A beat: when it last ticked, how much it has fired, and how late it was at the last tick.

    ``heartbeat_age_seconds``: since the heartbeat address last took a ping of it, or since it
    started where none was taken; ``None`` where there is no such address.
    """

    last_tick_at: datetime | None
    tick_age_seconds: float | None
    fired: int | None
    lateness_ms: float | None
    heartbeat_age_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that a watchdog ended: ``finding`` is hung, silent or stalled."""

    name: str
    pid: int | None
    finding: str
    why: str
    at: datetime | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Watchdog(Process):
    """A host's watchdog: the latest processes it had to end, and how many by finding."""

    ended: tuple[Ended, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Scaler(Process):
    """A host's scaler: how many spare workers run, how many it started and stopped so far."""

    spares_running: int | None
    started: int | None
    stopped: int | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """All processes that hold a lease or lost one in the last ten minutes.

    ``workers`` are Celery's, ``rq_workers`` RQ's.
    """

    workers: tuple[Worker, ...]
    beats: tuple[Beat, ...]
    schedulers: tuple[Process, ...]
    others: tuple[Process, ...]
    rq_workers: tuple[Worker, ...] = ()

    @property
    def live_workers(self) -> tuple[Worker, ...]:
        """The workers whose lease holds."""
        return tuple(worker for worker in self.workers if worker.alive)

    @property
    def live_beats(self) -> tuple[Beat, ...]:
        """The beats whose lease holds."""
        return tuple(beat for beat in self.beats if beat.alive)

    @property
    def watchdogs(self) -> tuple[Watchdog, ...]:
        """The hosts' watchdogs."""
        return tuple(each for each in self.others if isinstance(each, Watchdog))

    @property
    def scalers(self) -> tuple[Scaler, ...]:
        """The hosts' scalers."""
        return tuple(each for each in self.others if isinstance(each, Scaler))


def read_fleet(connection: psycopg.Connection[Any]) -> Fleet:
    """The processes of the suite, wherever they run."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_LEASES, {"gone": GONE_AFTER_SECONDS}).fetchall()
    workers: list[Worker] = []
    beats: list[Beat] = []
    schedulers: list[Process] = []
    others: list[Process] = []
    rq_workers: list[Worker] = []
    for row in rows:
        if row["kind"] == "worker":
            workers.append(_worker(row))
        elif row["kind"] == "rq":
            rq_workers.append(_worker(row))
        elif row["kind"] == "beat":
            beats.append(_beat(row))
        elif row["kind"] == "scheduler":
            schedulers.append(Process(**_common(row)))
        elif row["kind"] == "watchdog":
            others.append(_watchdog(row))
        elif row["kind"] == "scaler":
            others.append(_scaler(row))
        else:
            others.append(Process(**_common(row)))
    return Fleet(tuple(workers), tuple(beats), tuple(schedulers), tuple(others), tuple(rq_workers))


def instant(value: Any) -> datetime | None:
    """The instant that a process wrote: ISO 8601 with its offset, or seconds since the epoch.

    ``None`` for anything else.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return found if found.tzinfo is not None else None


def _common(row: Mapping[str, Any]) -> dict[str, Any]:
    info = _info(row)
    return {
        "id": row["id"],
        "kind": row["kind"],
        "name": row["name"],
        "host": row["host"],
        "pid": row["pid"],
        "alive": row["alive"],
        "started_at": row["started_at"],
        "renewed_at": row["renewed_at"],
        "silent_seconds": row["silent_seconds"],
        "version": _text(info.get("version")),
        "rss_mb": _number(info.get("rss_mb")),
        "cpu_pct": _number(info.get("cpu_pct")),
    }


def _worker(row: Mapping[str, Any]) -> Worker:
    info = _info(row)
    return Worker(
        **_common(row),
        queues=tuple(row["queues"]),
        concurrency=_whole(info.get("concurrency")),
        running=tuple(
            _execution(item, row["now"])
            for item in info.get("running") or ()
            if isinstance(item, Mapping)
        ),
        tasks=tuple(str(task) for task in info.get("tasks") or ()),
        consumed=_whole(info.get("consumed")),
        drawing=info.get("source") == "ledger",
    )


def _beat(row: Mapping[str, Any]) -> Beat:
    told = _info(row).get("beat")
    told = told if isinstance(told, Mapping) else {}
    ticked = instant(told.get("last_tick_at"))
    return Beat(
        **_common(row),
        last_tick_at=ticked,
        tick_age_seconds=_age(ticked, row["now"]),
        fired=_whole(told.get("fired")),
        lateness_ms=_number(told.get("lateness_ms")),
        heartbeat_age_seconds=_age(instant(told.get("heartbeat_at")), row["now"]),
    )


def _watchdog(row: Mapping[str, Any]) -> Watchdog:
    told = _info(row).get("watchdog")
    told = told if isinstance(told, Mapping) else {}
    ended = [each for each in told.get("ended") or () if isinstance(each, Mapping)]
    counts = told.get("counts")
    return Watchdog(
        **_common(row),
        ended=tuple(_ended(each, row["now"]) for each in ended),
        counts={
            str(finding): int(number)
            for finding, number in (counts.items() if isinstance(counts, Mapping) else ())
            if isinstance(number, int)
        },
    )


def _ended(item: Mapping[str, Any], now: datetime) -> Ended:
    at = instant(item.get("at"))
    return Ended(
        name=str(item.get("name", "")),
        pid=_whole(item.get("pid")),
        finding=str(item.get("finding", "")),
        why=str(item.get("why", "")),
        at=at,
        seconds=_age(at, now),
    )


def _scaler(row: Mapping[str, Any]) -> Scaler:
    told = _info(row).get("scaler")
    told = told if isinstance(told, Mapping) else {}
    return Scaler(
        **_common(row),
        spares_running=_whole(told.get("spares_running")),
        started=_whole(told.get("started")),
        stopped=_whole(told.get("stopped")),
    )


def _execution(item: Mapping[str, Any], now: datetime) -> Execution:
    since = instant(item.get("since"))
    return Execution(str(item.get("id", "")), str(item.get("task", "")), since, _age(since, now))


def _age(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else max(0.0, (now - since).total_seconds())


def _info(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return row["info"] if isinstance(row["info"], Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None
