"""Cron expressions: the grammar, and the search of a wall clock's calendar.

Five fields (minute, hour, day of month, month, day of week) or six with the second first, or one of
``@hourly @daily @midnight @weekly @monthly @yearly @annually``. A field is ``*`` or a list of
numbers, ranges ``a-b`` and steps ``*/n``, ``a-b/n``, ``a/n``; months and weekdays have English
three-letter names; Sunday is 0 and 7. Beyond that:

* day of month ``L`` is the month's last day, ``LW`` its last Monday-to-Friday day;
* day of week ``mon#2`` is the second Monday, ``5L`` or ``friL`` the last Friday;
* ``?`` in either day field means ``*``;
* a restricted day of month *and* a restricted day of week match when **either** does, as in every
  cron. ``&`` before the day of week asks for **both**: ``0 0 1-7 * &mon`` is the first Monday.
  (As in Debian's cron, a day field that begins with ``*``, such as ``*/2``, asks for both too.)

All searching is integer arithmetic on bit masks; seconds are counted on the wall clock since 1970.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache

from ironbeat.schedules.zones import DAY

EPOCH_DAY = date(1970, 1, 1).toordinal()
# date.fromordinal() knows the years 1 to 9999; one month of margin on either side.
_FIRST_DAY = date(1, 2, 1).toordinal() - EPOCH_DAY
_LAST_DAY = date(9999, 11, 30).toordinal() - EPOCH_DAY

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LAST = -1

_MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class CronError(ValueError):
    """A cron expression is wrong; the message says where, and what to write instead."""


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        if text in self.names:
            return self.names.index(text) + self.low
        if not re.fullmatch(r"[0-9]{1,4}", text):
            named = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
            raise CronError(
                f"{self.name} {text!r} is not a number; write {self.low}-{self.high}{named}, "
                "a list, a range or a step"
            )
        value = int(text)
        if not self.low <= value <= self.high:
            raise CronError(
                f"{self.name} {value} is out of range; write a number from {self.low} "
                f"to {self.high}"
            )
        return value

    def term(self, text: str) -> int:
        """One element of a list as a mask."""
        span, slash, step_text = text.partition("/")
        step = 1
        if slash:
            if not re.fullmatch(r"[0-9]{1,4}", step_text) or int(step_text) == 0:
                raise CronError(
                    f"{self.name} {text!r} has no usable step; write a number above 0 after '/'"
                )
            step = int(step_text)
        if span == "*":
            first, last = self.low, self.high
        elif "-" in span:
            first_text, _, last_text = span.partition("-")
            first, last = self.number(first_text), self.number(last_text)
            if self is _WEEKDAY and last == 0 and first > 0:
                last = 7
            if last < first:
                raise CronError(
                    f"{self.name} range {span!r} runs backwards; write "
                    f"{first_text}-{self.high},{self.low}-{last_text}"
                )
        else:
            first = self.number(span)
            last = self.high if slash else first
        mask = 0
        for value in range(first, last + 1, step):
            mask |= 1 << value
        return mask


_SECOND = _Field("second", 0, 59)
_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("hour", 0, 23)
_MONTHDAY = _Field("day of month", 1, 31)
_MONTH = _Field("month", 1, 12, MONTHS)
_WEEKDAY = _Field("day of week", 0, 7, WEEKDAYS)


@dataclass(frozen=True)
class DayRule:
    """Which days of a month match.

    ``monthdays``: mask of 1..31. ``last``/``last_workday``: the month's last day, its last Monday
    to Friday. ``weekdays``: mask of 0 (Sunday)..6. ``nth``: pairs of weekday and its number in the
    month (:data:`LAST`: the last). ``both``: day of month and day of week must both match.
    """

    monthdays: int
    last: bool
    last_workday: bool
    weekdays: int
    nth: frozenset[tuple[int, int]]
    both: bool

    def matching(self, first: int, length: int) -> int:
        """Mask of the matching days of a month that has ``length`` days and begins on ``first``."""
        mask = 0
        for day in range(1, length + 1):
            weekday = (first + day - 1) % 7
            of_month = (
                bool(self.monthdays >> day & 1)
                or (self.last and day == length)
                or (self.last_workday and day == _last_workday(first, length))
            )
            of_week = (
                bool(self.weekdays >> weekday & 1)
                or (weekday, (day + 6) // 7) in self.nth
                or (day + 7 > length and (weekday, LAST) in self.nth)
            )
            if (of_month and of_week) if self.both else (of_month or of_week):
                mask |= 1 << day
        return mask


def _last_workday(first: int, length: int) -> int:
    weekday = (first + length - 1) % 7
    return length - {0: 2, 6: 1}.get(weekday, 0)


@dataclass(frozen=True)
class Calendar:
    """A parsed expression: masks of seconds, minutes, hours and months, and the rule for days.

    ``clock_times`` tells that the expression names times of day (five fields, neither minute nor
    hour beginning with ``*``): such a job runs once a day even when the clocks change.
    """

    seconds: int
    minutes: int
    hours: int
    months: int
    days: DayRule
    clock_times: bool
    _masks: dict[tuple[int, int], int] = field(default_factory=dict, compare=False, repr=False)

    def next(self, wall: int, limit: int) -> int | None:
        """The first match at or after ``wall`` and before ``limit``."""
        day, second = divmod(wall, DAY)
        if not _FIRST_DAY <= day <= _LAST_DAY:
            return None
        when = date.fromordinal(day + EPOCH_DAY)
        year, month, monthday = when.year, when.month, when.day
        mask = self._days(year, month)
        if mask >> monthday & 1:
            time = self._next_time(second)
            if time >= 0:
                found = day * DAY + time
                return found if found < limit else None
        first = day - monthday + 1
        mask = mask >> (monthday + 1) << (monthday + 1)
        while not mask:
            first += _length(year, month)
            if first * DAY >= limit or first > _LAST_DAY:
                return None
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
            mask = self._days(year, month)
        found = (first + _lowest(mask) - 1) * DAY + self._first_time()
        return found if found < limit else None

    def previous(self, wall: int, limit: int) -> int | None:
        """The last match at or before ``wall`` and not before ``limit``."""
        day, second = divmod(wall, DAY)
        if not _FIRST_DAY <= day <= _LAST_DAY:
            return None
        when = date.fromordinal(day + EPOCH_DAY)
        year, month, monthday = when.year, when.month, when.day
        mask = self._days(year, month)
        if mask >> monthday & 1:
            time = self._previous_time(second)
            if time >= 0:
                found = day * DAY + time
                return found if found >= limit else None
        first = day - monthday + 1
        mask &= (1 << monthday) - 1
        while not mask:
            if first * DAY <= limit or first < _FIRST_DAY:
                return None
            year, month = (year, month - 1) if month > 1 else (year - 1, 12)
            first -= _length(year, month)
            mask = self._days(year, month)
        found = (first + mask.bit_length() - 2) * DAY + self._last_time()
        return found if found >= limit else None

    def count(self, wall: int, limit: int) -> int:
        """How many matches there are at or after ``wall`` and before ``limit``."""
        if limit <= wall:
            return 0
        return (
            self._count_since_month(limit)
            - self._count_since_month(wall)
            + self._count_months(wall, limit)
        )

    def _count_since_month(self, wall: int) -> int:
        """Matches from the beginning of the month of ``wall`` until before ``wall``."""
        day, second = divmod(wall, DAY)
        when = date.fromordinal(day + EPOCH_DAY)
        mask = self._days(when.year, when.month)
        whole = (mask & ((1 << when.day) - 1)).bit_count() * self._times_before(DAY)
        return whole + (self._times_before(second) if mask >> when.day & 1 else 0)

    def _count_months(self, wall: int, limit: int) -> int:
        """Matches from the beginning of the month of ``wall`` to that of the month of ``limit``."""
        start = date.fromordinal(wall // DAY + EPOCH_DAY)
        stop = date.fromordinal(limit // DAY + EPOCH_DAY)
        first, last = start.year * 12 + start.month - 1, stop.year * 12 + stop.month - 1
        days = sum(self._days(at // 12, at % 12 + 1).bit_count() for at in range(first, last))
        return days * self._times_before(DAY)

    def _days(self, year: int, month: int) -> int:
        """Mask of the matching days of a month."""
        if not self.months >> month & 1:
            return 0
        key = (date(year, month, 1).weekday() + 1) % 7, _length(year, month)
        mask = self._masks.get(key)
        if mask is None:
            mask = self._masks[key] = self.days.matching(*key)
        return mask

    def _next_time(self, second: int) -> int:
        """The first matching second of the day from ``second`` on, or -1."""
        hour, rest = divmod(second, 3600)
        if self.hours >> hour & 1:
            minute, rest = divmod(rest, 60)
            if self.minutes >> minute & 1:
                ahead = self.seconds >> rest
                if ahead:
                    return second + _lowest(ahead)
            ahead = self.minutes >> (minute + 1)
            if ahead:
                return hour * 3600 + (minute + 1 + _lowest(ahead)) * 60 + _lowest(self.seconds)
        ahead = self.hours >> (hour + 1)
        if ahead:
            hour += 1 + _lowest(ahead)
            return hour * 3600 + _lowest(self.minutes) * 60 + _lowest(self.seconds)
        return -1

    def _previous_time(self, second: int) -> int:
        """The last matching second of the day up to ``second``, or -1."""
        hour, rest = divmod(second, 3600)
        if self.hours >> hour & 1:
            minute, rest = divmod(rest, 60)
            if self.minutes >> minute & 1:
                behind = self.seconds & ((2 << rest) - 1)
                if behind:
                    return second - rest + _highest(behind)
            behind = self.minutes & ((1 << minute) - 1)
            if behind:
                return hour * 3600 + _highest(behind) * 60 + _highest(self.seconds)
        behind = self.hours & ((1 << hour) - 1)
        if behind:
            minutes, seconds = _highest(self.minutes), _highest(self.seconds)
            return _highest(behind) * 3600 + minutes * 60 + seconds
        return -1

    def _first_time(self) -> int:
        hour, minute = _lowest(self.hours), _lowest(self.minutes)
        return hour * 3600 + minute * 60 + _lowest(self.seconds)

    def _last_time(self) -> int:
        hour, minute = _highest(self.hours), _highest(self.minutes)
        return hour * 3600 + minute * 60 + _highest(self.seconds)

    def _times_before(self, second: int) -> int:
        """How many times of a matching day lie before ``second``."""
        hour, rest = divmod(second, 3600)
        minute, rest = divmod(rest, 60)
        per_minute = self.seconds.bit_count()
        per_hour = self.minutes.bit_count() * per_minute
        times = (self.hours & ((1 << hour) - 1)).bit_count() * per_hour
        if self.hours >> hour & 1:
            times += (self.minutes & ((1 << minute) - 1)).bit_count() * per_minute
            if self.minutes >> minute & 1:
                times += (self.seconds & ((1 << rest) - 1)).bit_count()
        return times


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _highest(mask: int) -> int:
    return mask.bit_length() - 1


def _length(year: int, month: int) -> int:
    if month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):
        return 29
    return _MONTH_LENGTHS[month - 1]


def fields_of(expression: str) -> list[str]:
    """The six fields of ``expression``, second first, macros replaced, in capitals.

    Raises :class:`CronError`.
    """
    text = expression.strip()
    if text.startswith("@"):
        replaced = MACROS.get(text.lower())
        if replaced is None:
            raise CronError(
                f"{text!r} is not known; write one of {', '.join(MACROS)}, or five fields"
            )
        text = replaced
    parts = text.upper().split()
    if len(parts) not in (5, 6):
        raise CronError(
            f"cron expression {expression!r} has {len(parts)} "
            f"field{'' if len(parts) == 1 else 's'}; write five (minute hour "
            "day-of-month month day-of-week, e.g. '30 3 * * *') or six with the second first"
        )
    return parts if len(parts) == 6 else ["0", *parts]


@lru_cache(maxsize=65_536)
def parse(expression: str) -> Calendar:
    """The calendar of ``expression``. Raises :class:`CronError`."""
    parts = fields_of(expression)
    second, minute, hour, monthday, month, weekday = parts
    # Debian's cron, and cronsim after it, look at the text: "0-59" is a restriction, "*" is none.
    named_times = not minute.startswith("*") and not hour.startswith("*")
    has_seconds = len(expression.split()) == 6
    calendar = Calendar(
        seconds=_mask(_SECOND, second),
        minutes=_mask(_MINUTE, minute),
        hours=_mask(_HOUR, hour),
        months=_mask(_MONTH, month),
        days=_day_rule(monthday, weekday),
        clock_times=named_times and not has_seconds,
    )
    if not _ever(calendar):
        raise CronError(
            f"cron expression {expression!r} never comes true: no month it names has such a day; "
            "change the day of month, the month or the day of week"
        )
    return calendar


def _mask(of: _Field, text: str) -> int:
    mask = 0
    for term in text.split(","):
        mask |= of.term(term)
    return mask


def _day_rule(monthday: str, weekday: str) -> DayRule:
    monthday = "*" if monthday == "?" else monthday
    both = weekday.startswith("&")
    weekday = weekday[1:] if both else weekday
    weekday = "*" if weekday == "?" else weekday
    both = both or monthday.startswith("*") or weekday.startswith("*")
    terms = monthday.split(",")
    plain = [term for term in terms if term not in ("L", "LW")]
    weekdays, nth = 0, set()
    for term in weekday.split(","):
        if "#" in term:
            nth.add(_nth(term))
        elif term.endswith("L") and len(term) > 1:
            nth.add((_WEEKDAY.number(term[:-1]) % 7, LAST))
        else:
            mask = _WEEKDAY.term(term)
            weekdays |= (mask | mask >> 7) & 0b111_1111
    return DayRule(
        monthdays=_mask(_MONTHDAY, ",".join(plain)) if plain else 0,
        last="L" in terms,
        last_workday="LW" in terms,
        weekdays=weekdays,
        nth=frozenset(nth),
        both=both,
    )


def _nth(term: str) -> tuple[int, int]:
    name, _, number = term.partition("#")
    if number not in ("1", "2", "3", "4", "5"):
        raise CronError(
            f"day of week {term!r} asks for no such week; write a number from 1 to 5 after '#', "
            "or e.g. 'friL' for the last Friday"
        )
    return _WEEKDAY.number(name) % 7, int(number)


def _ever(calendar: Calendar) -> bool:
    """Whether any day matches: in 400 years each month begins on each weekday, at each length."""
    for month in range(1, 13):
        if calendar.months >> month & 1:
            lengths = (28, 29) if month == 2 else (_MONTH_LENGTHS[month - 1],)
            if any(calendar.days.matching(first, n) for first in range(7) for n in lengths):
                return True
    return False
