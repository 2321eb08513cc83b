"""Schedules in plain Chinese, for people who look at a list of them.

Chinese names the larger unit first: the days, then the times of day. Traditional and simplified
differ in characters alone here, so the words are written once and turned into the other script.
"""

from __future__ import annotations

from datetime import timedelta

from ironbeat.schedules import cadence, cron
from ironbeat.schedules.cron import LAST, Calendar, DayRule

# Sunday first, as cron counts; a week is read from Monday.
_WEEKDAYS = "日一二三四五六"
_ORDER = (1, 2, 3, 4, 5, 6, 0)
_SOLAR = {
    "sunrise": "日出",
    "sunset": "日落",
    "solar_noon": "正午",
    "dawn_civil": "民用晨光始",
    "dawn_nautical": "航海晨光始",
    "dawn_astronomical": "天文晨光始",
    "dusk_civil": "民用昏影終",
    "dusk_nautical": "航海昏影終",
    "dusk_astronomical": "天文昏影終",
}
_MOST_TIMES = 6
_SIMPLIFIED = str.maketrans("個時鐘間後週終緯經點數從於為", "个时钟间后周终纬经点数从于为")


def describe(kind: str, expression: str, timezone: str, *, simplified: bool = False) -> str:
    """When a schedule fires, e.g. ``每天 03:30``.

    Raises :class:`~ironbeat.schedules.cadence.CadenceError` or ``CronError`` for what is wrong.
    """
    text = _describe(kind, expression, timezone)
    return text.translate(_SIMPLIFIED) if simplified else text


def _describe(kind: str, expression: str, timezone: str) -> str:
    if kind == "cron":
        return of_cron(cron.parse(expression))
    if kind == "interval":
        return of_interval(cadence.interval(expression))
    if kind == "solar":
        event, _, place = expression.strip().partition("@")
        latitude, longitude = (float(part) for part in place.split(","))
        north, east = "南" if latitude < 0 else "北", "西" if longitude < 0 else "東"
        name = _SOLAR.get(event.strip().lower(), event)
        return f"每天{name}（{north}緯 {abs(latitude):g}°，{east}經 {abs(longitude):g}°）"
    return f"一次，{expression.replace('T', ' ')}（{timezone}）"


def of_interval(step: timedelta) -> str:
    """An interval, e.g. ``每 1 小時 30 分鐘``."""
    rest, parts = step, []
    for name, unit in (
        ("天", timedelta(days=1)),
        ("小時", timedelta(hours=1)),
        ("分鐘", timedelta(minutes=1)),
    ):
        number, rest = divmod(rest, unit)
        if number:
            parts.append((float(number), name))
    if rest:
        parts.append((rest.total_seconds(), "秒"))
    if len(parts) == 1 and parts[0][0] == 1:
        return f"每{parts[0][1]}"
    return "每 " + " ".join(f"{number:g} {name}" for number, name in parts)


def of_cron(calendar: Calendar) -> str:
    """A cron expression, e.g. ``每週一至五 09:00``."""
    months = ""
    if calendar.months.bit_count() < 12:
        months = f"{_listed(_values(calendar.months))} 月"
    days = _days(calendar.days, within=bool(months))
    times = _times(_values(calendar.seconds), _values(calendar.minutes), _values(calendar.hours))
    plain = not times.startswith("每")
    if not days and (plain or months):
        days = "每天"
    return " ".join(part for part in (months, days, times) if part)


def _times(seconds: list[int], minutes: list[int], hours: list[int]) -> str:
    every = _step(hours, 24)
    if every and seconds == [0] and len(minutes) == 1:
        return f"每 {every} 小時" + (f"的第 {minutes[0]} 分" if minutes[0] else "")
    if len(hours) * len(minutes) * len(seconds) <= _MOST_TIMES:
        return "、".join(
            f"{h:02}:{m:02}" + (f":{s:02}" if s else "")
            for h in hours
            for m in minutes
            for s in seconds
        )
    if often := _often(seconds, 60, "秒"):
        words = often + (f"（每小時第 {_listed(minutes)} 分內）" if len(minutes) < 60 else "")
    else:
        words = _often(minutes, 60, "分鐘") or f"每小時第 {_listed(minutes)} 分"
        if seconds != [0]:
            words += f"第 {_listed(seconds)} 秒"
    if len(hours) == 24:
        return words
    if hours == list(range(hours[0], hours[-1] + 1)):
        return f"{words}（{hours[0]:02}:00 至 {hours[-1]:02}:59）"
    return f"{words}（{_listed(hours)} 點內）"


def _often(values: list[int], size: int, unit: str) -> str:
    if len(values) == size:
        return f"每{unit}"
    step = _step(values, size)
    return f"每 {step} {unit}" if step else ""


def _step(values: list[int], size: int) -> int | None:
    if len(values) < 2:
        return None
    step = values[1]
    even = step > 1 and size % step == 0 and values == list(range(0, size, step))
    return step if even else None


def _days(rule: DayRule, *, within: bool) -> str:
    """The days; empty for every day. ``within``: named months stand before them."""
    every_monthday = rule.monthdays.bit_count() == 31
    every_weekday = rule.weekdays.bit_count() == 7
    if (every_monthday or every_weekday) and not rule.both:
        return ""
    monthdays = "、".join(_monthdays(rule))
    of_month = "" if every_monthday else (monthdays if within else "每月" + _after(monthdays))
    of_week = "" if every_weekday else "、".join(_weekdays(rule))
    if of_month and of_week:
        return f"{of_month}且為{of_week}" if rule.both else f"{of_month}或{of_week}"
    return of_month or of_week


def _after(text: str) -> str:
    """``text`` to stand after a character: a figure keeps its distance."""
    return f" {text}" if text[:1].isdigit() else text


def _monthdays(rule: DayRule) -> list[str]:
    names = [f"{_listed(_values(rule.monthdays))} 日"] if rule.monthdays else []
    if rule.last:
        names.append("最後一天")
    if rule.last_workday:
        names.append("最後一個工作日")
    return names


def _weekdays(rule: DayRule) -> list[str]:
    plain = [number for number, day in enumerate(_ORDER) if rule.weekdays >> day & 1]
    names = []
    if plain:
        said = [_WEEKDAYS[_ORDER[number]] for number in plain]
        row = len(plain) > 2 and plain == list(range(plain[0], plain[-1] + 1))
        names.append("每週" + (f"{said[0]}至{said[-1]}" if row else "、".join(said)))
    for day, number in sorted(rule.nth):
        ordinal = "最後一個" if number == LAST else f"第 {number} 個"
        names.append(f"每月{ordinal}週{_WEEKDAYS[day]}")
    return names


def _values(mask: int) -> list[int]:
    return [value for value in range(mask.bit_length()) if mask >> value & 1]


def _listed(values: list[int]) -> str:
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} 至 {values[-1]}"
    return "、".join(map(str, values))
