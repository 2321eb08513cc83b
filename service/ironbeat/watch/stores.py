"""Short-lived, bounded ways to PostgreSQL and Redis, for those who look and must never hang.

A server that is stopped but not closed answers nothing and refuses nothing. No time-out of the
server's own ends such a wait, so these end it from this side: :func:`deadline` cuts the socket off,
and a :class:`Probe` leaves a thread behind and answers without it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import psycopg
import redis
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from redis.backoff import NoBackoff
from redis.retry import Retry

from ironbeat.database import connect_arguments, connection_url
from ironbeat.settings import Settings, client_url

Answer = TypeVar("Answer")
Connection = psycopg.Connection[Any]

# Two who look at the same time each keep one; a crowd's others are closed again.
KEPT_AT_MOST = 2
# What a server process has remembered of the catalogue is given back after so long.
KEPT_SECONDS = 600.0

#: What :func:`broker` and its calls raise.
BROKER_ERRORS: tuple[type[Exception], ...] = (redis.exceptions.RedisError, OSError)


@contextmanager
def deadline(connection: Connection, seconds: float) -> Iterator[None]:
    """Cut ``connection`` off when the block has not ended within ``seconds``.

    The call that waits on it then raises :class:`psycopg.OperationalError`. A statement that ended
    in time leaves the connection as it was.
    """
    lock = threading.Lock()
    ended = False

    def cut() -> None:
        with lock:
            if not ended and not connection.closed:
                _shut(connection.fileno())

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            ended = True
        timer.cancel()


def _shut(descriptor: int) -> None:
    # A duplicate, because closing a socket object closes its descriptor, which libpq owns.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


class Connect(Protocol):
    """How one who looks gets a connection: :func:`database`, or :meth:`Kept.database`."""

    def __call__(
        self,
        settings: Settings,
        seconds: float = 5.0,
        application_name: str = "ironbeat-watch",
        *,
        read_only: bool = True,
    ) -> AbstractContextManager[Connection]:
        """A PostgreSQL connection whose use ends within ``seconds``."""


@contextmanager
def database(
    settings: Settings,
    seconds: float = 5.0,
    application_name: str = "ironbeat-watch",
    *,
    read_only: bool = True,
) -> Iterator[Connection]:
    """A PostgreSQL connection of one's own, whose use ends within ``seconds``.

    Connecting takes at most two seconds more (the least that libpq can be told). Raises
    :class:`psycopg.OperationalError` when the server is away or too slow.
    """
    opened = _connect(settings, seconds, application_name, read_only)
    with contextlib.closing(opened), deadline(opened, seconds):
        yield opened


def _connect(
    settings: Settings, seconds: float, application_name: str, read_only: bool
) -> Connection:
    arguments = connect_arguments(application_name)
    arguments["connect_timeout"] = 2
    arguments["options"] += f" -c statement_timeout={max(1, int(seconds * 1000))}"
    if read_only:
        arguments["options"] += " -c default_transaction_read_only=on"
    url = make_conninfo(connection_url(settings.database_url.get_secret_value()))
    opened: Connection = psycopg.connect(url, autocommit=True, **arguments)
    opened.prepare_threshold = None
    return opened


@dataclass(slots=True)
class _Idle:
    connection: Connection
    opened: float = field(default_factory=time.monotonic)


class Kept:
    """Connections that are kept from one look to the next, for those who look all the time.

    A new connection's server process knows nothing of the catalogue and reads it for each table:
    over the forty partitions of a month's history that takes as long as the questions themselves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str, bool], list[_Idle]] = {}

    @contextmanager
    def database(
        self,
        settings: Settings,
        seconds: float = 5.0,
        application_name: str = "ironbeat-watch",
        *,
        read_only: bool = True,
    ) -> Iterator[Connection]:
        """As :func:`database`, with a connection that may have been used before.

        One that has broken since is replaced before it is given out.
        """
        key = (settings.database_url.get_secret_value(), application_name, read_only)
        taken = self._take(key, seconds)
        if taken is None:
            taken = _Idle(_connect(settings, seconds, application_name, read_only))
        try:
            with deadline(taken.connection, seconds):
                yield taken.connection
        finally:
            self._give_back(key, taken)

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            kept = [each for those in self._idle.values() for each in those]
            self._idle.clear()
        for each in kept:
            each.connection.close()

    def _take(self, key: tuple[str, str, bool], seconds: float) -> _Idle | None:
        while True:
            with self._lock:
                kept = self._idle.get(key)
                found = kept.pop() if kept else None
            if found is None or _works(found, seconds):
                return found
            found.connection.close()

    def _give_back(self, key: tuple[str, str, bool], used: _Idle) -> None:
        if used.connection.info.transaction_status == TransactionStatus.IDLE:
            with self._lock:
                kept = self._idle.setdefault(key, [])
                if len(kept) < KEPT_AT_MOST:
                    kept.append(used)
                    return
        used.connection.close()


def _works(kept: _Idle, seconds: float) -> bool:
    """Whether a kept connection still answers, and now for statements of at most ``seconds``."""
    if time.monotonic() - kept.opened > KEPT_SECONDS:
        return False
    milliseconds = str(max(1, int(seconds * 1000)))
    try:
        with deadline(kept.connection, seconds):
            kept.connection.execute(
                "SELECT set_config('statement_timeout', %s, false)", (milliseconds,)
            )
    except psycopg.Error:
        return False
    return True


@contextmanager
def broker(settings: Settings, seconds: float = 2.0) -> Iterator[redis.Redis]:
    """A client of the broker's Redis, each of whose calls ends within ``seconds``, untried again.

    Raises :class:`redis.exceptions.RedisError` when the server is away or too slow.
    """
    client = redis.Redis.from_url(
        client_url(settings.broker_url.get_secret_value()),
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield client
    finally:
        client.close()


class Probe(Generic[Answer]):
    """One question put to a server by at most one thread at a time.

    Whoever asks while the question is still open waits for the same answer, so that a hanging
    server costs one thread however often it is asked after. The threads are daemons: a question
    that is never answered keeps no process from ending.
    """

    def __init__(self, name: str, ask: Callable[[], Answer]):
        self._name = name
        self._ask = ask
        self._lock = threading.Lock()
        self._open: Future[Answer] | None = None

    def start(self) -> Future[Answer]:
        """The answer to come: of the question already open, or of one asked now."""
        with self._lock:
            if self._open is not None and not self._open.done():
                return self._open
            answer: Future[Answer] = Future()
            # A waiter that gives up must not be able to cancel the answer of the others.
            answer.set_running_or_notify_cancel()
            self._open = answer
        threading.Thread(
            target=self._run, args=(answer,), name=f"ironbeat-probe-{self._name}", daemon=True
        ).start()
        return answer

    def _run(self, answer: Future[Answer]) -> None:
        try:
            answer.set_result(self._ask())
        except BaseException as error:
            answer.set_exception(error)
