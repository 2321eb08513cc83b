"""What is fired now, what was missed, and what comes next: pure decisions over a cadence.

A fire has a *nominal* time, which the cadence gives and which names it for ever, and a *due* time,
the nominal time plus a jitter that is the same each time it is asked for. Beat hands in a schedule
whose stored fire has become due; :func:`plan` answers with all fires that have come due since.

Beat is never exactly on time, so a fire made within :data:`ON_TIME` of its due time is always made.
What is later was missed, while no beat was running or the database was away, and the schedule's
catch-up policy decides:

``skip``
    Late fires are passed over, but for one that is at most min(period, 60 s) late.
``latest``
    Only the latest fire is made, if it is at most min(period, 1 h) late.
``all``
    The latest ``catch_up_max`` fires are made.
``window``
    The fires that are at most ``catch_up_window`` late are made.

No policy makes more than :data:`MOST_FIRES` at once. The cost depends on the number of fires made,
not on how many were missed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ironbeat.schedules.cadence import Cadence
from ironbeat.workload import CatchUp

ON_TIME = timedelta(seconds=5)
SKIP_GRACE = timedelta(seconds=60)
LATEST_WITHIN = timedelta(hours=1)
ONCE_WITHIN = timedelta(hours=1)
MOST_FIRES = 10_000

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Fire:
    """A schedule that becomes due: for which nominal time, and when (both UTC)."""

    scheduled_for: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Skipped:
    """Fires that were missed and are not made: first and last nominal time, how many, and why."""

    first: datetime
    last: datetime
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with a schedule now. ``None`` for the next fire: it never fires again."""

    fires: tuple[Fire, ...]
    skipped: tuple[Skipped, ...]
    next_scheduled_for: datetime | None
    next_fire_at: datetime | None


def jitter(key: str, scheduled_for: datetime, seconds: int) -> timedelta:
    """A delay of 0 to ``seconds`` that depends on ``key`` and the nominal time alone."""
    if seconds <= 0:
        return timedelta(0)
    seed = f"{key}\0{scheduled_for.timestamp():.6f}".encode()
    drawn = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big")
    return timedelta(microseconds=drawn * (seconds * 1_000_000 + 1) >> 64)


def due_at(cadence: Cadence, scheduled_for: datetime, *, jitter_seconds: int, key: str) -> datetime:
    """When the fire for ``scheduled_for`` is due: always before the next one's nominal time."""
    if jitter_seconds <= 0:
        return scheduled_for
    following = cadence.after(scheduled_for)
    if following is not None:
        room = following - scheduled_for - _MICROSECOND
        jitter_seconds = min(jitter_seconds, int(room.total_seconds()))
    return scheduled_for + jitter(key, scheduled_for, jitter_seconds)


def first(
    cadence: Cadence,
    *,
    now: datetime,
    starts_at: datetime | None,
    ends_at: datetime | None,
    jitter_seconds: int,
    key: str,
) -> tuple[datetime, datetime] | None:
    """The nominal and the due time of the first fire of a schedule that is not planned yet.

    It lies after ``now`` and not before ``starts_at``, so that a new, edited or resumed schedule
    never catches up. Only a ``once`` may lie in the past, by :data:`ONCE_WITHIN`: planned a moment
    after its time, it still runs. ``None``: it never fires.
    """
    if starts_at is not None and starts_at > now:
        found = cadence.after(starts_at - _MICROSECOND)
    else:
        since = now - ONCE_WITHIN if cadence.fires_once else now
        if starts_at is not None:
            since = max(since, starts_at - _MICROSECOND)
        found = cadence.after(since)
    if found is None or _over(found, ends_at):
        return None
    return found, due_at(cadence, found, jitter_seconds=jitter_seconds, key=key)


def upcoming(
    cadence: Cadence,
    *,
    scheduled_for: datetime | None,
    ends_at: datetime | None,
    jitter_seconds: int,
    key: str,
    count: int,
) -> list[Fire]:
    """The fires from the nominal time ``scheduled_for`` on, at most ``count``."""
    fires: list[Fire] = []
    nominal = scheduled_for
    while nominal is not None and len(fires) < count and not _over(nominal, ends_at):
        due = due_at(cadence, nominal, jitter_seconds=jitter_seconds, key=key)
        fires.append(Fire(nominal, due))
        nominal = cadence.after(nominal)
    return fires


def plan(
    cadence: Cadence,
    *,
    scheduled_for: datetime,
    now: datetime,
    catch_up: CatchUp,
    catch_up_max: int,
    catch_up_window: timedelta | None,
    ends_at: datetime | None,
    jitter_seconds: int,
    key: str,
) -> Plan:
    """Decide over all fires from ``scheduled_for`` (the stored next one) that are due at ``now``.

    Fires come oldest first. What comes next is counted from the nominal times, never from ``now``,
    and is due after it. ``window`` without a window behaves as ``latest``.
    """

    def due(nominal: datetime) -> datetime:
        return due_at(cadence, nominal, jitter_seconds=jitter_seconds, key=key)

    # What nearly always happens, and need not be slower than one look ahead: one fire is due, on
    # time. The stored time is taken at its word, even if the zone's rules have changed since.
    fire = Fire(scheduled_for, due(scheduled_for))
    if timedelta(0) <= now - fire.due_at <= ON_TIME and not _over(scheduled_for, ends_at):
        following, following_due = _next(cadence.after(scheduled_for), ends_at, due)
        if following_due is None or following_due > now:
            return Plan((fire,), (), following, following_due)

    horizon = now if ends_at is None else min(now, ends_at)
    last = cadence.before(horizon)
    if last is not None and due(last) > now:
        # Its jitter has not passed yet. Due times keep the order of nominal times, and none
        # reaches beyond the next nominal time, so the one before it is due.
        last = cadence.before(last - _MICROSECOND)
    if last is None or last < scheduled_for:
        following = cadence.after(scheduled_for - _MICROSECOND)
        return Plan((), (), *_next(following, ends_at, due))

    wanted = _wanted(cadence, last, catch_up, catch_up_max, catch_up_window)
    fires: list[Fire] = []
    nominal: datetime | None = last
    while nominal is not None and nominal >= scheduled_for and len(fires) < MOST_FIRES:
        fire = Fire(nominal, due(nominal))
        lateness = now - fire.due_at
        if lateness > ON_TIME and not wanted(len(fires), lateness):
            break
        fires.append(fire)
        nominal = cadence.before(nominal - _MICROSECOND)
    fires.reverse()

    skipped: tuple[Skipped, ...] = ()
    if nominal is not None and nominal >= scheduled_for:
        reason = _reason(catch_up, catch_up_max, catch_up_window, made=len(fires))
        start = cadence.after(scheduled_for - _MICROSECOND) or nominal
        count = cadence.count(scheduled_for - _MICROSECOND, nominal)
        skipped = (Skipped(start, nominal, count, reason),)
    return Plan(tuple(fires), skipped, *_next(cadence.after(last), ends_at, due))


def _next(
    nominal: datetime | None, ends_at: datetime | None, due: Callable[[datetime], datetime]
) -> tuple[datetime | None, datetime | None]:
    if nominal is None or _over(nominal, ends_at):
        return None, None
    return nominal, due(nominal)


def _over(nominal: datetime, ends_at: datetime | None) -> bool:
    return ends_at is not None and nominal > ends_at


def _wanted(
    cadence: Cadence,
    last: datetime,
    catch_up: CatchUp,
    catch_up_max: int,
    catch_up_window: timedelta | None,
) -> Callable[[int, timedelta], bool]:
    """Whether a late fire is made, by how many later ones are and how late it is."""
    if catch_up == "all":
        return lambda made, lateness: made < catch_up_max
    if catch_up == "window" and catch_up_window is not None:
        window = catch_up_window
        return lambda made, lateness: lateness <= window
    # A window that is not given is no window: the default applies.
    period = cadence.period(last)
    if catch_up == "skip":
        grace = min(period, SKIP_GRACE)
        return lambda made, lateness: lateness <= grace
    newest = min(period, LATEST_WITHIN)
    return lambda made, lateness: made == 0 and lateness <= newest


def _reason(
    catch_up: CatchUp, catch_up_max: int, catch_up_window: timedelta | None, *, made: int
) -> str:
    if made >= MOST_FIRES:
        return f"missed; at most {MOST_FIRES} fires are caught up at once"
    if catch_up == "all":
        return f"missed; catch-up 'all' makes the latest {catch_up_max}"
    if catch_up == "window" and catch_up_window is not None:
        return f"missed; catch-up 'window' makes those of the last {catch_up_window}"
    if catch_up == "skip":
        return "missed; catch-up is 'skip'"
    if made:
        return "missed; catch-up 'latest' makes only the latest"
    return "missed; catch-up 'latest' makes none that is later than min(period, 1 h)"
