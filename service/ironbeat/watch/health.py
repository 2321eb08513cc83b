"""Whether the suite works, in under a second whatever hangs.

``/health`` and ``ironbeat health`` answer with :meth:`Health.body`. What was seen
(:class:`Observations`) is kept apart from what it means (:func:`judge_health`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
import redis

from ironbeat.settings import Settings, get_settings
from ironbeat.watch.fleet import instant
from ironbeat.watch.stores import Probe, broker, database

Status = Literal["healthy", "degraded", "unhealthy"]

# How long the answer may wait for the servers. The rest of the second is for a busy machine.
DEADLINE_SECONDS = 0.7
# An answer this recent is given again: a flood of requests opens few connections.
FRESH_SECONDS = 0.25
# A beat whose lease is alive but that has not ticked for so long is stuck.
BEAT_STALLED_SECONDS = 30.0
# How long a question may stay open behind the back of those who no longer wait.
PROBE_SECONDS = 2.0
# What has nothing to do where there is no broker.
NEED_BROKER = ("flower", "rq")

_LEASES = """
SELECT count(*) FILTER (WHERE kind = 'worker'),
       count(*) FILTER (WHERE kind = 'beat'),
       count(*) FILTER (WHERE kind = 'scheduler'),
       count(*) FILTER (WHERE kind = 'worker' AND info ->> 'source' = 'ledger'),
       array_agg(info -> 'beat' ->> 'last_tick_at') FILTER (WHERE kind = 'beat'),
       clock_timestamp()
FROM ironbeat.leases WHERE expires_at > clock_timestamp()
"""


@dataclass(frozen=True, slots=True)
class Observations:
    """What was seen.

    ``database`` and ``redis`` are ``None`` when the server answered and else say what is wrong.
    The counts are of live leases and ``None`` when they could not be read; ``drawing`` counts the
    workers that draw their runs from the ledger. ``tick_age`` (seconds) is that of the freshest
    beat, ``None`` when no beat has told.
    """

    database: str | None = None
    redis: str | None = None
    use_redis: bool = True
    workers: int | None = None
    beats: int | None = None
    schedulers: int | None = None
    drawing: int | None = None
    tick_age: float | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The answer: ``checks`` has a text for each part, which begins with ``ok`` when it is well.

    ``healthy``; ``degraded`` when the broker-less fallback does the work; ``unhealthy`` otherwise.
    ``seconds`` is how long it took to find out.
    """

    status: Status
    checks: Mapping[str, str]
    seconds: float = field(default=0.0, compare=False)

    def body(self) -> dict[str, Any]:
        """The body of ``/health``."""
        return {"status": self.status, "checks": dict(self.checks)}

    @property
    def http_status(self) -> int:
        """200, or 503 when unhealthy."""
        return 503 if self.status == "unhealthy" else 200


def judge_health(seen: Observations) -> Health:
    """What ``seen`` means.

    Redis is dispensable while somebody draws work from the ledger: the workers themselves, or a
    ``TaskScheduler`` where there is no worker. PostgreSQL is not.
    """
    workers, beats, schedulers = seen.workers or 0, seen.beats or 0, seen.schedulers or 0
    fallback = bool(workers or schedulers) and seen.database is None
    ticking = bool(beats) and (seen.tick_age or 0.0) <= BEAT_STALLED_SECONDS
    checks: dict[str, str] = {}
    checks["database"] = seen.database or "ok"
    if not seen.use_redis:
        checks["redis"] = "not used (USE_REDIS=false)"
        checks |= dict.fromkeys(NEED_BROKER, "disabled (USE_REDIS=false)")
    else:
        checks["redis"] = seen.redis or "ok"
    if seen.workers is None:
        checks["celery_worker"] = "unknown: the database does not answer"
    else:
        checks["celery_worker"] = f"ok ({workers} workers)" if workers else "no active workers"
    if seen.beats is None:
        checks["beat"] = "unknown: the database does not answer"
    elif not beats:
        checks["beat"] = "no active beat"
    else:
        checks["beat"] = "ok" if ticking else f"no tick for {seen.tick_age:.0f} s"
    if seen.drawing:
        checks["fallback"] = f"active: {seen.drawing} workers draw their runs from the ledger"
    if schedulers:
        checks["task_scheduler"] = "active: schedules run without beat or broker"

    redis_works = seen.use_redis and seen.redis is None
    if seen.database is None and redis_works and workers and ticking and not seen.drawing:
        status: Status = "healthy"
    elif fallback and (ticking or schedulers):
        status = "degraded"
    else:
        status = "unhealthy"
    return Health(status, checks)


class HealthCheck:
    """Asks both servers at once and judges what answered in time.

    One instance serves a whole process: its probes are shared by all who ask at the same time.
    """

    def __init__(self, settings: Settings | None = None):
        self._settings = settings or get_settings()
        self._database = Probe("database", self._ask_database)
        self._redis = Probe("redis", self._ask_redis)
        self._lock = threading.Lock()
        self._last: tuple[float, Health] | None = None

    def check(self, deadline: float = DEADLINE_SECONDS) -> Health:
        """The health now; answers within ``deadline`` seconds and a little."""
        recent = self._recent()
        if recent is not None:
            return recent
        started = time.monotonic()
        questions = self._ask()
        concurrent.futures.wait(questions.values(), timeout=deadline)
        return self._conclude(questions, started, deadline)

    async def acheck(self, deadline: float = DEADLINE_SECONDS) -> Health:
        """:meth:`check` without blocking the event loop, and without its thread pool."""
        recent = self._recent()
        if recent is not None:
            return recent
        started = time.monotonic()
        questions = self._ask()
        awaited = [asyncio.wrap_future(question) for question in questions.values()]
        for one in awaited:
            # An error is read from the question itself; asyncio wants it looked at here too.
            one.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait(awaited, timeout=deadline)
        return self._conclude(questions, started, deadline)

    def _recent(self) -> Health | None:
        last = self._last
        if last is not None and time.monotonic() - last[0] < FRESH_SECONDS:
            return last[1]
        return None

    def _ask(self) -> dict[str, concurrent.futures.Future[Any]]:
        questions: dict[str, concurrent.futures.Future[Any]] = {"database": self._database.start()}
        if self._settings.use_redis:
            questions["redis"] = self._redis.start()
        return questions

    def _conclude(
        self,
        questions: Mapping[str, concurrent.futures.Future[Any]],
        started: float,
        deadline: float,
    ) -> Health:
        wrong: dict[str, str] = {}
        leases: tuple[int, int, int, int, float | None] | None = None
        for name, question in questions.items():
            if not question.done():
                wrong[name] = f"no answer within {deadline:g} s"
            elif (error := question.exception()) is not None:
                wrong[name] = describe(error)
            elif name == "database":
                leases = question.result()
        workers, beats, schedulers, drawing, tick_age = leases or (None, None, None, None, None)
        judged = judge_health(
            Observations(
                database=wrong.get("database"),
                redis=wrong.get("redis"),
                use_redis=self._settings.use_redis,
                workers=workers,
                beats=beats,
                schedulers=schedulers,
                drawing=drawing,
                tick_age=tick_age,
            )
        )
        ended = time.monotonic()
        health = Health(judged.status, judged.checks, ended - started)
        with self._lock:
            self._last = (ended, health)
        return health

    def _ask_database(self) -> tuple[int, int, int, int, float | None]:
        with database(self._settings, PROBE_SECONDS, "ironbeat-health") as connection:
            found = connection.execute(_LEASES).fetchone()
        assert found is not None
        workers, beats, schedulers, drawing, ticks, now = found
        told = [tick for tick in map(instant, ticks or ()) if tick is not None]
        tick_age = max(0.0, (now - max(told)).total_seconds()) if told else None
        return (workers, beats, schedulers, drawing, tick_age)

    def _ask_redis(self) -> None:
        with broker(self._settings, PROBE_SECONDS) as client:
            client.ping()


def describe(error: BaseException) -> str:
    """What is wrong with a server, in words that give no address or account away.

    ``/health`` is read without a token, so the error's own text, which names both, stays out.
    """
    text = str(error).lower()
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return "reachable, but not migrated: run `ironbeat db upgrade`"
    if isinstance(error, psycopg.errors.QueryCanceled):
        return "too slow"
    if isinstance(error, psycopg.errors.ConnectionTimeout | redis.exceptions.TimeoutError):
        return "no answer"
    if isinstance(error, redis.exceptions.AuthenticationError) or "authentication" in text:
        return "the login is refused"
    if isinstance(error, redis.exceptions.BusyLoadingError):
        return "still loading its data"
    for sign, meaning in (
        ("connection refused", "connection refused"),
        ("no such file", "connection refused"),
        ("starting up", "still starting"),
        ("shutting down", "shutting down"),
        ("too many clients", "too many connections"),
        ("name or service not known", "the host's name is unknown"),
        ("failed to resolve", "the host's name is unknown"),
        ("server closed the connection", "the connection broke off"),
        ("does not exist", "reachable, but the database does not exist"),
        ("timeout", "no answer"),
        ("timed out", "no answer"),
    ):
        if sign in text:
            return meaning
    return f"unreachable ({type(error).__name__})"


def check_health(settings: Settings | None = None) -> Health:
    """The health now, for those who ask once; in under a second."""
    return HealthCheck(settings).check()
