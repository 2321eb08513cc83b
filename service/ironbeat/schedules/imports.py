"""Schedules of other schedulers, translated: Celery's ``beat_schedule`` and django-celery-beat.

The translation keeps when things fire. Three differences are worth knowing:

* Celery's ``crontab`` wants day of month *and* day of week to match, classic cron either. The
  expressions made here say so with ``&``: ``crontab(0, 0, day_of_week="mon", day_of_month="1-7")``
  becomes ``0 0 1-7 * &mon``.
* Celery sends a task whether or not its last run has ended, so the overlap policy is ``allow``.
* ``crontab`` loses the fires of the hour that clocks repeat in autumn; these schedules do not.

What cannot be carried over is told, schedule by schedule: :attr:`Translation.notes` are small
losses, :attr:`Translation.refused` are schedules that were left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from celery.schedules import BaseSchedule, crontab, schedule, solar
from sqlalchemy import MetaData, Table, create_engine, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from ironbeat.database import driver_url
from ironbeat.schedules import cron, store
from ironbeat.schedules.cadence import Cadence, parse
from ironbeat.schedules.definition import HIGHEST_PRIORITY, DefinitionError, from_spec
from ironbeat.workload import ScheduleSpec, seconds_text

DJANGO_TABLE = "django_celery_beat_periodictask"

# Options of a beat_schedule entry that a schedule has a place for.
_KNOWN_OPTIONS = frozenset({"queue", "priority", "expires", "headers"})
_KNOWN_KEYS = frozenset({"task", "schedule", "args", "kwargs", "options", "relative"})


class ImportProblem(ValueError):
    """A schedule cannot be translated, or there is nothing to translate; the message says why."""


@dataclass(slots=True)
class Translation:
    """Schedules found elsewhere.

    ``notes``: what was lost of those that were translated, by name. ``refused``: those that could
    not be, by name, with the reason.
    """

    specs: list[ScheduleSpec] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def _take(self, name: str, timezone: str, make: Callable[[list[str]], ScheduleSpec]) -> None:
        notes: list[str] = []
        try:
            spec = make(notes)
            from_spec(spec, timezone=timezone)
        except DefinitionError as error:
            self.refused[name] = "; ".join(f"{key}: {text}" for key, text in error.problems.items())
        except ImportProblem as error:
            self.refused[name] = str(error)
        else:
            self.specs.append(spec)
            if notes:
                self.notes[name] = notes


# -- Celery's beat_schedule ------------------------------------------------------------------------


def from_beat_schedule(entries: Mapping[str, Any], *, timezone: str) -> Translation:
    """The schedules of a ``beat_schedule`` dictionary; ``timezone`` is the application's.

    ``str(app.timezone)`` gives it for an application.
    """
    found = Translation()
    for name, entry in entries.items():
        found._take(str(name), timezone, partial(_of_entry, str(name), entry, timezone))
    return found


def _of_entry(name: str, entry: Any, timezone: str, notes: list[str]) -> ScheduleSpec:
    if not isinstance(entry, Mapping):
        raise ImportProblem(f"the entry is a {type(entry).__name__}, not a dictionary")
    if not entry.get("task") or entry.get("schedule") is None:
        raise ImportProblem("the entry names no task or no schedule")
    notes += [f"{key!r} is not carried over" for key in entry if key not in _KNOWN_KEYS]
    options = dict(entry.get("options") or {})
    expires, ends_at = _expiry(options.get("expires"))
    when = _of_schedule(entry["schedule"], bool(entry.get("relative")), timezone, notes)
    for key in sorted(options.keys() - _KNOWN_OPTIONS):
        notes.append(f"option {key!r} is not carried over")
    return ScheduleSpec(
        name,
        entry["task"],
        args=entry.get("args") or (),
        kwargs=entry.get("kwargs") or {},
        headers=options.get("headers") or {},
        # A queue may be given as an object that has a name.
        queue=getattr(options.get("queue"), "name", options.get("queue")),
        priority=_priority(options.get("priority"), notes),
        expires=expires,
        ends_at=ends_at,
        overlap="allow",
        **when,
    )


def _of_schedule(given: Any, relative: bool, timezone: str, notes: list[str]) -> dict[str, Any]:
    """What a schedule object says, as arguments of a :class:`ScheduleSpec`."""
    if isinstance(given, bool):
        raise ImportProblem(f"{given!r} is no schedule")
    if isinstance(given, (int, float)):
        given = timedelta(seconds=given)
    if isinstance(given, timedelta):
        return _interval(given, relative, timezone, notes)
    if isinstance(given, crontab):
        # django-celery-beat's crontab has a zone of its own.
        own = given.tz if type(given).__name__ == "TzAwareCrontab" else timezone
        return {"cron": crontab_expression(given), "timezone": str(own)}
    if isinstance(given, solar):
        return {"solar": f"{given.event}@{given.lat},{given.lon}", "timezone": timezone}
    if type(given) is schedule:
        return _interval(given.run_every, relative or given.relative, timezone, notes)
    kind = type(given).__name__
    if isinstance(given, BaseSchedule):
        raise ImportProblem(
            f"{kind} is a schedule class of your own; write it as a cron expression"
        )
    raise ImportProblem(f"{given!r} of type {kind} is no schedule")


def _interval(step: Any, relative: bool, timezone: str, notes: list[str]) -> dict[str, Any]:
    if not isinstance(step, timedelta):
        raise ImportProblem(f"{step!r} is no interval")
    if not relative:
        return {"every": step, "timezone": timezone}
    expression = _relative_cron(step)
    if expression is not None:
        return {"cron": expression, "timezone": timezone}
    notes.append("'relative' is not carried over: it fires at a constant distance from its start")
    return {"every": step, "timezone": timezone}


def _relative_cron(step: timedelta) -> str | None:
    """What ``relative=True`` means: at whole days, hours, minutes or seconds of the clock."""
    seconds = step.total_seconds()
    if seconds == 86_400:
        return "0 0 * * *"
    for unit, size, expression in (
        (3600, 24, "0 */{} * * *"),
        (60, 60, "*/{} * * * *"),
        (1, 60, "*/{} * * * * *"),
    ):
        number = seconds / unit
        if number.is_integer() and 0 < number < size and size % number == 0:
            return expression.format(int(number)).replace("*/1 ", "* ")
    return None


def crontab_expression(given: crontab) -> str:
    """A Celery ``crontab`` as a cron expression with the same days and times.

    Fields are kept as they were written where this platform reads them alike.
    """
    fields = [
        _field(given._orig_minute, given.minute, 0, "minutes"),
        _field(given._orig_hour, given.hour, 1, "hours"),
        _field(given._orig_day_of_month, given.day_of_month, 2, "monthdays"),
        _field(given._orig_month_of_year, given.month_of_year, 3, "months"),
        _field(given._orig_day_of_week, given.day_of_week, 4, "weekdays"),
    ]
    if not fields[2].startswith("*") and not fields[4].startswith("*"):
        fields[4] = f"&{fields[4]}"
    return " ".join(fields)


_SIZES = {"minutes": 60, "hours": 24, "monthdays": 31, "months": 12, "weekdays": 7}


def _field(written: Any, values: set[int], place: int, name: str) -> str:
    if isinstance(written, str):
        text = written.replace(" ", "")
        if _read_by_us(text, place, name) == values:
            return text
    if len(values) == _SIZES[name]:
        return "*"
    return _ranges(sorted(values))


def _read_by_us(text: str, place: int, name: str) -> set[int] | None:
    """The numbers that this platform reads from one field of a cron expression."""
    fields = ["*"] * 5
    fields[place] = text
    try:
        calendar = cron.parse(" ".join(fields))
    except cron.CronError:
        return None
    if calendar.days.nth or calendar.days.last or calendar.days.last_workday:
        return None
    mask = getattr(calendar.days if name in ("monthdays", "weekdays") else calendar, name)
    return {value for value in range(mask.bit_length()) if mask >> value & 1}


def _ranges(values: list[int]) -> str:
    """Sorted numbers as a list, three or more in a row as a range."""
    parts: list[str] = []
    start = 0
    for end in range(1, len(values) + 1):
        if end < len(values) and values[end] == values[end - 1] + 1:
            continue
        run = values[start:end]
        parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(value) for value in run]
        start = end
    return ",".join(parts)


def _expiry(given: Any) -> tuple[int | None, str | None]:
    """``expires`` of a message as seconds, or as the time from which there are none."""
    if given is None:
        return None, None
    if isinstance(given, timedelta):
        given = given.total_seconds()
    if isinstance(given, (int, float)):
        return max(1, round(given)), None
    if isinstance(given, datetime):
        return None, given.isoformat()
    raise ImportProblem(f"expires={given!r} is neither seconds nor a time")


def _priority(given: int | None, notes: list[str]) -> int | None:
    if given is not None and given > HIGHEST_PRIORITY:
        notes.append(
            f"priority {given} becomes {HIGHEST_PRIORITY}, the last that Redis tells apart"
        )
        return HIGHEST_PRIORITY
    return given


# -- django-celery-beat ----------------------------------------------------------------------------


def from_django(url: str, *, timezone: str, now: datetime | None = None) -> Translation:
    """The periodic tasks of a Django database; ``timezone`` is for those that have none.

    The database is only read. Any release of django-celery-beat and any database that SQLAlchemy
    has a driver for will do; times without an offset are taken as UTC, as Django writes them.
    Raises :class:`ImportProblem` when the tables are not there or cannot be read.
    """
    found = Translation()
    tables = _tables(url)
    moment = now or datetime.now(UTC)
    for task in tables["periodictask"].values():
        found._take(task["name"], timezone, partial(_of_task, task, tables, timezone, moment))
    return found


Rows = dict[Any, Mapping[str, Any]]


def _tables(url: str) -> dict[str, Rows]:
    """The rows of django-celery-beat's tables by id; a table that a release lacks is empty."""
    kinds = (
        "periodictask",
        "intervalschedule",
        "crontabschedule",
        "solarschedule",
        "clockedschedule",
    )
    try:
        is_postgres = url.startswith(("postgres:", "postgresql:"))
        engine = create_engine(driver_url(url) if is_postgres else url)
        with engine.connect() as connection:
            present = set(inspect(connection).get_table_names())
            if DJANGO_TABLE not in present:
                raise ImportProblem(
                    f"the database has no table {DJANGO_TABLE!r}; is this the database of the "
                    "Django project that uses django-celery-beat?"
                )
            rows: dict[str, Rows] = {}
            for kind in kinds:
                name = f"django_celery_beat_{kind}"
                rows[kind] = {}
                if name in present:
                    table = Table(name, MetaData(), autoload_with=connection, resolve_fks=False)
                    ordered = select(table).order_by(table.c.id)
                    rows[kind] = {
                        row["id"]: dict(row) for row in connection.execute(ordered).mappings()
                    }
        engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        raise ImportProblem(f"the database cannot be read: {error}") from error
    return rows


def _of_task(
    task: Mapping[str, Any],
    tables: Mapping[str, Rows],
    timezone: str,
    now: datetime,
    notes: list[str],
) -> ScheduleSpec:
    starts_at = _aware(task.get("start_time"))
    when = _of_tables(task, tables, timezone, notes)
    enabled = bool(task["enabled"])
    if "every" in when:
        # Its next fire is counted from the last one, or from the start.
        last = _aware(task.get("last_run_at"))
        starts_at = starts_at or (last and last.replace(microsecond=0))
    if task.get("one_off") or "once" in when:
        enabled = enabled and not task.get("total_run_count")
        if "once" not in when:
            when = _only_once(when, timezone, now, starts_at)
            notes.append(f"runs once, at {when['once']}")
        starts_at = None
    for column in ("exchange", "routing_key"):
        if task.get(column):
            notes.append(f"{column} {task[column]!r} is not carried over; set a queue")
    expires = task.get("expire_seconds")
    return ScheduleSpec(
        task["name"],
        task["task"],
        args=_json_column(task, "args", list),
        kwargs=_json_column(task, "kwargs", dict),
        headers=_json_column(task, "headers", dict),
        queue=task.get("queue") or None,
        priority=_priority(task.get("priority"), notes),
        starts_at=starts_at.isoformat() if starts_at else None,
        ends_at=_text(_aware(task.get("expires"))),
        expires=int(expires) if expires else None,
        overlap="allow",
        enabled=enabled,
        **when,
    )


def _of_tables(
    task: Mapping[str, Any], tables: Mapping[str, Rows], timezone: str, notes: list[str]
) -> dict[str, Any]:
    for kind, make in _KINDS.items():
        key = task.get(f"{kind}_id")
        if key is not None:
            row = tables[f"{kind}schedule"].get(key)
            if row is None:
                raise ImportProblem(f"its {kind} schedule {key} does not exist")
            return make(row, timezone, notes)
    raise ImportProblem("it has no schedule: no interval, crontab, solar or clocked time")


def _of_interval(row: Mapping[str, Any], timezone: str, notes: list[str]) -> dict[str, Any]:
    try:
        step = timedelta(**{row["period"]: row["every"]})
    except (TypeError, OverflowError) as error:
        raise ImportProblem(f"every {row['every']} {row['period']} is no interval") from error
    return {"every": seconds_text(step.total_seconds()), "timezone": timezone}


def _of_crontab(row: Mapping[str, Any], timezone: str, notes: list[str]) -> dict[str, Any]:
    names = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
    try:
        given = crontab(**{name: str(row[name]).replace(" ", "") for name in names})
    except Exception as error:  # crontab_parser raises bare Exceptions too
        raise ImportProblem(f"its crontab is wrong: {error}") from error
    return {"cron": crontab_expression(given), "timezone": str(row.get("timezone") or timezone)}


def _of_solar(row: Mapping[str, Any], timezone: str, notes: list[str]) -> dict[str, Any]:
    place = f"{float(row['latitude']):.6f},{float(row['longitude']):.6f}"
    return {"solar": f"{row['event']}@{place}", "timezone": timezone}


def _of_clocked(row: Mapping[str, Any], timezone: str, notes: list[str]) -> dict[str, Any]:
    return {"once": _text(_aware(row["clocked_time"])), "timezone": timezone}


_KINDS: dict[str, Callable[[Mapping[str, Any], str, list[str]], dict[str, Any]]] = {
    "interval": _of_interval,
    "crontab": _of_crontab,
    "solar": _of_solar,
    "clocked": _of_clocked,
}


def _only_once(
    when: Mapping[str, Any], timezone: str, now: datetime, starts_at: datetime | None
) -> dict[str, Any]:
    """The first fire of a schedule that fires but once."""
    since = max(now, starts_at) if starts_at else now
    zone = when.get("timezone") or timezone
    # Checks the expression before it is asked for a fire.
    wanted = from_spec(ScheduleSpec("once", "once", **when), timezone=zone)
    times: Cadence = parse(wanted.kind, wanted.expression, zone, anchor=starts_at or now)
    found = times.after(since - timedelta(microseconds=1) if starts_at == since else since)
    if found is None:
        raise ImportProblem("it never fires")
    return {"once": found.isoformat(), "timezone": zone}


def _json_column(task: Mapping[str, Any], column: str, kind: type) -> Any:
    text = task.get(column) or ""
    try:
        value = json.loads(text) if text.strip() else kind()
    except ValueError as error:
        raise ImportProblem(f"its {column} are not JSON: {error}") from error
    if not isinstance(value, kind):
        raise ImportProblem(f"its {column} are {text!r}, not a JSON {kind.__name__}")
    return value


def _aware(moment: Any) -> datetime | None:
    if moment is None:
        return None
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    aware: datetime = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


# -- taking them over ------------------------------------------------------------------------------


def take_over(
    connection: psycopg.Connection[Any], found: Translation, *, timezone: str, workload: str = ""
) -> tuple[list[str], list[str]]:
    """Add what was found as schedules of the operator's own.

    Returns the names that were added, and those that were left alone because a schedule of that
    name is there already. So it may be repeated.
    """
    added: list[str] = []
    there: list[str] = []
    for spec in found.specs:
        definition = from_spec(spec, workload=workload, timezone=timezone)
        fresh = store.insert(connection, definition, declared=None)
        (added if fresh else there).append(spec.name)
    return added, there
