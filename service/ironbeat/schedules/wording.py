"""Schedules in plain English, for people who look at a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from ironbeat.schedules.cron import LAST, Calendar, DayRule

_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
# More times of day than this are described by their pattern, not one by one.
_MOST_TIMES = 6
_OF_THE_MONTH = "of the month"


def of_cron(calendar: Calendar) -> str:
    """A cron expression in words, e.g. ``every day at 03:30``."""
    days = _days(calendar.days)
    months = ""
    if calendar.months.bit_count() < 12:
        months = _listed([_MONTHS[month - 1] for month in _values(calendar.months)], _MONTHS)
    if months and _OF_THE_MONTH in days:
        days, months = days.replace(_OF_THE_MONTH, f"of {months}"), ""
    times = _times(_values(calendar.seconds), _values(calendar.minutes), _values(calendar.hours))
    if times.startswith("at ") and not days:
        times = f"every day {times}"
    return " ".join(part for part in (times, days, months and f"in {months}") if part)


def of_interval(step: timedelta) -> str:
    """An interval in words, e.g. ``every 1 hour 30 minutes``."""
    rest, parts = step, []
    for name, unit in (
        ("day", timedelta(days=1)),
        ("hour", timedelta(hours=1)),
        ("minute", timedelta(minutes=1)),
    ):
        number, rest = divmod(rest, unit)
        if number:
            parts.append(_several(number, name))
    if rest:
        parts.append(_several(rest.total_seconds(), "second"))
    if len(parts) == 1 and parts[0].startswith("1 "):
        return f"every {parts[0][2:]}"
    return f"every {' '.join(parts)}"


def of_solar(event: str, latitude: float, longitude: float) -> str:
    """A solar event in words, e.g. ``at sunset, 25.03° N 121.56° E``."""
    north, east = "NS"[latitude < 0], "EW"[longitude < 0]
    kind, _, twilight = event.partition("_")
    name = f"{twilight} {kind}" if kind in ("dawn", "dusk") else event.replace("_", " ")
    return f"at {name}, {abs(latitude):g}° {north} {abs(longitude):g}° {east}"


def _times(seconds: list[int], minutes: list[int], hours: list[int]) -> str:
    """The times of day: each one if they are few, else from the finest unit to the coarsest."""
    every = _step(hours, 24)
    if every and seconds == [0] and len(minutes) == 1:
        return f"every {every} hours" + (f" at minute {minutes[0]}" if minutes[0] else "")
    if len(hours) * len(minutes) * len(seconds) <= _MOST_TIMES:
        times = [_time(h, m, s) for h in hours for m in minutes for s in seconds]
        return f"at {_joined(times)}"
    if _often(seconds, 60, "second"):
        words = _often(seconds, 60, "second")
        if len(minutes) < 60:
            words += f" in {_numbered('minute', minutes)} of each hour"
    else:
        words = _often(minutes, 60, "minute") or "every hour"
        if words == "every hour" and minutes != [0]:
            words += f" at {_numbered('minute', minutes)}"
        if seconds != [0]:
            words += f", at {_numbered('second', seconds)} of each"
    return words if len(hours) == 24 else f"{words} {_during(hours)}"


def _often(values: list[int], size: int, unit: str) -> str:
    """``every minute`` or ``every 5 minutes``; empty where values are no such pattern."""
    if len(values) == size:
        return f"every {unit}"
    step = _step(values, size)
    return f"every {step} {unit}s" if step else ""


def _during(hours: list[int]) -> str:
    if hours == list(range(hours[0], hours[-1] + 1)):
        return f"from {hours[0]:02}:00 to {hours[-1]:02}:59"
    return f"in {_numbered('hour', hours)} of the day"


def _numbered(unit: str, values: list[int]) -> str:
    return f"{unit}{'s' if len(values) > 1 else ''} {_listed([str(value) for value in values])}"


def _step(values: list[int], size: int) -> int | None:
    """The step of values that divide ``size`` evenly from 0 on, if they do."""
    if len(values) < 2:
        return None
    step = values[1]
    even = step > 1 and size % step == 0 and values == list(range(0, size, step))
    return step if even else None


def _days(rule: DayRule) -> str:
    """The days in words; empty for every day."""
    every_monthday = rule.monthdays.bit_count() == 31
    every_weekday = rule.weekdays.bit_count() == 7
    if (every_monthday or every_weekday) and not rule.both:
        return ""
    of_month = "" if every_monthday else f"{_joined(_monthdays(rule))} {_OF_THE_MONTH}"
    of_week = "" if every_weekday else _joined(_weekdays(rule))
    if of_month and of_week:
        return (
            f"on {of_week} if that is " + of_month if rule.both else f"on {of_month} or {of_week}"
        )
    return f"on {of_month or of_week}" if of_month or of_week else ""


def _monthdays(rule: DayRule) -> list[str]:
    names = [_numbered("day", _values(rule.monthdays))] if rule.monthdays else []
    if rule.last:
        names.append("the last day")
    if rule.last_workday:
        names.append("the last weekday")
    return names


def _weekdays(rule: DayRule) -> list[str]:
    # A week is read from Monday to Sunday.
    order = [_WEEKDAYS[day] for day in (1, 2, 3, 4, 5, 6, 0)]
    plain = [day for day in order if rule.weekdays >> _WEEKDAYS.index(day) & 1]
    names = [_listed(plain, order)] if plain else []
    for day, number in sorted(rule.nth):
        ordinal = "last" if number == LAST else _ORDINALS[number - 1]
        names.append(f"the {ordinal} {_WEEKDAYS[day]} {_OF_THE_MONTH}")
    return names


def _values(mask: int) -> list[int]:
    return [value for value in range(mask.bit_length()) if mask >> value & 1]


def _listed(values: Sequence[str], order: Sequence[str] = ()) -> str:
    """A list of values; three or more in a row, in ``order`` or as numbers, as a range."""
    places = [order.index(value) if order else int(value) for value in values]
    if len(values) > 2 and places == list(range(places[0], places[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return _joined(values)


def _joined(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"


def _time(hour: int, minute: int, second: int) -> str:
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")


def _several(number: float, name: str) -> str:
    return f"{number:g} {name}{'' if number == 1 else 's'}"
