"""Real servers for the tests: PostgreSQL and Valkey, started once a session, thrown away after it.
A session is one of pytest-xdist's workers where there are several.

``settings`` gives a test a database of its own with every table in it, an empty Redis, and an
Ironbeat that points at both. Nothing of the machine's own settings reaches a test.
"""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis as redis_client
from cryptography.fernet import Fernet
from psycopg import sql

from ironbeat import database
from ironbeat.embedded import ServerProcess, temporary_postgres, temporary_redis
from ironbeat.migrations import upgrade
from ironbeat.runs.recorder import Recorder
from ironbeat.settings import Settings, get_settings, names_of
from ironbeat.workload import discover

TEMPLATE = "ironbeat_template"

_serial = itertools.count(1)


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_this_machine() -> Iterator[None]:
    """Take away every name that sets something, and the file of an installation beside us."""
    kept = dict(os.environ)
    for field in Settings.model_fields:
        for name in names_of(field):
            os.environ.pop(name, None)
    os.environ["IRONBEAT_ENV_FILE"] = os.devnull
    get_settings.cache_clear()
    yield
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture(autouse=True)
def _environment_of_each_test() -> Iterator[None]:
    """A command that a test runs in this process may set variables for its children."""
    kept = dict(os.environ)
    yield
    if os.environ != kept:
        os.environ.clear()
        os.environ.update(kept)
        get_settings.cache_clear()


@pytest.fixture(autouse=True, scope="session")
def _recorders() -> Iterator[weakref.WeakSet[Recorder]]:
    """The recorders of this process, of whatever application."""
    made: weakref.WeakSet[Recorder] = weakref.WeakSet()
    with pytest.MonkeyPatch.context() as patch:
        begin = Recorder.__init__

        def noted(recorder: Recorder, *arguments: Any, **options: Any) -> None:
            begin(recorder, *arguments, **options)
            made.add(recorder)

        patch.setattr(Recorder, "__init__", noted)
        yield made


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[ServerProcess]:
    """One PostgreSQL for the whole session. Who kills or pauses it uses one of their own."""
    with temporary_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ServerProcess]:
    """One Valkey for the whole session. Who kills or pauses it uses one of their own."""
    with temporary_redis() as server:
        yield server


@pytest.fixture(scope="session")
def _template(postgres_server: ServerProcess) -> str:
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    upgrade(_of_database(postgres_server.url, TEMPLATE), discover())
    return TEMPLATE


@pytest.fixture
def empty_database_url(postgres_server: ServerProcess) -> Iterator[str]:
    """A database without tables."""
    yield from _database(postgres_server.url, "template1")


@pytest.fixture
def database_url(postgres_server: ServerProcess, _template: str) -> Iterator[str]:
    """A database with every table of the platform and the workloads, all empty."""
    yield from _database(postgres_server.url, _template)


@pytest.fixture(scope="module")
def module_database_url(postgres_server: ServerProcess, _template: str) -> Iterator[str]:
    """Like ``database_url``, shared by the tests of a module."""
    yield from _database(postgres_server.url, _template)


@pytest.fixture
def redis_url(redis_server: ServerProcess) -> str:
    """An empty Redis, without a database number; ``settings`` takes 1 and 2 of it."""
    with redis_client.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url.rsplit("/", 1)[0]


@pytest.fixture
def settings(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    database_url: str,
    redis_url: str,
    _recorders: weakref.WeakSet[Recorder],
) -> Iterator[Settings]:
    """The settings of an Ironbeat on ``database_url`` and ``redis_url``; this process uses them.

    Set further ones with ``monkeypatch.setenv("IRONBEAT_…")`` and ``get_settings.cache_clear()``;
    programs that a test starts inherit them.
    """
    # The test's own monkeypatch: with another one, what a test sets would be put back too late.
    yield from _settings(monkeypatch, tmp_path, database_url, redis_url, _recorders)


@pytest.fixture(scope="module")
def module_settings(
    tmp_path_factory: pytest.TempPathFactory,
    module_database_url: str,
    redis_server: ServerProcess,
    _recorders: weakref.WeakSet[Recorder],
) -> Iterator[Settings]:
    """Like ``settings``, shared by the tests of a module; its Redis is emptied once."""
    with redis_client.Redis.from_url(redis_server.url) as client:
        client.flushall()
    url = redis_server.url.rsplit("/", 1)[0]
    with pytest.MonkeyPatch.context() as patch:
        state = tmp_path_factory.mktemp("state")
        yield from _settings(patch, state, module_database_url, url, _recorders)


def _settings(
    monkeypatch: pytest.MonkeyPatch,
    state: Path,
    database_url: str,
    redis_url: str,
    recorders: weakref.WeakSet[Recorder],
) -> Iterator[Settings]:
    monkeypatch.setenv("IRONBEAT_DATABASE_URL", database_url)
    monkeypatch.setenv("IRONBEAT_BROKER_URL", f"{redis_url}/1")
    monkeypatch.setenv("IRONBEAT_RESULT_BACKEND", f"{redis_url}/2")
    monkeypatch.setenv("IRONBEAT_STATE_DIR", str(state))
    monkeypatch.setenv("IRONBEAT_ENCRYPTION_KEY", Fernet.generate_key().decode())
    get_settings.cache_clear()
    earlier = list(recorders)
    yield get_settings()
    # What they have not written would be tried again and again, in a database that is gone.
    for recorder in set(recorders).difference(earlier):
        recorder.close(timeout=0)
    database.dispose()
    get_settings.cache_clear()


def _of_database(server_url: str, name: str) -> str:
    return f"{server_url.rsplit('/', 1)[0]}/{name}"


def _database(server_url: str, template: str) -> Iterator[str]:
    name = f"test_{next(_serial)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    yield _of_database(server_url, name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        _drop(connection, name)


def _drop(connection: psycopg.Connection[Any], name: str) -> None:
    """Drop a database whoever is connected to it."""
    for _ in range(50):
        try:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )
            return
        except psycopg.errors.InsufficientPrivilege:
            # PostgreSQL itself is cleaning it up, which is nobody's to end; it soon is done.
            time.sleep(0.1)
    raise AssertionError(f"{name} cannot be dropped")
