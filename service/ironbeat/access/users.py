"""People: those of the settings (``viewer``, ``operator``) and those in the database.

The two accounts of the settings let an installation be looked at as soon as it is up. A row of the
same name in the table takes their place.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

import psycopg

from ironbeat import queries
from ironbeat.access import passwords

SQL = queries.load("ironbeat.access", "access.sql")

Role = Literal["viewer", "operator"]
ROLES: tuple[Role, ...] = ("viewer", "operator")
_NAME = re.compile(r"[^\W_](?:[\w.@+-]{0,98}\w)?")

Connection = psycopg.Connection[Any]

# Compared with when nobody has the name, so that the time does not tell which names there are.
_NOBODY = "scrypt$16384$8$1$AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


class NoSuchUser(LookupError):
    """Nobody in the table has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"nobody is named {name!r}; `ironbeat users list` shows who there is")


class UserExists(ValueError):
    """Somebody has this name already."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"somebody is named {name!r} already; `ironbeat users passwd {name}` changes the "
            "password"
        )


class BadUser(ValueError):
    """The name or the role cannot be had; the message says why."""


@dataclass(frozen=True, slots=True)
class User:
    """A person who may log in. ``source``: ``table``, or ``settings`` for the two given there."""

    name: str
    role: Role
    source: Literal["table", "settings"]
    created_at: datetime | None = None
    changed_at: datetime | None = None


def authenticate(
    connection: Connection, given: Mapping[Role, str], name: str, password: str
) -> User | None:
    """The person with this name and password, or ``None``; takes as long either way.

    ``given`` are the settings' passwords by role; the account has the role's name.
    """
    row = connection.execute(SQL["user"], {"name": name}).fetchone()
    right = passwords.matches(password, row[2] if row is not None else _NOBODY)
    if row is not None:
        return _user(row) if right else None
    for role, wanted in given.items():
        same = hmac.compare_digest(password.encode("utf-8", "replace"), wanted.encode())
        if name == role and wanted and same:
            return User(name, role, "settings")
    return None


def everybody(connection: Connection, given: Mapping[Role, str]) -> list[User]:
    """All who may log in, by name."""
    found = [_user(row) for row in connection.execute(SQL["users"]).fetchall()]
    taken = {user.name for user in found}
    found += [User(role, role, "settings") for role in given if given[role] and role not in taken]
    return sorted(found, key=lambda user: user.name)


def add(connection: Connection, name: str, role: str, password: str) -> None:
    """Let somebody in. Raises :class:`BadUser`, :class:`UserExists`, ``WeakPassword``."""
    if not _NAME.fullmatch(name):
        raise BadUser(
            f"{name!r} is no name: use letters, digits and . _ - @ +, 100 at most, beginning with "
            "a letter or digit"
        )
    parameters = {"name": name, "role": _checked(role), "hash": passwords.digest(password)}
    if connection.execute(SQL["add_user"], parameters).fetchone() is None:
        raise UserExists(name)


def change(
    connection: Connection, name: str, *, password: str | None = None, role: str | None = None
) -> None:
    """Give somebody another password or role; who was logged in has to log in again.

    Raises :class:`NoSuchUser`, :class:`BadUser`, ``WeakPassword``.
    """
    parameters = {
        "name": name,
        "role": None if role is None else _checked(role),
        "hash": None if password is None else passwords.digest(password),
    }
    with connection.transaction():
        if connection.execute(SQL["change_user"], parameters).fetchone() is None:
            raise NoSuchUser(name)
        connection.execute(SQL["close_sessions_of"], {"name": name})


def remove(connection: Connection, name: str) -> None:
    """Let somebody in no more, at once. Raises :class:`NoSuchUser`."""
    with connection.transaction():
        if connection.execute(SQL["remove_user"], {"name": name}).fetchone() is None:
            raise NoSuchUser(name)
        connection.execute(SQL["close_sessions_of"], {"name": name})


def _checked(role: str) -> Role:
    if role not in ROLES:
        raise BadUser(f"{role!r} is no role; there are {' and '.join(ROLES)}")
    return cast("Role", role)


def _user(row: Any) -> User:
    return User(row[0], row[1], "table", row[3], row[4])
