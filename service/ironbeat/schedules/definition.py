"""The description of a schedule: everything that code or an operator may set, checked as a whole.

A :class:`Definition` is built from a declared :class:`~ironbeat.workload.ScheduleSpec`
(:func:`from_spec`), from what a person typed (:func:`from_input`), or changed with
:meth:`Definition.changed`; then it is valid, or a :class:`DefinitionError` tells everything that is
wrong at once, field by field, with what to write instead. Only :meth:`Definition.of_row` takes what
it is given, because somebody may have written the row by hand; :meth:`Definition.problems` tells.

Whether the task exists and its arguments fit is a question of its own, because not every program
has the tasks loaded: :meth:`Definition.check_task`.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from ironbeat.schedules import cadence, policies
from ironbeat.schedules.cadence import Cadence, CadenceError
from ironbeat.schedules.zones import EPOCH
from ironbeat.workload import CatchUp, Kind, Overlap, ScheduleSpec, WorkloadError, seconds_text

#: Larger arguments belong into a table or a file, and only their key into the arguments.
LARGEST_ARGUMENTS_BYTES = 256 * 1024
LONGEST_NAME = 200
LONGEST_JITTER_SECONDS = 86_400
HIGHEST_PRIORITY = 9

_LARGEST_INTEGER = 2**31 - 1
_DEEPEST_JSON = 100
# One of these may stand for `kind` and `expression`.
_SHORT_KINDS = {"cron": "cron", "every": "interval", "solar": "solar", "once": "once"}
# How lengths of time are called where a person gives them with a unit.
_LENGTHS = {
    "jitter": "jitter_seconds",
    "expires": "expires_seconds",
    "catch_up_window": "catch_up_window_seconds",
}


class DefinitionError(ValueError):
    """A schedule cannot be as asked. ``problems`` maps each wrong field to what to do about it."""

    def __init__(self, name: str, problems: Mapping[str, str]) -> None:
        self.name = name
        self.problems = dict(problems)
        told = "; ".join(f"{field}: {text}" for field, text in self.problems.items())
        super().__init__(f"schedule {name!r} is refused: {told}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A description of a schedule. Times are aware; lengths of time are whole seconds.

    Raises :class:`DefinitionError` when built from values that do not make a schedule.
    """

    name: str
    task: str
    kind: Kind
    expression: str
    timezone: str
    workload: str = ""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    priority: int | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    jitter_seconds: int = 0
    expires_seconds: int | None = None
    catch_up: CatchUp = "latest"
    catch_up_max: int = 100
    catch_up_window_seconds: int | None = None
    overlap: Overlap = "skip"
    enabled: bool = True

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise DefinitionError(str(self.name), problems)
        for name in ("args", "kwargs", "headers"):
            # As it comes back from the database, with lists for tuples, and nobody else's.
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name))))
        for name in ("starts_at", "ends_at"):
            moment = getattr(self, name)
            if moment is not None:
                object.__setattr__(self, name, moment.astimezone(UTC))

    @classmethod
    def of_row(cls, values: Mapping[str, Any]) -> Definition:
        """The definition that a row holds, right or wrong. ``values`` has all fields by name."""
        made = object.__new__(cls)
        for name in FIELDS:
            object.__setattr__(made, name, values[name])
        return made

    def problems(self) -> dict[str, str]:
        """Everything that is wrong: field -> what to do about it. Empty for a valid definition."""
        found: dict[str, str] = {}
        for check in (_check_names, _check_times, _check_arguments, _check_policies):
            check(self, found)
        return found

    def cadence(self, anchor: datetime) -> Cadence:
        """When this schedule fires; an interval counts from ``anchor``.

        Raises :class:`~ironbeat.schedules.cadence.CadenceError` if it is wrong.
        """
        return cadence.parse(self.kind, self.expression, self.timezone, anchor=anchor)

    def describe(self) -> str:
        """When it fires, in plain words, or what is wrong with it."""
        try:
            return self.cadence(EPOCH).describe()
        except CadenceError as error:
            return str(error)

    def upcoming(self, count: int, *, now: datetime, anchor: datetime) -> list[policies.Fire]:
        """The next ``count`` fires after ``now``, fewer if it ends before."""
        times = self.cadence(anchor)
        found = policies.first(
            times,
            now=now,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
            jitter_seconds=self.jitter_seconds,
            key=self.name,
        )
        return policies.upcoming(
            times,
            scheduled_for=found[0] if found else None,
            ends_at=self.ends_at,
            jitter_seconds=self.jitter_seconds,
            key=self.name,
            count=count,
        )

    def changed(self, changes: Mapping[str, Any]) -> Definition:
        """This definition with ``changes``, given as to :func:`from_input`.

        Raises :class:`DefinitionError`.
        """
        problems: dict[str, str] = {}
        values = _typed(changes, changes.get("timezone") or self.timezone, problems)
        if values.get("name", self.name) != self.name:
            problems["name"] = "a schedule keeps its name; add a new one and remove this one"
        if problems:
            raise DefinitionError(self.name, problems)
        return replace(self, **values)

    def checked(self) -> Definition:
        """This definition if it is valid. Raises :class:`DefinitionError`."""
        return replace(self)

    def as_json(self) -> dict[str, Any]:
        """All fields as JSON values; :func:`from_json` reads it back."""
        values = {name: getattr(self, name) for name in FIELDS}
        for name in ("starts_at", "ends_at"):
            if values[name] is not None:
                values[name] = values[name].astimezone(UTC).isoformat()
        return values

    def differences(self, other: Definition) -> dict[str, tuple[Any, Any]]:
        """Where the two differ: field -> (this one's value, the other's), as JSON values."""
        ours, theirs = self.as_json(), other.as_json()
        return {name: (ours[name], theirs[name]) for name in FIELDS if ours[name] != theirs[name]}

    def check_task(
        self, tasks: Mapping[str, Any] | None, queues: Collection[str] | None = None
    ) -> None:
        """Raise :class:`DefinitionError` unless task and queue exist and the arguments fit.

        ``tasks`` maps names to callables, or to objects whose ``run`` is the callable, as
        ``app.tasks`` of a Celery application does. What is ``None`` is not checked.
        """
        problems: dict[str, str] = {}
        if tasks is not None:
            problems |= _task_problems(self.task, self.args, self.kwargs, tasks)
        if queues is not None and self.queue is not None and self.queue not in queues:
            problems["queue"] = f"no worker consumes {self.queue!r}; {_instead(self.queue, queues)}"
        if problems:
            raise DefinitionError(self.name, problems)


FIELDS = tuple(each.name for each in fields(Definition))


def from_spec(spec: ScheduleSpec, *, workload: str = "", timezone: str) -> Definition:
    """The definition that code declares; ``timezone`` is for a ``spec`` that names none.

    Raises :class:`DefinitionError`.
    """
    try:
        kind, expression = spec.cadence()
    except WorkloadError as error:
        raise DefinitionError(str(spec.name), {"expression": str(error)}) from error
    values = {
        "name": spec.name,
        "task": spec.task,
        "kind": kind,
        "expression": expression,
        "timezone": spec.timezone or timezone,
        "workload": workload,
        "args": spec.args,
        "kwargs": spec.kwargs,
        "headers": spec.headers,
        "queue": spec.queue,
        "priority": spec.priority,
        "starts_at": spec.starts_at,
        "ends_at": spec.ends_at,
        "jitter_seconds": spec.jitter,
        "expires_seconds": spec.expires,
        "catch_up": spec.catch_up,
        "catch_up_max": spec.catch_up_max,
        "catch_up_window_seconds": spec.catch_up_window,
        "overlap": spec.overlap,
        "enabled": spec.enabled,
    }
    return from_input(values, timezone=timezone)


def from_input(values: Mapping[str, Any], *, timezone: str) -> Definition:
    """The definition that a person describes, on a command line or in a request.

    ``values`` are fields of :class:`Definition`, or of its short forms: one of ``cron``, ``every``,
    ``solar``, ``once`` for kind and expression; ``jitter``, ``expires``, ``catch_up_window`` as
    ``"10m"`` or seconds. Texts stand for JSON, for times (ISO 8601, in the schedule's zone unless
    they say otherwise), for numbers and truth. Raises :class:`DefinitionError`.
    """
    problems: dict[str, str] = {}
    zone = values.get("timezone") or timezone
    typed = _typed(values, zone, problems)
    typed["timezone"] = zone
    for name in ("name", "task"):
        if not typed.get(name):
            problems.setdefault(name, "is missing")
    if "kind" not in typed and not problems.keys() & {"kind", "expression"}:
        problems["kind"] = "is missing; give one of cron, every, solar, once"
    elif "expression" not in typed and not problems.keys() & {"kind", "expression"}:
        problems["expression"] = "is missing"
    if problems:
        raise DefinitionError(str(values.get("name") or ""), problems)
    return Definition(**typed)


def from_json(values: Mapping[str, Any]) -> Definition:
    """What :meth:`Definition.as_json` wrote, perhaps in another release; not checked."""
    known = {each.name: values.get(each.name, _default(each)) for each in fields(Definition)}
    for name in ("starts_at", "ends_at"):
        if known[name] is not None:
            known[name] = datetime.fromisoformat(known[name])
    return Definition.of_row(known)


def _default(of: Field[Any]) -> Any:
    if of.default_factory is not MISSING:
        return of.default_factory()
    return None if of.default is MISSING else of.default


# -- reading what a person typed -------------------------------------------------------------------


def _typed(values: Mapping[str, Any], zone: Any, problems: dict[str, str]) -> dict[str, Any]:
    """``values`` under the names and in the types of the fields; adds to ``problems``."""
    typed: dict[str, Any] = {}
    for name, value in values.items():
        target = _LENGTHS.get(name, name)
        try:
            if name in _SHORT_KINDS:
                if value is None:
                    continue
                if "kind" in typed or "kind" in values:
                    raise ValueError("give only one of cron, every, solar, once, kind")
                typed["kind"], typed["expression"] = _SHORT_KINDS[name], _expression(value)
            elif target not in FIELDS:
                raise ValueError(_instead(name, [*FIELDS, *_SHORT_KINDS, *_LENGTHS]))
            elif target in ("starts_at", "ends_at") and value and (wrong := _zone_problem(zone)):
                # No fault of the time, which cannot be read without it.
                problems["timezone"] = wrong
            else:
                typed[target] = _read(target, value, zone)
        except ValueError as error:
            problems[name] = str(error)
    return typed


def _zone_problem(zone: Any) -> str | None:
    try:
        cadence.check_timezone(str(zone))
    except CadenceError as error:
        return str(error)
    return None


def _expression(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return seconds_text(value)
    return str(value)


def _read(name: str, value: Any, zone: Any) -> Any:
    """One field's value in its type; what is wrong in other ways is found by the checks."""
    if name in ("starts_at", "ends_at"):
        return _moment(value, zone)
    if name in ("args", "kwargs", "headers"):
        return _json(value)
    if name in ("catch_up_max", "priority"):
        return _integer(value)
    if name in _LENGTHS.values():
        return _length(value)
    if name == "enabled":
        return _truth(value)
    if name == "queue":
        return value or None
    return value.strip() if isinstance(value, str) else value


def _moment(value: Any, zone: Any) -> datetime | None:
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            return value
        value = value.isoformat()
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a time; write e.g. '2026-05-01T09:30'")
    return cadence.moment(value, str(zone))


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not JSON ({error})") from error


def _integer(value: Any) -> Any:
    if isinstance(value, str):
        if value.strip() == "":
            return None
        try:
            return int(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a whole number") from None
    return value


def _length(value: Any) -> Any:
    """A length of time in whole seconds."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = timedelta(0) if value.strip() in ("0", "0s") else cadence.interval(value)
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"{value:g} seconds; write whole seconds")
        return int(value)
    return value


def _truth(value: Any) -> Any:
    if isinstance(value, str):
        known = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        if value.strip().lower() not in known:
            raise ValueError(f"{value!r} is neither true nor false")
        return known[value.strip().lower()]
    return value


# -- checks ----------------------------------------------------------------------------------------


def _check_names(given: Definition, problems: dict[str, str]) -> None:
    for name, longest in (("name", LONGEST_NAME), ("task", 255), ("queue", 255), ("workload", 255)):
        value = getattr(given, name)
        if (name == "queue" and value is None) or (name == "workload" and value == ""):
            continue
        if not isinstance(value, str) or not value:
            problems[name] = f"{value!r} is no name; write a text that is not empty"
        elif len(value) > longest:
            problems[name] = f"is {len(value)} characters long; at most {longest} are allowed"
        elif value != value.strip() or not value.isprintable():
            problems[name] = f"{value!r} has blanks around it or unprintable characters"


def _check_times(given: Definition, problems: dict[str, str]) -> None:
    times = _checked_cadence(given, problems)
    for name in ("starts_at", "ends_at"):
        moment = getattr(given, name)
        if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
            problems[name] = f"{moment!r} is not a time with an offset from UTC"
            return
    starts, ends = given.starts_at, given.ends_at
    if starts is not None and ends is not None and starts >= ends:
        problems["ends_at"] = f"{ends} is not after the start, {starts}"
    elif times is not None:
        _check_ever_fires(times, starts, ends, problems)


def _checked_cadence(given: Definition, problems: dict[str, str]) -> Cadence | None:
    for name in ("kind", "expression", "timezone"):
        if not isinstance(getattr(given, name), str):
            problems[name] = f"{getattr(given, name)!r} is not a text"
            return None
    if given.kind not in get_args(Kind):
        problems["kind"] = f"{given.kind!r} is unknown; write one of {_listed(get_args(Kind))}"
        return None
    try:
        cadence.check_timezone(given.timezone)
    except CadenceError as error:
        problems["timezone"] = str(error)
        return None
    try:
        return given.cadence(given.starts_at or EPOCH)
    except CadenceError as error:
        problems["expression"] = str(error)
        return None


def _check_ever_fires(
    times: Cadence, starts: datetime | None, ends: datetime | None, problems: dict[str, str]
) -> None:
    if starts is None and (ends is None or not times.fires_once):
        return
    found = times.after((starts or EPOCH) - timedelta(microseconds=1))
    if found is None or (ends is not None and found > ends):
        problems["expression"] = "it does not fire between its start and its end; move one of them"


def _check_arguments(given: Definition, problems: dict[str, str]) -> None:
    size = 0
    for name, kind, what in (
        ("args", (list, tuple), "a list"),
        ("kwargs", Mapping, "an object"),
        ("headers", Mapping, "an object"),
    ):
        value = getattr(given, name)
        if not isinstance(value, kind):
            problems[name] = f"{value!r} is not {what}; write JSON such as " + (
                '[1, "two"]' if name == "args" else '{"key": 1}'
            )
            continue
        wrong = _json_problem(value, 0)
        if wrong:
            problems[name] = wrong
            continue
        size += len(json.dumps(value, ensure_ascii=False).encode())
    if size > LARGEST_ARGUMENTS_BYTES:
        problems["args"] = (
            f"arguments of {size} bytes are too large; at most {LARGEST_ARGUMENTS_BYTES} are "
            "allowed. Put the data into a table or a file and pass its key"
        )


def _json_problem(value: Any, depth: int) -> str | None:
    """Why ``value`` cannot be kept as JSON in PostgreSQL; ``None`` if it can."""
    if depth > _DEEPEST_JSON:
        return f"is nested more than {_DEEPEST_JSON} levels deep"
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            return f"{value[:40]!r} has a NUL or half of a character pair, which cannot be stored"
        return None
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"the key {key!r} is not a text; JSON has text keys only"
            wrong = _json_problem(key, depth + 1) or _json_problem(item, depth + 1)
            if wrong:
                return wrong
        return None
    if isinstance(value, (list, tuple)):
        return next(filter(None, (_json_problem(item, depth + 1) for item in value)), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a number in JSON"
    if isinstance(value, int) and abs(value) > 10**1000:
        return "a number has more than 1000 digits"
    if value is None or isinstance(value, (bool, int, float)):
        return None
    return f"{value!r} of type {type(value).__name__} is not JSON; pass a text or a number"


def _check_policies(given: Definition, problems: dict[str, str]) -> None:
    for name, allowed in (("catch_up", get_args(CatchUp)), ("overlap", get_args(Overlap))):
        if getattr(given, name) not in allowed:
            problems[name] = f"{getattr(given, name)!r} is unknown; write one of {_listed(allowed)}"
    if not isinstance(given.enabled, bool):
        problems["enabled"] = f"{given.enabled!r} is neither true nor false"
    for name, lowest, highest, optional in (
        ("priority", 0, HIGHEST_PRIORITY, True),
        ("jitter_seconds", 0, LONGEST_JITTER_SECONDS, False),
        ("expires_seconds", 1, _LARGEST_INTEGER, True),
        ("catch_up_max", 1, policies.MOST_FIRES, False),
        ("catch_up_window_seconds", 1, _LARGEST_INTEGER, True),
    ):
        value = getattr(given, name)
        if value is None and optional:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            problems[name] = f"{value!r} is not a whole number from {lowest} to {highest}"
    if given.catch_up == "window" and given.catch_up_window_seconds is None:
        problems["catch_up_window_seconds"] = (
            "is missing; catch-up 'window' needs how late a fire may be, e.g. '2h'"
        )


def _task_problems(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], tasks: Mapping[str, Any]
) -> dict[str, str]:
    if name not in tasks:
        return {"task": f"no task is named {name!r}; {_instead(name, tasks)}"}
    run = getattr(tasks[name], "run", tasks[name])
    try:
        signature = inspect.signature(run)
    except (TypeError, ValueError):
        return {}  # written in C: nothing is known about its arguments
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return {"args": f"{error}; the task is {name}{signature}"}
    return {}


def _instead(wrong: str, known: Collection[str]) -> str:
    """What may have been meant."""
    near = difflib.get_close_matches(wrong, known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known are {_listed(known)}"


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - 20} more" if len(shown) > 20 else ""
    return ", ".join(shown[:20]) + more
