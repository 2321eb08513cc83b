"""The servers that a benchmark runs on: real, of its own, and as careful with data as a host's."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from ironbeat.embedded import ServerProcess, temporary_postgres, temporary_redis
from ironbeat.migrations import upgrade
from ironbeat.runs import pruning
from ironbeat.settings import Settings, names_of
from ironbeat.workload import discover

#: Redis databases: what workers consume from, results, and where a backlog is prepared.
RUN, RESULTS, STAGE = 1, 2, 9

_TEMPLATE = "bench_template"
_serial = itertools.count(1)


@dataclass
class Servers:
    """A PostgreSQL whose commits wait for the disk, and a Valkey with its append-only file."""

    postgres: ServerProcess
    redis: ServerProcess
    folder: Path

    def redis_url(self, database: int) -> str:
        """The address of one Redis database."""
        return f"{self.redis.url.rsplit('/', 1)[0]}/{database}"

    def redis_client(self, database: int) -> redis.Redis:
        """A client of one Redis database."""
        return redis.Redis.from_url(self.redis_url(database))

    def new_database(self, *, tables: bool = True) -> str:
        """The URL of a fresh database, with Ironbeat's tables or with none."""
        name = f"bench_{next(_serial)}"
        template = _TEMPLATE if tables else "template1"
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database that :meth:`new_database` made."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
                    sql.Identifier(url.rsplit("/", 1)[1])
                )
            )

    def prepare(self, workloads: Sequence[str]) -> None:
        """Make the database that others are copied from."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
        upgrade(self._url(_TEMPLATE), discover(workloads))
        with psycopg.connect(self._url(_TEMPLATE), autocommit=True) as connection:
            pruning.make_partitions(connection)

    def _url(self, database: str) -> str:
        return f"{self.postgres.url.rsplit('/', 1)[0]}/{database}"


@contextmanager
def servers(workloads: Sequence[str] = ()) -> Iterator[Servers]:
    """Both servers until the block ends; ``workloads``: whose tables new databases have."""
    with (
        temporary_postgres(durable=True) as postgres,
        temporary_redis(append_only=True) as broker,
        tempfile.TemporaryDirectory(prefix="ironbeat-bench-") as folder,
    ):
        found = Servers(postgres, broker, Path(folder))
        found.prepare(workloads)
        yield found


def forget_own_settings() -> None:
    """Take this machine's settings of Ironbeat out of the environment: a benchmark has its own."""
    for field in Settings.model_fields:
        for name in names_of(field):
            os.environ.pop(name, None)
    os.environ["IRONBEAT_ENV_FILE"] = os.devnull
