"""When a schedule fires: pure arithmetic of time that knows no clock.

:func:`parse` turns a kind, an expression and a time zone into a :class:`Cadence`, which answers
when the schedule fires next, fired last, and how often in between. Every instant in and out is
aware; those that come out are in UTC.

Kinds:

``cron``
    See :mod:`ironbeat.schedules.cron` for the grammar. When the clocks change, it does what
    Debian's cron does. An expression of five fields that names times of day (neither minute nor
    hour begins with ``*``) fires once: a time that the change leaps over fires right after the
    leap, a time that comes twice fires at its first coming. Any other expression follows the wall
    clock to the letter: it fires at each real instant that matches, twice in a repeated hour and
    not at all in a missing one. Six fields always do so.
``interval``
    ``30s``, ``5m``, ``1h30m``, ``1d``; a bare number is seconds; at least 1 s. It fires at the
    anchor plus a whole multiple of the interval, whatever clocks do.
``solar``
    ``sunset@25.03,121.56``: an event of :data:`ironbeat.schedules.solar.EVENTS` at a latitude and
    longitude in degrees. Days without the event (near the poles) are passed over.
``once``
    An ISO 8601 instant. Without an offset it is a time of the schedule's zone; one that a change
    of the clocks leaps over is moved right after the leap, one that comes twice is the first one.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar
from zoneinfo import ZoneInfoNotFoundError

from ironbeat.schedules import cron, solar, wording
from ironbeat.schedules.zones import (
    DAY,
    FIRST_SECOND,
    LAST_SECOND,
    Zone,
    instant_of,
    seconds_of,
    zone,
)

KINDS = ("cron", "interval", "solar", "once")

SHORTEST_INTERVAL = timedelta(seconds=1)
LONGEST_INTERVAL = timedelta(days=36_525)

# How far to look for a fire: 29 February on a given weekday is at most 40 years away, and near the
# poles the sun rises at least once a year.
_CRON_HORIZON = 100 * 366 * DAY
_SOLAR_HORIZON_DAYS = 800
_MICROSECOND = timedelta(microseconds=1)


class CadenceError(ValueError):
    """A kind, expression or time zone is wrong; the message says what to write instead."""


class Cadence(ABC):
    """When a schedule fires. Immutable; instants in and out are aware, those out in UTC."""

    __slots__ = ()

    #: Whether there is a single fire.
    fires_once: ClassVar[bool] = False

    @abstractmethod
    def after(self, instant: datetime) -> datetime | None:
        """The first fire strictly after ``instant``; ``None``: never again."""

    @abstractmethod
    def before(self, instant: datetime) -> datetime | None:
        """The last fire at or before ``instant``; ``None``: there was none."""

    @abstractmethod
    def count(self, after: datetime, until: datetime) -> int:
        """How many fires there are strictly after ``after`` and up to ``until`` inclusive."""

    @abstractmethod
    def describe(self) -> str:
        """What the expression means, in plain words."""

    def period(self, at: datetime) -> timedelta:
        """From the last fire at or before ``at`` to the next one after it.

        At the beginning or the end of a cadence it is the distance of the nearest two fires, and
        ``timedelta.max`` for one that fires once.
        """
        last, following = self.before(at), self.after(at)
        if last is None and following is not None:
            last, following = following, self.after(following)
        elif following is None and last is not None:
            last, following = self.before(last - _MICROSECOND), last
        if last is None or following is None:
            return timedelta.max
        return following - last


class _Cron(Cadence):
    """A cron expression on the wall clock of a zone."""

    __slots__ = ("calendar", "expression", "zone")

    def __init__(self, expression: str, calendar: cron.Calendar, local: Zone) -> None:
        self.expression = expression
        self.calendar = calendar
        self.zone = local

    def __repr__(self) -> str:
        return f"Cron({self.expression!r}, {self.zone.info.key!r})"

    def after(self, instant: datetime) -> datetime | None:
        at = seconds_of(instant) + 1
        horizon = min(at + _CRON_HORIZON, LAST_SECOND)
        calendar, once_a_day = self.calendar, self.calendar.clock_times
        while at < horizon:
            stretch = self.zone.stretch(at)
            start, end, offset, before = stretch
            wall = at + offset
            if once_a_day and before != offset:
                if before > offset:
                    # Until here the clock shows times that it has shown before.
                    wall = max(wall, start + before)
                else:
                    leapt = self._leapt(start, offset, before)
                    if leapt is not None and leapt >= at:
                        return instant_of(leapt)
            found = calendar.next(wall, end + offset)
            if found is not None:
                return instant_of(found - offset)
            at = end
        return None

    def before(self, instant: datetime) -> datetime | None:
        at = seconds_of(instant)
        horizon = max(at - _CRON_HORIZON, FIRST_SECOND)
        calendar, once_a_day = self.calendar, self.calendar.clock_times
        while at >= horizon:
            start, _, offset, before = self.zone.stretch(at)
            first = start + (max(offset, before) if once_a_day else offset)
            found = calendar.previous(at + offset, first) if at + offset >= first else None
            if found is not None:
                return instant_of(found - offset)
            if once_a_day and before < offset:
                leapt = self._leapt(start, offset, before)
                if leapt is not None and leapt <= at:
                    return instant_of(leapt)
            at = start - 1
        return None

    def count(self, after: datetime, until: datetime) -> int:
        at, stop = seconds_of(after) + 1, seconds_of(until) + 1
        at, stop = max(at, FIRST_SECOND), min(stop, LAST_SECOND)
        calendar, once_a_day = self.calendar, self.calendar.clock_times
        total = 0
        while at < stop:
            start, end, offset, before = self.zone.stretch(at)
            end = min(end, stop)
            wall = at + offset
            if once_a_day and before > offset:
                wall = max(wall, start + before)
            if once_a_day and before < offset:
                leapt = self._leapt(start, offset, before)
                if leapt is not None and at <= leapt < end:
                    # A regular fire at the same moment is the same fire.
                    shown = leapt + offset
                    total += calendar.next(shown, shown + 1) is None
            total += calendar.count(wall, end + offset)
            at = end
        return total

    def describe(self) -> str:
        return wording.of_cron(self.calendar)

    def _leapt(self, start: int, offset: int, before: int) -> int | None:
        """When to make up for the times that the clock leapt over at ``start``, if it must."""
        if self.calendar.next(start + before, start + offset) is None:
            return None
        # Whole minutes, as everywhere in cron; only changes before 1973 were at odd seconds.
        return start + -(start + offset) % 60


class _Interval(Cadence):
    """Every so often, counted from an anchor."""

    __slots__ = ("_anchor", "_step", "anchor", "step")

    def __init__(self, step: timedelta, anchor: datetime) -> None:
        self.step = step
        self.anchor = anchor.astimezone(UTC)
        self._step = step // _MICROSECOND

    def __repr__(self) -> str:
        return f"Interval({self.step!r}, {self.anchor.isoformat()!r})"

    def _number(self, instant: datetime) -> int:
        """The number of the last fire at or before ``instant``; below 0: before the first."""
        return (instant - self.anchor) // _MICROSECOND // self._step

    def _fire(self, number: int) -> datetime | None:
        try:
            return self.anchor + timedelta(microseconds=number * self._step)
        except OverflowError:
            return None

    def after(self, instant: datetime) -> datetime | None:
        return self._fire(max(self._number(instant) + 1, 0))

    def before(self, instant: datetime) -> datetime | None:
        number = self._number(instant)
        return self._fire(number) if number >= 0 else None

    def count(self, after: datetime, until: datetime) -> int:
        return max(max(self._number(until), -1) - max(self._number(after), -1), 0)

    def period(self, at: datetime) -> timedelta:
        return self.step

    def describe(self) -> str:
        return wording.of_interval(self.step)


class _Solar(Cadence):
    """An event of the sun at a place."""

    __slots__ = ("event", "latitude", "longitude")

    def __init__(self, event: str, latitude: float, longitude: float) -> None:
        self.event = event
        self.latitude = latitude
        self.longitude = longitude

    def __repr__(self) -> str:
        return f"Solar({self.event!r}, {self.latitude}, {self.longitude})"

    def _on(self, day: int) -> int | None:
        return solar.event(self.event, self.latitude, self.longitude, day)

    def after(self, instant: datetime) -> datetime | None:
        at = seconds_of(instant)
        # Longitude and the event's distance from noon each move it by half a day at most.
        day = at // DAY - 1
        for number in range(day, day + _SOLAR_HORIZON_DAYS):
            found = self._on(number)
            if found is not None and found > at:
                return instant_of(found) if found < LAST_SECOND else None
        return None

    def before(self, instant: datetime) -> datetime | None:
        at = seconds_of(instant)
        day = at // DAY + 1
        for number in range(day, day - _SOLAR_HORIZON_DAYS, -1):
            found = self._on(number)
            if found is not None and found <= at:
                return instant_of(found) if found > FIRST_SECOND else None
        return None

    def count(self, after: datetime, until: datetime) -> int:
        first, last = seconds_of(after), seconds_of(until)
        total = 0
        for number in range(first // DAY - 1, last // DAY + 2):
            found = self._on(number)
            total += found is not None and first < found <= last
        return total

    def describe(self) -> str:
        return wording.of_solar(self.event, self.latitude, self.longitude)


class _Once(Cadence):
    """A single instant."""

    __slots__ = ("_local", "at")

    fires_once = True

    def __init__(self, at: datetime, local: str) -> None:
        self.at = at
        self._local = local

    def __repr__(self) -> str:
        return f"Once({self.at.isoformat()!r})"

    def after(self, instant: datetime) -> datetime | None:
        return self.at if self.at > instant else None

    def before(self, instant: datetime) -> datetime | None:
        return self.at if self.at <= instant else None

    def count(self, after: datetime, until: datetime) -> int:
        return int(after < self.at <= until)

    def describe(self) -> str:
        return f"once, on {self._local}"


def parse(kind: str, expression: str, timezone: str, *, anchor: datetime) -> Cadence:
    """The cadence that ``expression`` of ``kind`` describes in ``timezone``.

    ``anchor`` is where an interval counts from. Cached: asking again costs a look-up.
    Raises :class:`CadenceError`, which says what is wrong and what to write instead.
    """
    if kind == "interval":
        _zone(timezone)
        return _interval(expression, anchor)
    found = _PARSERS.get(kind)
    if found is None:
        raise CadenceError(f"unknown kind {kind!r}; write one of {', '.join(KINDS)}")
    return found(expression, timezone)


def check_timezone(name: str) -> None:
    """Raise :class:`CadenceError` unless ``name`` is a time zone of the IANA database."""
    _zone(name)


def _zone(name: str) -> Zone:
    try:
        return zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise CadenceError(
            f"unknown time zone {name!r}; write an IANA name such as 'Asia/Taipei', "
            "'Europe/Berlin' or 'UTC'"
        ) from error


@lru_cache(maxsize=65_536)
def _cron(expression: str, timezone: str) -> Cadence:
    local = _zone(timezone)
    try:
        return _Cron(expression, cron.parse(expression), local)
    except cron.CronError as error:
        raise CadenceError(str(error)) from error


@lru_cache(maxsize=131_072)
def _interval(expression: str, anchor: datetime) -> Cadence:
    return _Interval(interval(expression), anchor)


_UNITS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
    "w": Fraction(604_800),
}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")
_EXAMPLES = "write e.g. '30s', '5m', '1h30m' or '1d'"


def interval(text: str) -> timedelta:
    """The length that ``text`` such as ``1h30m`` means. Raises :class:`CadenceError`."""
    stripped = text.strip().lower()
    if re.fullmatch(r"[+-]?\d+(\.\d+)?", stripped):
        stripped += "s"
    if stripped.startswith("-"):
        raise CadenceError(f"interval {text!r} is negative; {_EXAMPLES}")
    seconds, at = Fraction(0), 0
    while at < len(stripped):
        part = _PART.match(stripped, at)
        if part is None:
            break
        seconds += Fraction(part[1]) * _UNITS[part[2]]
        at = part.end()
    if at < len(stripped) or not stripped:
        raise CadenceError(f"interval {text!r} is not understood; {_EXAMPLES}")
    if seconds > LONGEST_INTERVAL.total_seconds():
        raise CadenceError(f"interval {text!r} is longer than a hundred years; {_EXAMPLES}")
    length = timedelta(microseconds=int(seconds * 1_000_000))
    if length < SHORTEST_INTERVAL:
        raise CadenceError(f"interval {text!r} is too short: the shortest is 1s; {_EXAMPLES}")
    return length


@lru_cache(maxsize=4096)
def _solar(expression: str, timezone: str) -> Cadence:
    _zone(timezone)
    event, _, place = expression.strip().partition("@")
    event = event.strip().lower()
    if event not in solar.EVENTS:
        raise CadenceError(
            f"unknown solar event {event!r}; write one of {', '.join(solar.EVENTS)}, then "
            "'@latitude,longitude', e.g. 'sunset@25.03,121.56'"
        )
    coordinates = re.fullmatch(
        r"\s*([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)\s*,\s*([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)\s*", place
    )
    if coordinates is None:
        raise CadenceError(
            f"solar expression {expression!r} names no place; write latitude and longitude in "
            f"degrees after '@', e.g. '{event}@25.03,121.56'"
        )
    latitude, longitude = float(coordinates[1]), float(coordinates[2])
    if not -90 <= latitude <= 90:
        raise CadenceError(f"latitude {latitude:g} is out of range; write -90 to 90")
    if not -180 <= longitude <= 180:
        raise CadenceError(f"longitude {longitude:g} is out of range; write -180 to 180")
    found = _Solar(event, latitude, longitude)
    if found.after(instant_of(0)) is None:
        raise CadenceError(f"{event} never happens at latitude {latitude:g}; choose another event")
    return found


@lru_cache(maxsize=4096)
def _once(expression: str, timezone: str) -> Cadence:
    at = moment(expression, timezone)
    shown = at.astimezone(_zone(timezone).info).replace(tzinfo=None)
    return _Once(at, f"{shown.isoformat(sep=' ')} ({timezone})")


def moment(text: str, timezone: str) -> datetime:
    """The instant, in UTC, of an ISO 8601 ``text``; without an offset it is a time of ``timezone``.

    Raises :class:`CadenceError`.
    """
    local = _zone(timezone)
    try:
        given = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise CadenceError(
            f"{text!r} is not an ISO 8601 time; write e.g. '2026-05-01T09:30' or "
            "'2026-05-01T09:30+08:00'"
        ) from error
    if not 1900 <= given.year <= 9000:
        raise CadenceError(f"{text!r} is too far away; write a year from 1900 to 9000")
    return given.astimezone(UTC) if given.tzinfo else _of_wall(given, local)


def _of_wall(wall: datetime, local: Zone) -> datetime:
    """The first instant at which a zone's clock shows ``wall``, or has leapt over it."""
    first = wall.replace(tzinfo=local.info, fold=0).astimezone(UTC)
    if first.astimezone(local.info).replace(tzinfo=None) == wall:
        return first
    # Read with the offset that held before it, a missing time lies after the leap.
    return instant_of(local.stretch(seconds_of(first)).start)


_PARSERS: dict[str, Callable[[str, str], Cadence]] = {
    "cron": _cron,
    "solar": _solar,
    "once": _once,
}
