"""Schedules that code declares, brought into the database.

Importing is idempotent: what has not changed is not touched. A schedule that nobody has edited
follows its declaration; once an operator has edited it, it is theirs, and a changed declaration is
only remembered beside it and reported. A schedule whose declaration is gone is switched off, never
deleted; one that an operator had made their own stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from ironbeat.schedules import store
from ironbeat.schedules.definition import Definition, DefinitionError, from_spec
from ironbeat.workload import ScheduleSpec

# Two programs that import at once take turns; the number is arbitrary and ours alone.
_LOCK_KEY = 0x49524F4E53434844  # "IRONSCHD"

Connection = psycopg.Connection[Any]


@dataclass(slots=True)
class Imported:
    """What an import did, by schedule name.

    ``kept``: schedules of an operator's that differ from their declaration: name -> field -> (the
    value that holds, the declared one). ``retired``: no longer declared, hence switched off.
    ``released``: no longer declared, and an operator's, hence left alone.
    """

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    kept: dict[str, dict[str, tuple[Any, Any]]] = field(default_factory=dict)
    retired: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything in the database changed that matters to beat."""
        return bool(self.created or self.updated or self.retired)

    def sentences(self) -> list[str]:
        """What a person should know, one line each; nothing about what stayed as it was."""
        told = [f"schedule {name}: created" for name in self.created]
        told += [f"schedule {name}: updated to its declaration" for name in self.updated]
        for name, fields in self.kept.items():
            edits = ", ".join(
                f"{key} is {ours!r}, declared {theirs!r}" for key, (ours, theirs) in fields.items()
            )
            told.append(
                f"schedule {name}: left as an operator edited it ({edits}); "
                f"`ironbeat schedule edit {name} --restore` takes the declaration"
            )
        told += [
            f"schedule {name}: no longer declared, switched off; "
            f"`ironbeat schedule remove {name}` forgets it"
            for name in self.retired
        ]
        told += [
            f"schedule {name}: no longer declared, left on because an operator edited it"
            for name in self.released
        ]
        return told


def definitions(
    declared: Mapping[str, Iterable[ScheduleSpec]], *, timezone: str
) -> dict[str, Definition]:
    """The definitions of all declared schedules by name; ``declared`` maps workloads to theirs.

    Raises :class:`DefinitionError` when one is wrong, or when two have the same name.
    """
    found: dict[str, Definition] = {}
    for workload, specs in declared.items():
        for spec in specs:
            made = from_spec(spec, workload=workload, timezone=timezone)
            other = found.setdefault(made.name, made)
            if other is not made:
                raise DefinitionError(
                    made.name,
                    {"name": f"declared by {other.workload!r} and {workload!r}; rename one"},
                )
    return found


def bring_in(
    connection: Connection,
    declared: Mapping[str, Iterable[ScheduleSpec]],
    *,
    timezone: str,
    complete: bool = True,
    tasks: Mapping[str, Any] | None = None,
) -> Imported:
    """Import what ``declared`` says, workload -> its schedules, in one transaction.

    ``timezone`` is for schedules that name none. ``complete``: ``declared`` is everything that this
    installation runs, so schedules of workloads that are not in it are retired too; otherwise only
    those of the workloads named. ``tasks``: those that exist, to check names and arguments.
    Raises :class:`DefinitionError` and changes nothing when a declaration is wrong.
    """
    wanted = definitions(declared, timezone=timezone)
    for made in wanted.values():
        made.check_task(tasks)
    done = Imported()
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK_KEY])
        present = {each.name: each for each in store.listing(connection)}
        for name, made in wanted.items():
            _bring_in(connection, made, present.get(name), done)
        _retire(connection, list(wanted), None if complete else list(declared), present, done)
    return done


def _bring_in(
    connection: Connection, made: Definition, row: store.Schedule | None, done: Imported
) -> None:
    declared = made.as_json()
    if row is None:
        if store.insert(connection, made, declared=declared):
            done.created.append(made.name)
            return
        row = store.get(connection, made.name)  # somebody was faster
    if row.edited_at is not None:
        differing = row.definition.differences(made)
        if row.declared != declared or not differing:
            # Where the two have come to agree, the schedule is the code's again.
            connection.execute(
                store.SQL["remember"],
                {"name": made.name, "declared": Jsonb(declared), "agrees": not differing},
            )
        if differing:
            done.kept[made.name] = differing
        else:
            done.unchanged.append(made.name)
    elif row.declared == declared and not row.definition.differences(made):
        done.unchanged.append(made.name)
    else:
        store.update(connection, made, declared=declared)
        done.updated.append(made.name)


def _retire(
    connection: Connection,
    names: Sequence[str],
    workloads: Sequence[str] | None,
    present: Mapping[str, store.Schedule],
    done: Imported,
) -> None:
    rows = connection.execute(
        store.SQL["declared_elsewhere"], {"names": list(names), "workloads": workloads}
    ).fetchall()
    gone = [row[0] for row in rows]
    if not gone:
        return
    connection.execute(store.SQL["retire"], {"names": gone})
    for name in gone:
        row = present.get(name)
        edited = row is not None and row.edited_at is not None
        (done.released if edited else done.retired).append(name)
