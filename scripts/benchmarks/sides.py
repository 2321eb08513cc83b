"""What the benchmark ``rq`` compares: RQ and Celery as they come, and Ironbeat's two sides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.apps.documents_work import METADATA, NOTHING
from benchmarks.programs import BINARIES
from benchmarks.systems import QUEUE, RQ, Celery, Place, System

WORKS = (NOTHING, METADATA)
NAMES = ("ironbeat-rq", "ironbeat-celery", "rq", "celery")
_MODULE = "benchmarks.apps.documents_ironbeat"


class WarmRQ(RQ):
    """RQ's default worker, with the models loaded before it forks."""

    worker_class = "benchmarks.apps.documents_rq.WarmWorker"


class PlainCelery(Celery):
    """Celery's worker with its default pool."""

    def commands(self, place: Place, workers: int) -> list[Sequence[str]]:
        """One worker with so many children."""
        [command] = super().commands(place, workers)
        return [[*command[:2], "benchmarks.apps.documents_celery", *command[3:]]]


class Side(System):
    """One of Ironbeat's sides; ``program`` is what its workers are."""

    program = "worker"

    def commands(self, place: Place, workers: int) -> list[Sequence[str]]:
        """One program a worker, as supervisord starts them."""
        from benchmarks.apps import ironbeat_app

        ironbeat_app.install(place.folder, _MODULE)
        queues = "metadata_queue" if self.extra["BENCH_WORK"] == METADATA else QUEUE
        return [
            (
                *(str(BINARIES / "ironbeat"), self.program, "--name", f"bench-{number}"),
                *("--queues", queues, "--logfile", str(place.folder / f"worker-{number}.log")),
            )
            for number in range(workers)
        ]


class RQSide(Side):
    """RQ's workers under Ironbeat's leases."""

    program = "rq-worker"


def side(name: str, work: str, texts: Path) -> System:
    """The system of this name, doing this work."""
    extra = {"BENCH_WORK": work, "BENCH_TEXTS": str(texts)}
    if name == "rq":
        return WarmRQ(name, "documents_rq", "rq", "", extra=extra)
    if name == "celery":
        return PlainCelery(name, "documents_celery", "celery", "", extra=extra)
    extra |= {
        "BENCH_RATIO": str(int(name == "ironbeat-celery")),
        "IRONBEAT_WORKLOADS": "bench" if work == NOTHING else "bench,documents",
    }
    made = Side if name == "ironbeat-celery" else RQSide
    return made(name, "documents_ironbeat", "ironbeat", "", extra=extra)
