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


def of_cron(calendar: Calendar) -> str:
    """A cron expression in words, e.g. ``every day at 03:30``."""
    seconds, minutes = _values(calendar.seconds), _values(calendar.minutes)
    hours, months = _values(calendar.hours), _values(calendar.months)
    days = _days(calendar.days)
    month = "" if len(months) == 12 else f"in {_listed([_MONTHS[m - 1] for m in months], _MONTHS)}"
    if len(hours) * len(minutes) * len(seconds) <= _MOST_TIMES:
        times = [_time(h, m, s) for h in hours for m in minutes for s in seconds]
        if days:
            return _sentence(f"at {_joined(times)}", days, month)
        return _sentence("every day", f"at {_joined(times)}", month)
    return _sentence(_pattern(seconds, minutes, hours), days, month)


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


def _pattern(seconds: Sequence[int], minutes: Sequence[int], hours: Sequence[int]) -> str:
    """Many times of day, from the finest unit that moves to the coarsest."""
    parts = []
    if seconds != [0]:
        parts.append(_unit(seconds, 60, "second", "minute"))
    if seconds == [0] or len(minutes) < 60:
        # "every second" of "every minute" needs no second half.
        parts.append(_unit(minutes, 60, "minute", "hour"))
    if len(hours) < 24:
        step = _step(hours, 24)
        if step and parts == ["every hour"]:
            return f"every {step} hours"
        if step and len(minutes) == 1 and seconds == [0]:
            return f"every {step} hours at minute {minutes[0]}"
        parts.append(_hours(hours))
    return " ".join(parts)


def _unit(values: Sequence[int], size: int, name: str, parent: str) -> str:
    if len(values) == size:
        return f"every {name}"
    step = _step(values, size)
    if step:
        return f"every {step} {name}s"
    if list(values) == [0]:
        return f"every {parent}"
    plural = "s" if len(values) > 1 else ""
    return f"every {parent} at {name}{plural} {_listed([str(v) for v in values])}"


def _hours(hours: Sequence[int]) -> str:
    step = _step(hours, 24)
    if step:
        return (
            f"of every {step}th hour"
            if step > 3
            else f"of every {('second', 'third')[step - 2]} hour"
        )
    if list(hours) == list(range(hours[0], hours[-1] + 1)):
        return f"from {hours[0]:02}:00 to {hours[-1]:02}:59"
    return f"during the hours {_listed([str(h) for h in hours])}"


def _step(values: Sequence[int], size: int) -> int | None:
    """The step of values that divide ``size`` evenly from 0 on, if they do."""
    if len(values) < 2:
        return None
    step = values[1]
    return (
        step
        if step > 1 and size % step == 0 and list(values) == list(range(0, size, step))
        else None
    )


def _days(rule: DayRule) -> str:
    """The days in words; empty for every day."""
    all_month = rule.monthdays.bit_count() == 31
    all_week = rule.weekdays == 0b111_1111
    of_month = "" if all_month else f"on {_joined(_monthdays(rule))} of the month"
    of_week = "" if all_week else f"on {_joined(_weekdays(rule))}"
    if not rule.both:
        return "" if all_month or all_week else f"{of_month} or {of_week}"
    if of_month and of_week:
        return f"{of_week}, but only {of_month}"
    return of_month or of_week


def _monthdays(rule: DayRule) -> list[str]:
    numbers = [str(day) for day in _values(rule.monthdays)]
    names = []
    if numbers:
        names.append(f"day{'s' if len(numbers) > 1 else ''} {_listed(numbers)}")
    if rule.last:
        names.append("the last day")
    if rule.last_workday:
        names.append("the last weekday")
    return names


def _weekdays(rule: DayRule) -> list[str]:
    # A week is read from Monday to Sunday.
    order = (1, 2, 3, 4, 5, 6, 0)
    plain = [_WEEKDAYS[day] for day in order if rule.weekdays >> day & 1]
    names = [_listed(plain, [_WEEKDAYS[day] for day in order])] if plain else []
    for day, number in sorted(rule.nth):
        ordinal = "last" if number == LAST else _ORDINALS[number - 1]
        names.append(f"the {ordinal} {_WEEKDAYS[day]}")
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


def _sentence(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _time(hour: int, minute: int, second: int) -> str:
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")


def _several(number: float, name: str) -> str:
    return f"{number:g} {name}{'' if number == 1 else 's'}"
