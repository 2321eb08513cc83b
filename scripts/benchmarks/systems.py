"""The systems under measurement: how each is started, and how its backlog is put in place."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from benchmarks import body
from benchmarks.programs import BINARIES
from benchmarks.servers import RESULTS, RUN, STAGE, Servers

QUEUE = "default"


@dataclass
class Place:
    """Where one measurement of one system takes place: clean, and gone afterwards."""

    servers: Servers
    folder: Path
    database_url: str

    @property
    def notes(self) -> body.Notes:
        """What the tasks note."""
        return body.Notes(self.folder / "notes")

    def environment(self, *, stage: bool = False) -> dict[str, str]:
        """The environment of workers, or of a producer that prepares a backlog aside."""
        broker = self.servers.redis_url(STAGE if stage else RUN)
        results = self.servers.redis_url(RESULTS)
        return {
            "BENCH_BROKER": broker,
            "BENCH_RESULTS": results,
            body.VARIABLE: str(self.folder / "notes"),
            "PYTHONPATH": os.pathsep.join([str(self.folder), *_source_path()]),
            "IRONBEAT_BROKER_URL": broker,
            "IRONBEAT_RESULT_BACKEND": results,
            "IRONBEAT_DATABASE_URL": self.database_url,
            "IRONBEAT_STATE_DIR": str(self.folder),
            "IRONBEAT_WORKLOADS": "bench",
        }

    def clean(self) -> None:
        """Empty Redis and the folder."""
        with self.servers.redis_client(RUN) as client:
            client.flushall()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)


def _source_path() -> list[str]:
    return [os.path.realpath(p) for p in sys.path if p and Path(p).name == "scripts"]


@dataclass(frozen=True)
class System:
    """One system.

    ``lists``: the keys its workers wait on; they are moved last, when what they name is there.
    ``counted``: hashes of messages that are not done. ``guarantees``: what a
    user can rely on when a worker is killed, in a few words.
    """

    name: str
    module: str
    package: str
    guarantees: str
    lists: tuple[str, ...] = (QUEUE,)
    counted: tuple[str, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The installed version."""
        return importlib.metadata.version(self.package)

    def commands(self, place: Place, workers: int) -> list[Sequence[str]]:
        """The command lines of so many worker processes."""
        raise NotImplementedError

    def environment(self, place: Place, *, stage: bool = False) -> dict[str, str]:
        """The environment of its processes."""
        return place.environment(stage=stage) | self.extra

    def release(self, stage: redis.Redis, run: redis.Redis) -> None:
        """Hand the prepared backlog to the workers, all at once."""
        others = [key for key in stage.scan_iter(count=1000) if _text(key) not in self.lists]
        pipe = stage.pipeline(transaction=True)
        for key in [*others, *self.lists]:
            pipe.move(key, RUN)
        pipe.execute()

    def left(self, run: redis.Redis) -> int:
        """How many messages the broker still holds, waiting or unacknowledged."""
        pipe = run.pipeline(transaction=False)
        for key in self.lists:
            pipe.llen(key)
        for key in self.counted:
            pipe.hlen(key)
        return sum(pipe.execute())


class Ironbeat(System):
    """Ironbeat's workers, one process each."""

    def commands(self, place: Place, workers: int) -> list[Sequence[str]]:
        """One program a worker, as supervisord starts them."""
        from benchmarks.apps import ironbeat_app

        ironbeat_app.install(place.folder)
        pool = os.environ.get("BENCH_POOL", "ironbeat")
        return [
            (
                str(BINARIES / "ironbeat"),
                *("worker", "--name", str(number), "--pool", pool, "--concurrency", "1"),
                *("--logfile", str(place.folder / f"worker-{number}.log")),
            )
            for number in range(workers)
        ]


class Celery(System):
    """Celery's worker with its default pool."""

    def commands(self, place: Place, workers: int) -> list[Sequence[str]]:
        """One worker with so many children."""
        return [
            (
                *(str(BINARIES / "celery"), "-A", "benchmarks.apps.celery_app", "worker"),
                *("--concurrency", str(workers)),
            )
        ]


class RQ(System):
    """RQ's default worker, which forks for each job."""

    worker_class = "rq.worker.Worker"

    def commands(self, place: Place, workers: int) -> list[Sequence[str]]:
        """One program a worker."""
        return [
            (
                *(str(BINARIES / "rq"), "worker", "--quiet", "--worker-class", self.worker_class),
                *("--url", place.servers.redis_url(RUN), QUEUE),
            )
            for _ in range(workers)
        ]

    def left(self, run: redis.Redis) -> int:
        """Jobs that wait and jobs that run."""
        pipe = run.pipeline(transaction=False)
        pipe.llen(f"rq:queue:{QUEUE}")
        pipe.zcard(f"rq:wip:{QUEUE}")
        return sum(pipe.execute())


class SimpleRQ(RQ):
    """RQ's worker that runs jobs in its own process."""

    worker_class = "rq.worker.SimpleWorker"


class Dramatiq(System):
    """Dramatiq with eight threads a process, its default."""

    def commands(self, place: Place, workers: int) -> list[Sequence[str]]:
        """One program with so many processes."""
        return [
            (
                *(str(BINARIES / "dramatiq"), "benchmarks.apps.dramatiq_app"),
                *("--processes", str(workers), "--threads", "8"),
            )
        ]


class Huey(System):
    """Huey's consumer with worker processes."""

    def commands(self, place: Place, workers: int) -> list[Sequence[str]]:
        """One program with so many processes."""
        return [
            (
                *(str(BINARIES / "huey_consumer"), "benchmarks.apps.huey_app.huey"),
                *("--workers", str(workers), "--worker-type", "process", "--quiet"),
            )
        ]


class Taskiq(System):
    """taskiq's worker on a stream."""

    def commands(self, place: Place, workers: int) -> list[Sequence[str]]:
        """One program with so many processes."""
        return [
            (
                *(str(BINARIES / "taskiq"), "worker", "benchmarks.apps.taskiq_app:broker"),
                *("--workers", str(workers), "--log-level", "WARNING"),
            )
        ]

    def release(self, stage: redis.Redis, run: redis.Redis) -> None:
        """The stream is there already, with its group: the entries are added in one step."""
        entries: Any = stage.xrange(QUEUE)
        pipe = run.pipeline(transaction=True)
        for _, fields in entries:
            pipe.xadd(QUEUE, fields)
        pipe.execute()
        stage.delete(QUEUE)

    def left(self, run: redis.Redis) -> int:
        """Entries not delivered and entries not acknowledged."""
        if not run.exists(QUEUE):
            return 0
        groups: Any = run.xinfo_groups(QUEUE)
        return sum((group["lag"] or 0) + group["pending"] for group in groups)


_KOMBU = ("unacked",)

ALL: dict[str, System] = {
    system.name: system
    for system in (
        Ironbeat(
            "ironbeat",
            "ironbeat_app",
            "ironbeat",
            "one outcome each, in a ledger; a dead worker's tasks move in seconds",
            counted=_KOMBU,
        ),
        Celery(
            "celery",
            "celery_app",
            "celery",
            "running tasks of a dead worker are lost, waiting ones back in 1 h",
            counted=_KOMBU,
        ),
        Celery(
            "celery-reliable",
            "celery_app",
            "celery",
            "at least once; a dead worker's tasks back in 1 h",
            counted=_KOMBU,
            extra={"BENCH_RELIABLE": "1"},
        ),
        RQ(
            "rq",
            "rq_app",
            "rq",
            "a dead worker's job fails, or is retried if asked, after minutes",
            lists=(f"rq:queue:{QUEUE}",),
        ),
        SimpleRQ(
            "rq-simple",
            "rq_app",
            "rq",
            "as rq; no process of its own for a job",
            lists=(f"rq:queue:{QUEUE}",),
        ),
        Dramatiq(
            "dramatiq",
            "dramatiq_app",
            "dramatiq",
            "at least once; a dead worker's tasks back after 1 min; no results",
            lists=(f"dramatiq:{QUEUE}",),
            counted=(f"dramatiq:{QUEUE}.msgs",),
        ),
        Huey(
            "huey",
            "huey_app",
            "huey",
            "at most once: a dead worker's tasks are lost",
            lists=(f"huey.redis.{QUEUE}",),
        ),
        Taskiq(
            "taskiq",
            "taskiq_app",
            "taskiq",
            "at least once; a dead worker's tasks back after 10 min; no results",
            lists=(QUEUE,),
        ),
    )
}


def _text(key: bytes | str) -> str:
    return key.decode() if isinstance(key, bytes) else key
