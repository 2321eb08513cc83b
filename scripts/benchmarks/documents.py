"""``rq``: RQ beside Celery on the same work, as the owners of `documents` compare them.

Two worker processes each; so many tasks are handed over by the system's own call for many, and the
time runs from the first one handed over to the last one's end. The work is a no-op, and a chunk's
metadata from Debian's FAQ (``scripts/corpora`` fetches it). `rq` and `celery` are the packages as
they come, models loaded before they fork; `ironbeat-rq` and `ironbeat-celery` are the sides of
``HybridTaskManager``, with ledger, leases and guard.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

import psutil

from benchmarks import documents_shown, producer, recovery, report
from benchmarks.apps.documents_work import METADATA, NOTHING
from benchmarks.body import Note
from benchmarks.programs import Program, Trouble, Usage, running, wait_until
from benchmarks.report import Figures
from benchmarks.servers import Servers, servers
from benchmarks.sides import NAMES, WORKS, side
from benchmarks.systems import Place, System

ROOT = Path(__file__).resolve().parents[2]
CORPORA = ROOT / ".cache" / "corpora"
WORKERS = 2
PATIENCE = 600.0
# Handed over one by one, so many a second, to see how long one takes that waits for nobody.
PACED = {NOTHING: (60, 5), METADATA: (60, 5)}
WARM_UP = {NOTHING: 200, METADATA: 30}
SAMPLE_SECONDS = 0.5
TEXTS = 400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--tasks", default="100,500,1000,2000", help="how many tasks (100,500,1000,2000)"
    )
    parser.add_argument(
        "--work", default=",".join(WORKS), help=f"of {', '.join(WORKS)} (both), or none"
    )
    parser.add_argument(
        "--recovery",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="also kill a worker, and wait so long for its task to run again (0: do not)",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="keep the figures in this JSON file; what it has is not measured again",
    )
    parser.add_argument(
        "--only",
        default=",".join(NAMES),
        metavar="LIST",
        help="measure only these, and show what --keep has of the others",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw them as a PNG")


def run(arguments: argparse.Namespace, peers: Sequence[str]) -> int:
    """Measure and print; returns 1 when a task was lost or ran twice."""
    names = ["ironbeat-rq", "ironbeat-celery", *peers]
    works, counts = _chosen(arguments)
    only = [name for name in names if name in arguments.only.split(",")]
    kept = _read(arguments.keep)
    with servers(("documents",)) as found:
        texts = found.folder / "texts.json"
        if METADATA in works:
            texts.write_text(json.dumps(_texts()))
        for work in works:
            for name in only:
                missing = [n for n in counts if f"{name} {work} {n}" not in kept]
                if missing:
                    report.say(f"{name}: {work}, {', '.join(map(str, missing))} tasks")
                    for count, figures in _measured(found, side(name, work, texts), missing):
                        kept[f"{name} {work} {count}"] = figures
                        _write(arguments.keep, kept)
        for name in only if arguments.recovery else ():
            if f"{name} recovery" not in kept:
                report.say(f"{name}: kill -9 of a worker")
                system = side(name, NOTHING, texts)
                kept[f"{name} recovery"] = recovery.measure(found, system, arguments.recovery)
                _write(arguments.keep, kept)
    documents_shown.show(kept, names, works, counts, as_json=arguments.json)
    if arguments.plot:
        documents_shown.draw(kept, names, works, counts, arguments.plot)
    return int(any(f.get("lost") or f.get("doubled") for f in kept.values()))


def _chosen(arguments: argparse.Namespace) -> tuple[list[str], list[int]]:
    works = [each.strip() for each in arguments.work.split(",") if each.strip() != "none"]
    if unknown := [each for each in works if each not in WORKS]:
        raise Trouble(f"there is no work {unknown[0]!r}; there are: {', '.join(WORKS)}")
    try:
        counts = sorted({int(each) for each in arguments.tasks.split(",")})
    except ValueError:
        counts = []
    if not counts or counts[0] < 1:
        raise Trouble(f"--tasks {arguments.tasks}: give numbers, as in 100,500")
    return works, counts


def _read(keep: Path | None) -> dict[str, Figures]:
    if keep is None or not keep.exists():
        return {}
    found: dict[str, Figures] = json.loads(keep.read_text())
    return found


def _write(keep: Path | None, figures: dict[str, Figures]) -> None:
    if keep is not None:
        keep.write_text(json.dumps(figures, indent=1) + "\n")


def _texts() -> list[str]:
    """Chunks of Debian's FAQ, English and Chinese in turns."""
    from ironbeat.workloads.documents.chunking import chunks
    from ironbeat.workloads.documents.reading import read

    if not (CORPORA / "complete").exists():
        raise Trouble("the documents are not here: run scripts/corpora, or choose --work nothing")
    found = [
        [
            chunk.text
            for path in sorted((CORPORA / "documents" / folder).glob("*.html"))
            for chunk in chunks(read(path).blocks)
        ]
        for folder in ("faq-en", "faq-zh")
    ]
    for texts in found:
        random.Random(1).shuffle(texts)
    mixed = [text for pair in zip_longest(*found) for text in pair if text]
    return mixed[:TEXTS]


def _measured(
    found: Servers, system: System, counts: Sequence[int]
) -> Iterator[tuple[int, Figures]]:
    """Each number of tasks with what was measured of it."""
    database = found.new_database()
    place = Place(found, found.folder / system.name, database)
    place.clean()
    environment = system.environment(place)
    try:
        with running(system.commands(place, WORKERS), environment, place.folder) as programs:
            measurement = _Measurement(system, place, programs)
            paced = measurement.paced()
            for count in counts:
                # What the ones before left to be noted is not this one's.
                time.sleep(1.0)
                yield count, paced | measurement.drained(count)
    finally:
        found.drop_database(database)


class _Measurement:
    """One system doing one kind of work, with its programs up."""

    def __init__(self, system: System, place: Place, programs: list[Program]) -> None:
        self._system = system
        self._place = place
        self._programs = programs
        self._work = system.extra["BENCH_WORK"]

    def paced(self) -> Figures:
        """How long a task takes, from being handed over to its end, that waits for no other."""
        self._flood(WARM_UP[self._work])
        notes = self._place.notes
        count, per_second = PACED[self._work]
        before = notes.count()
        self._produce("pace", before, count, per_second)
        self._wait(before + count)
        # The first ones wake caches and connections up.
        noted = [note for note in notes.read(before) if note.number >= before]
        took = [note.ended - note.sent for note in noted][count // 5 :]
        return {
            "p50_ms": (report.percentile(took, 0.5) or 0.0) * 1000,
            "p99_ms": (report.percentile(took, 0.99) or 0.0) * 1000,
        }

    def drained(self, count: int) -> Figures:
        """So many tasks from the first one's handing over to the last one's end."""
        pids = [program.pid for program in self._programs]
        used = Usage.of(pids).cpu
        with _watched(pids) as sizes:
            notes, produced = self._flood(count)
        seconds = max(note.ended for note in notes) - produced["began"]
        cpu = Usage.of(pids).cpu - used
        numbers = [note.number for note in notes]
        return {
            "per_s": count / seconds,
            "handed_over_per_s": produced["per_s"],
            "memory_mb": max(sizes),
            "cpu_percent": cpu / seconds / (psutil.cpu_count() or 1) * 100,
            "cpu_ms_per_task": cpu / count * 1000,
            "at_once": _at_once(notes),
            "lost": count - len(set(numbers)),
            "doubled": len(numbers) - len(set(numbers)),
            # What else the machine did meanwhile, and this.
            "load": psutil.getloadavg()[0],
        }

    def _flood(self, count: int) -> tuple[list[Note], dict[str, float]]:
        """Hand ``count`` over and wait for their end; one more, which connects, comes before."""
        before = self._place.notes.count()
        produced = self._produce("flood", before, count + 1)
        self._wait(before + count + 1)
        notes = [note for note in self._place.notes.read(before) if note.number > before]
        return notes, produced

    def _wait(self, total: int) -> None:
        notes = self._place.notes
        what = f"{self._system.name} does {self._work}"
        wait_until(lambda: notes.count() >= total, PATIENCE, what, self._programs)

    def _produce(self, *what: object) -> dict[str, float]:
        environment = self._system.environment(self._place)
        log = self._place.folder / "producer.log"
        return producer.produce(self._system.module, environment, *what, log=log)


@contextmanager
def _watched(pids: Sequence[int]) -> Iterator[list[float]]:
    """The memory of these processes and their children in MB, looked at now and then."""
    sizes = [_memory(pids)]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            sizes.append(_memory(pids))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield sizes
    finally:
        ended.set()
        watching.join()


def _memory(pids: Sequence[int]) -> float:
    """What these processes and their children have in memory, shared pages counted once, in MB."""
    total = 0
    for pid in pids:
        for process in (root := psutil.Process(pid), *root.children(recursive=True)):
            try:
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _at_once(notes: Sequence[Note]) -> int:
    """How many tasks were executed at the same time at most."""
    steps = sorted([(n.began, 1) for n in notes] + [(n.ended, -1) for n in notes])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most
