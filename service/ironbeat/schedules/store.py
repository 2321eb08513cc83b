"""The schedules in PostgreSQL, as code and operators read and edit them.

Every function takes a connection in autocommit mode and is one transaction. Beat learns of an edit
by the triggers on the table and plans the schedule anew if its times changed; nothing here computes
a next fire.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ironbeat import queries
from ironbeat.schedules import policies
from ironbeat.schedules.definition import Definition, DefinitionError, from_json

SQL = queries.load("ironbeat.schedules", "store.sql")

MOST_LISTED = 100_000

Connection = psycopg.Connection[Any]


class ScheduleNotFound(LookupError):
    """No schedule has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no schedule is named {name!r}; `ironbeat schedule list` shows all")


class ScheduleExists(ValueError):
    """A schedule has this name already."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"a schedule is named {name!r} already; choose another name, or change that one with "
            f"`ironbeat schedule edit {name}`"
        )


class ScheduleDeclared(ValueError):
    """The schedule is declared in code, which would bring it back."""

    def __init__(self, name: str, workload: str) -> None:
        super().__init__(
            f"schedule {name!r} is declared by {workload!r}, whose next start would bring it back; "
            f"pause it with `ironbeat schedule pause {name}`, or remove it from the code"
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it stands in the database.

    ``declared``: what code declares for it now, if it does. ``edited_at``: when an operator made it
    or made it differ from that. ``next_scheduled_for`` and ``next_fire_at``: the next fire's
    nominal and due time, ``None`` while beat has still to plan it, while it is paused, or when it
    is ``finished``.
    """

    id: int
    definition: Definition
    declared: Mapping[str, Any] | None
    edited_at: datetime | None
    created_at: datetime
    updated_at: datetime
    anchor_at: datetime
    next_scheduled_for: datetime | None
    next_fire_at: datetime | None
    finished: bool
    last_scheduled_for: datetime | None
    last_fired_at: datetime | None

    @property
    def name(self) -> str:
        """The schedule's name."""
        return self.definition.name

    @property
    def state(self) -> str:
        """``active``, ``paused``, ``finished`` (it never fires again) or ``invalid``."""
        if not self.definition.enabled:
            return "paused"
        if not self.finished:
            return "active"
        return "invalid" if self.definition.problems() else "finished"

    def differs_from_declared(self) -> dict[str, tuple[Any, Any]]:
        """What an operator changed: field -> (the value that holds, the declared one)."""
        if self.declared is None:
            return {}
        return self.definition.differences(from_json(self.declared))


def add(
    connection: Connection,
    definition: Definition,
    *,
    tasks: Mapping[str, Any] | None = None,
    queues: Collection[str] | None = None,
) -> Schedule:
    """Make a schedule of the operator's own.

    ``tasks`` and ``queues`` are those that exist, for :meth:`Definition.check_task`. Raises
    :class:`ScheduleExists`, :class:`~ironbeat.schedules.definition.DefinitionError`.
    """
    definition.check_task(tasks, queues)
    if not insert(connection, definition, declared=None):
        raise ScheduleExists(definition.name)
    return get(connection, definition.name)


def edit(
    connection: Connection,
    name: str,
    changes: Mapping[str, Any],
    *,
    tasks: Mapping[str, Any] | None = None,
    queues: Collection[str] | None = None,
) -> Schedule:
    """Change some fields of a schedule, given as a person types them.

    As long as it differs from its declaration, imports leave it alone. Raises
    :class:`ScheduleNotFound`, :class:`~ironbeat.schedules.definition.DefinitionError`.
    """
    with connection.transaction():
        before = locked(connection, name)
        after = before.definition.changed(changes)
        if not after.differences(before.definition):
            return before
        changed = after.differences(before.definition).keys()
        # A paused schedule of a workload that is switched off may still be edited elsewhere.
        after.check_task(
            tasks if changed & {"task", "args", "kwargs"} else None,
            queues if "queue" in changed else None,
        )
        update(connection, after, declared=before.declared)
        return get(connection, name)


def restore(connection: Connection, name: str) -> Schedule:
    """Undo an operator's edits: the declaration holds again.

    Raises :class:`ScheduleNotFound`, and :class:`DefinitionError` when code declares none.
    """
    with connection.transaction():
        before = locked(connection, name)
        if before.declared is None:
            raise DefinitionError(name, {"name": "no code declares it; edit or remove it"})
        declared = from_json(before.declared).checked()
        update(connection, declared, declared=before.declared)
        return get(connection, name)


def pause(connection: Connection, name: str) -> Schedule:
    """Let a schedule make no fires until it is resumed. Raises :class:`ScheduleNotFound`."""
    return _enable(connection, name, False)


def resume(connection: Connection, name: str) -> Schedule:
    """Let a schedule fire again, from now on: nothing of the pause is caught up.

    Raises :class:`ScheduleNotFound`.
    """
    return _enable(connection, name, True)


def _enable(connection: Connection, name: str, enabled: bool) -> Schedule:
    with connection.transaction():
        found = locked(connection, name)
        if found.definition.enabled == enabled:
            return found
        connection.execute(SQL["enable"], {"name": name, "enabled": enabled})
        found = get(connection, name)
        if found.declared is not None and not found.differs_from_declared():
            remembered = {"name": name, "declared": Jsonb(found.declared), "agrees": True}
            connection.execute(SQL["remember"], remembered)
            found = get(connection, name)
        return found


def remove(connection: Connection, name: str) -> None:
    """Forget a schedule; its runs stay.

    Raises :class:`ScheduleNotFound`, and :class:`ScheduleDeclared` when code would bring it back.
    """
    if connection.execute(SQL["delete"], {"name": name}).fetchone() is None:
        found = get(connection, name)
        raise ScheduleDeclared(name, found.definition.workload)


def get(connection: Connection, name: str) -> Schedule:
    """The schedule of this name. Raises :class:`ScheduleNotFound`."""
    found = listing(connection, name=name)
    if not found:
        raise ScheduleNotFound(name)
    return found[0]


def listing(
    connection: Connection,
    *,
    name: str | None = None,
    matching: str | None = None,
    workload: str | None = None,
    task: str | None = None,
    kind: str | None = None,
    queue: str | None = None,
    enabled: bool | None = None,
    by_next_fire: bool = False,
    limit: int = MOST_LISTED,
    offset: int = 0,
) -> list[Schedule]:
    """The schedules that pass all filters given, by name or by their next fire.

    ``matching`` is a part of the name, whatever its case.
    """
    filters = {
        "name": name,
        "matching": matching,
        "workload": workload,
        "task": task,
        "kind": kind,
        "queue": queue,
        "enabled": enabled,
        "by_next_fire": by_next_fire,
        "limit": limit,
        "offset": offset,
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        return [_schedule(row) for row in cursor.execute(SQL["select_schedules"], filters)]


def preview(connection: Connection, name: str, count: int) -> list[policies.Fire]:
    """The next ``count`` fires; of a paused schedule, those it would make if it were resumed now.

    Raises :class:`ScheduleNotFound`, and :class:`~ironbeat.schedules.definition.DefinitionError`
    for a row that somebody wrote by hand and that makes no sense.
    """
    found = get(connection, name)
    definition = found.definition.checked()
    if found.finished:
        return []
    if found.next_scheduled_for is None:
        return definition.upcoming(count, now=_now(connection), anchor=found.anchor_at)
    return policies.upcoming(
        definition.cadence(found.anchor_at),
        scheduled_for=found.next_scheduled_for,
        ends_at=definition.ends_at,
        jitter_seconds=definition.jitter_seconds,
        key=name,
        count=count,
    )


# -- what imports and edits share ------------------------------------------------------------------


def locked(connection: Connection, name: str) -> Schedule:
    """The schedule, locked until the transaction ends. Raises :class:`ScheduleNotFound`."""
    if connection.execute(SQL["lock"], {"name": name}).fetchone() is None:
        raise ScheduleNotFound(name)
    return get(connection, name)


def insert(
    connection: Connection, definition: Definition, *, declared: Mapping[str, Any] | None
) -> bool:
    """Write a new row; ``False`` when the name is taken."""
    parameters = _parameters(definition, declared)
    return connection.execute(SQL["insert"], parameters).fetchone() is not None


def update(
    connection: Connection,
    definition: Definition,
    *,
    declared: Mapping[str, Any] | None,
) -> None:
    """Write a row anew. It is an operator's as long as it differs from what is ``declared``."""
    edited = declared is None or bool(definition.differences(from_json(declared)))
    connection.execute(SQL["update"], _parameters(definition, declared) | {"edited": edited})


def _parameters(definition: Definition, declared: Mapping[str, Any] | None) -> dict[str, Any]:
    values = definition.as_json()
    values["starts_at"], values["ends_at"] = definition.starts_at, definition.ends_at
    for name in ("args", "kwargs", "headers"):
        values[name] = Jsonb(values[name])
    values["declared"] = None if declared is None else Jsonb(declared)
    return values


def _schedule(row: dict[str, Any]) -> Schedule:
    definition = Definition.of_row(row)
    rest = {name: row[name] for name in Schedule.__slots__ if name != "definition"}
    return Schedule(definition=definition, **rest)


def _now(connection: Connection) -> datetime:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return now.astimezone(UTC)
