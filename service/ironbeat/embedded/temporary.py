"""Throw-away servers for tests and benchmarks: real ones, gone when the block ends."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis

from ironbeat.embedded.account import Account, account_for
from ironbeat.embedded.postgres import Postgres
from ironbeat.embedded.process import EmbeddedError, ServerProcess
from ironbeat.embedded.redis import Redis

# Between choosing a free port and binding it, somebody else may take it.
_PORT_ATTEMPTS = 5

# Linux' file system in memory. To lay down a database's 660 files there takes 11 ms of a processor,
# and on a disk (ext4) 60 to 400 ms: for tests that is most of what a database costs them.
_MEMORY = Path("/dev/shm")  # noqa: S108 - private directories are made in it
_ENOUGH_BYTES = 4 << 30


def free_port() -> int:
    """A port of loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def temporary_postgres(
    database: str = "ironbeat", *, durable: bool = False
) -> Iterator[ServerProcess]:
    """A PostgreSQL with pgvector and an empty ``database``.

    Its data survive :meth:`ServerProcess.kill`, and a loss of power only if it is ``durable``: then
    a commit waits for the disk, as it does in production; else they lie in memory where there is
    room. The user of its ``url`` may create further databases. Several servers may run at once.
    """
    place = None if durable else _in_memory()
    with _temporary_home("ironbeat-postgres-", place) as (home, account):

        def make() -> ServerProcess:
            server = Postgres(
                home=home / "postgres",
                port=free_port(),
                user="ironbeat",
                password=secrets.token_urlsafe(16),
                database=database,
                account=account,
                durable=durable,
            )
            url = (
                f"postgresql://{server.user}:{server.password}"
                f"@127.0.0.1:{server.port}/{server.database}"
            )
            return ServerProcess(
                url, server.prepare, lambda: answers(url), home / "log", signal.SIGINT
            )

        server = _started(make)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def temporary_redis(append_only: bool = False) -> Iterator[ServerProcess]:
    """A Valkey server; with ``append_only`` its data survive :meth:`ServerProcess.kill`."""
    with _temporary_home("ironbeat-redis-") as (home, account):

        def make() -> ServerProcess:
            server = Redis(
                home=home / "redis",
                port=free_port(),
                password=secrets.token_urlsafe(16),
                account=account,
                append_only=append_only,
            )
            url = f"redis://:{server.password}@127.0.0.1:{server.port}/0"
            return ServerProcess(
                url, server.prepare, lambda: pongs(url), home / "log", signal.SIGTERM
            )

        server = _started(make)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def _temporary_home(prefix: str, place: Path | None = None) -> Iterator[tuple[Path, Account]]:
    home = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    try:
        # Open to the ordinary user that root's servers run as; its own files are private.
        home.chmod(0o755)
        yield home, account_for(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _in_memory() -> Path | None:
    """The file system in memory, where it is usable: containers have one of 64 MB, mostly."""
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return None
    # A server's program may have to be copied there for the user that runs it.
    programs_run = not found.f_flag & os.ST_NOEXEC
    roomy = found.f_bavail * found.f_frsize >= _ENOUGH_BYTES
    return _MEMORY if programs_run and roomy and os.access(_MEMORY, os.W_OK) else None


def _started(make: Callable[[], ServerProcess]) -> ServerProcess:
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        server = make()
        try:
            server.start()
        except EmbeddedError as error:
            if attempt == _PORT_ATTEMPTS or "in use" not in str(error):
                raise
        else:
            return server
    raise AssertionError("unreachable")


def answers(url: str) -> bool:
    """Whether the PostgreSQL at ``url`` takes connections."""
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def pongs(url: str) -> bool:
    """Whether the Redis-compatible server at ``url`` answers."""
    client = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
