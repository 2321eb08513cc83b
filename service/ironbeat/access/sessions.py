"""Sessions of the dashboard, and how many logins may fail.

A session's key is drawn at random and only its digest is kept. Failed logins are counted in the
database, because the next try may reach another process or host.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from ironbeat import queries
from ironbeat.access.users import Role, User

SQL = queries.load("ironbeat.access", "access.sql")

# So long may a session rest.
IDLE_SECONDS = 4 * 3600.0
# A session's use is written down no more often than this.
SEEN_SECONDS = 60.0

FAILURE_WINDOW_SECONDS = 300.0
# One person from one address; all from one address; one person from anywhere.
MOST_OF_PAIR, MOST_OF_ADDRESS, MOST_OF_NAME = 5, 20, 50

Connection = psycopg.Connection[Any]


class TooManyTries(Exception):
    """Logins failed too often; ``seconds`` until the next one is looked at."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, round(seconds))
        super().__init__(f"too many logins failed; try again in {self.seconds} seconds")


@dataclass(frozen=True, slots=True)
class Session:
    """Who is logged in. ``csrf`` has to come with every change."""

    name: str
    role: Role
    csrf: str
    created_at: datetime
    expires_at: datetime

    @property
    def may_change(self) -> bool:
        """Whether this person may change anything."""
        return self.role == "operator"

    def vouches(self, token: str) -> bool:
        """Whether ``token`` is this session's."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.csrf.encode())


def start(connection: Connection, user: User, address: str, seconds: float) -> str:
    """Log ``user`` in for at most ``seconds``; returns the key for the cookie."""
    key = secrets.token_urlsafe(32)
    connection.execute(SQL["sweep"], {"window": FAILURE_WINDOW_SECONDS})
    connection.execute(
        SQL["open_session"],
        {
            "digest": digest(key),
            "name": user.name,
            "role": user.role,
            "csrf": secrets.token_urlsafe(24),
            "address": address,
            "seconds": seconds,
        },
    )
    return key


def find(connection: Connection, key: str) -> Session | None:
    """Who holds ``key``; ``None`` for nobody, or when the session is over."""
    parameters = {"digest": digest(key), "idle": IDLE_SECONDS}
    row = connection.execute(SQL["session"], parameters).fetchone()
    if row is None:
        return None
    if row[5] > SEEN_SECONDS:
        connection.execute(SQL["seen"], {"digest": digest(key)})
    return Session(*row[:5])


def end(connection: Connection, key: str) -> None:
    """Log out."""
    connection.execute(SQL["close_session"], {"digest": digest(key)})


def digest(key: str) -> str:
    """What is kept of a session's key. The key is random, so no salt is needed."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def check_tries(connection: Connection, name: str, address: str) -> None:
    """Raise :class:`TooManyTries` when this person or address has failed too often of late."""
    most = _bounds(name, address)
    parameters = {"keys": list(most), "window": FAILURE_WINDOW_SECONDS}
    for key, failures, seconds in connection.execute(SQL["failures"], parameters).fetchall():
        if failures >= most[key]:
            raise TooManyTries(seconds)


def count_failure(connection: Connection, name: str, address: str) -> None:
    """A login failed."""
    parameters = {"keys": list(_bounds(name, address)), "window": FAILURE_WINDOW_SECONDS}
    connection.execute(SQL["count_failure"], parameters)


def forget_failures(connection: Connection, name: str, address: str) -> None:
    """A login succeeded: that person's earlier mistakes from there are forgotten."""
    pair = next(iter(_bounds(name, address)))
    connection.execute(SQL["forget_failures"], {"keys": [pair]})


def _bounds(name: str, address: str) -> dict[str, int]:
    # A made-up name may be long; its digest is not, and no name can look like another's key.
    who = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
    return {
        f"pair:{who}:{address}": MOST_OF_PAIR,
        f"address:{address}": MOST_OF_ADDRESS,
        f"name:{who}": MOST_OF_NAME,
    }
