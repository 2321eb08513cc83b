"""The audit: who changed what, when, from where, and how that went.

An entry is committed before the change and completed after it. So a change that cannot be written
down is not made, and one that was refused or broke off is seen, too.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.types.json import Jsonb

from ironbeat import database, queries

SQL = queries.load("ironbeat.access", "access.sql")

Via = Literal["dashboard", "api", "cli"]
DONE = "done"
LONGEST_OUTCOME = 500
#: What PostgreSQL says where the tables are not there yet, or not any more.
NO_TABLE = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a person, or ``token`` for whoever has the API's; ``address``: from where."""

    who: str
    via: Via
    address: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. ``outcome``: ``done``, why it was refused, or ``None``: it goes on, or died."""

    id: int
    at: datetime
    who: str
    via: Via
    address: str
    action: str
    subject: str
    detail: Mapping[str, Any]
    outcome: str | None


@dataclass(slots=True)
class Note:
    """An entry while its change is made; what stands in ``detail`` in the end is kept."""

    detail: dict[str, Any] = field(default_factory=dict)


_NOTE: ContextVar[Note | None] = ContextVar("ironbeat_audit_note", default=None)


def tell(**detail: Any) -> None:
    """Add to the entry of the change that is being made here, if one is being :func:`noted`."""
    note = _NOTE.get()
    if note is not None:
        note.detail.update(detail)


def somebody() -> str:
    """Who sits here: the user's own name where they became another by ``sudo``."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):
        user = str(os.geteuid())
    return f"{user}@{socket.gethostname()}"


@contextmanager
def noted(
    url: str,
    actor: Actor,
    action: str,
    subject: str = "",
    detail: Mapping[str, Any] | None = None,
    *,
    late: bool = False,
) -> Iterator[Note]:
    """Write down that ``actor`` does ``action`` to ``subject``, and how the block went.

    ``action`` is a thing and a verb (``schedule.pause``); ``detail`` is JSON without secrets.
    Whatever the block raises goes on. Raises :class:`psycopg.OperationalError` before the block
    when the entry cannot be written. ``late``: where the audit's table is not there before, the
    entry is written after a block that went well, which may have made it.
    """
    id: int | None = None
    with (
        contextlib.suppress(*(NO_TABLE if late else ())),
        database.connection(url) as connection,
    ):
        id = begin(connection, actor, action, subject, detail or {})
    note = Note()
    here = _NOTE.set(note)
    try:
        yield note
    except BaseException as error:
        # The error matters more than that it could not be written down.
        with contextlib.suppress(Exception), database.connection(url) as connection:
            if id is not None:
                complete(connection, id, f"{type(error).__name__}: {error}", note.detail)
        raise
    finally:
        _NOTE.reset(here)
    # A change may have taken the audit's own table away.
    with contextlib.suppress(*NO_TABLE), database.connection(url) as connection:
        if id is None:
            id = begin(connection, actor, action, subject, detail or {})
        complete(connection, id, DONE, note.detail)


def begin(
    connection: Connection, actor: Actor, action: str, subject: str, detail: Mapping[str, Any]
) -> int:
    """Write an entry without an outcome; returns its id."""
    row = connection.execute(
        SQL["note"],
        {
            "who": actor.who,
            "via": actor.via,
            "address": actor.address,
            "action": action,
            "subject": _storable(subject),
            "detail": Jsonb(_plain(detail)),
        },
    ).fetchone()
    assert row is not None
    return int(row[0])


def complete(
    connection: Connection, id: int, outcome: str, detail: Mapping[str, Any] | None = None
) -> None:
    """Say how the change of the entry ``id`` went."""
    connection.execute(
        SQL["complete"],
        {
            "id": id,
            "outcome": _storable(outcome[:LONGEST_OUTCOME]),
            "detail": Jsonb(_plain(detail or {})),
        },
    )


def entries(
    connection: Connection,
    *,
    who: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Entry]:
    """The latest entries that meet every condition; ``action`` may be its beginning.

    ``before`` is the id of the last entry of the page before.
    """
    parameters = {
        "who": who,
        "action": action,
        "subject": subject,
        "since": since,
        "until": until,
        "before": before,
        "limit": limit,
    }
    return [Entry(*row) for row in connection.execute(SQL["entries"], parameters).fetchall()]


def prune(connection: Connection, days: int) -> int:
    """Forget entries older than ``days``; returns how many."""
    return connection.execute(SQL["prune_audit"], {"days": days}).rowcount


def _plain(value: Any) -> Any:
    """``value`` as JSON that PostgreSQL can keep."""
    if isinstance(value, Mapping):
        return {_storable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _storable(value.isoformat() if isinstance(value, datetime) else str(value))


def _storable(text: str) -> str:
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
