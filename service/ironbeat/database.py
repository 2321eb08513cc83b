"""The one way to PostgreSQL: engine, connections, sessions, LISTEN.

Hot paths use :func:`connection`, a plain psycopg connection in autocommit mode from the pool, and
write SQL; workloads may use :func:`session`. Every wait is bounded: connecting, waiting for a lock,
and an idle transaction all end by themselves.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.pq import TransactionStatus

from ironbeat.settings import get_settings

# SQLAlchemy takes a third of a program's start to import: it is imported where an engine is made.
if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

CHANNEL_SCHEDULES = "ironbeat_schedules"

CONNECT_TIMEOUT_SECONDS = 3
# Bounds what a stopped or cut-off client can hold on to.
IDLE_IN_TRANSACTION_SECONDS = 30
LOCK_TIMEOUT_SECONDS = 10
# Half-open connections are noticed by the kernel after this long without an acknowledgement.
TCP_USER_TIMEOUT_MILLISECONDS = 10_000

_lock = threading.Lock()
_engines: dict[str, Engine] = {}
# Pools of the processes that this one was forked from: kept, so that nothing closes what is theirs.
_inherited: list[Any] = []


def _forked() -> None:
    """Give a child pools of its own: connections must never be shared between processes.

    What its parent's engines know of the server stays: asking it again takes as long as a short
    task, for each child. Another thread may have held the lock at the fork, and is not here.
    """
    global _lock
    _lock = threading.Lock()
    for engine in list(_engines.values()):
        _inherited.append(engine.pool)
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forked)


def driver_url(url: str) -> str:
    """``url`` for SQLAlchemy, naming the psycopg driver."""
    parts = urlsplit(url)
    if parts.scheme in ("postgres", "postgresql"):
        parts = parts._replace(scheme="postgresql+psycopg")
    return urlunsplit(parts)


def connection_url(url: str) -> str:
    """``url`` for psycopg and libpq."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme="postgresql"))


def connect_arguments(application_name: str = "ironbeat") -> dict[str, Any]:
    """The bounds that every connection carries."""
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": application_name,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": TCP_USER_TIMEOUT_MILLISECONDS,
        "options": (
            f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_SECONDS}s "
            f"-c lock_timeout={LOCK_TIMEOUT_SECONDS}s -c TimeZone=UTC"
        ),
    }


def engine(url: str | None = None) -> Engine:
    """The engine of this process for ``url`` (default: the setting ``database_url``).

    A forked child gets connections of its own.
    """
    url = url or get_settings().database_url.get_secret_value()
    with _lock:
        found = _engines.get(url)
        if found is None:
            from sqlalchemy import create_engine

            found = _engines[url] = create_engine(
                driver_url(url),
                pool_size=5,
                max_overflow=10,
                pool_timeout=5,
                pool_recycle=1800,
                pool_pre_ping=False,
                connect_args=connect_arguments(),
            )
        return found


def outages() -> tuple[type[Exception], ...]:
    """What the use of :func:`connection` raises when PostgreSQL cannot be reached, for ``except``.

    SQLAlchemy is loaded with the first connection, and what is not loaded raises nothing.
    """
    pool = sys.modules.get("sqlalchemy.exc")
    own = (psycopg.OperationalError, psycopg.InterfaceError)
    return own if pool is None else (*own, pool.SQLAlchemyError)


def dispose() -> None:
    """Close every pooled connection of this process."""
    with _lock:
        for found in _engines.values():
            found.dispose()
        _engines.clear()


@contextmanager
def connection(url: str | None = None) -> Iterator[psycopg.Connection[Any]]:
    """A psycopg connection in autocommit mode; wrap ``connection.transaction()`` for more.

    A connection that broke while in use is thrown away, so that the next caller gets a live one.
    """
    pooled = engine(url).raw_connection()
    raw = cast("psycopg.Connection[Any]", pooled.driver_connection)
    try:
        if not raw.autocommit:
            raw.autocommit = True
        yield raw
    except BaseException:
        # What a signal raised (a time limit, say) came out of the middle of a statement, which the
        # server would go on with, holding its locks.
        under_way = raw.info.transaction_status == TransactionStatus.ACTIVE
        if under_way:
            with suppress(psycopg.Error):
                raw.cancel_safe(timeout=CONNECT_TIMEOUT_SECONDS)
        if raw.closed or raw.broken or under_way:
            pooled.invalidate()
        raise
    finally:
        if pooled.is_valid and not raw.closed:
            raw.autocommit = False
        pooled.close()


class _Deadlines:
    """Cuts off connections whose block took too long, with one thread for all of a process."""

    def __init__(self) -> None:
        self._pid = 0
        self._lock = threading.Lock()
        self._open: dict[int, tuple[float, psycopg.Connection[Any]]] = {}

    def add(self, connection: psycopg.Connection[Any], seconds: float) -> None:
        if self._pid != os.getpid():
            # The thread did not survive the fork, and its lock may not have been free.
            self._pid, self._lock, self._open = os.getpid(), threading.Lock(), {}
            threading.Thread(target=self._watch, name="deadlines", daemon=True).start()
        with self._lock:
            self._open[id(connection)] = (time.monotonic() + seconds, connection)

    def remove(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            self._open.pop(id(connection), None)

    def _watch(self) -> None:
        while True:
            time.sleep(0.5)
            now = time.monotonic()
            with self._lock:
                late = [key for key, (until, _) in self._open.items() if until < now]
                for key in late:
                    _, connection = self._open.pop(key)
                    if not connection.closed:
                        _shut(connection.fileno())


_deadlines = _Deadlines()


@contextmanager
def deadline(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Cut ``connection`` off when the block has not ended within ``seconds``, or little more.

    A server that is stopped but not closed would let it wait for ever, and no time-out of the
    server's ends that. The call that waits then raises :class:`psycopg.OperationalError`.
    """
    _deadlines.add(connection, seconds)
    try:
        yield
    finally:
        _deadlines.remove(connection)


def _shut(descriptor: int) -> None:
    # A duplicate, because closing a socket object closes its descriptor, which libpq owns.
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


@contextmanager
def session(url: str | None = None) -> Iterator[Session]:
    """A SQLAlchemy session that commits when the block ends and rolls back when it raises."""
    from sqlalchemy.orm import Session

    with Session(engine(url)) as opened, opened.begin():
        yield opened


def dedicated(
    url: str | None = None, application_name: str = "ironbeat"
) -> psycopg.Connection[Any]:
    """A connection of one's own in autocommit mode, for LISTEN or for a thread that keeps it."""
    url = url or get_settings().database_url.get_secret_value()
    return psycopg.connect(
        connection_url(url), autocommit=True, **connect_arguments(application_name)
    )
