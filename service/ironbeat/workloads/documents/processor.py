"""DocumentProcessor: a directory of documents, read, cut, stored, submitted and followed."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from ironbeat.workloads.documents import pipeline, store
from ironbeat.workloads.documents.chunking import chunks
from ironbeat.workloads.documents.reading import MAX_BYTES, Source, Unreadable, media_type, read
from ironbeat.workloads.documents.store import StoredChunk

POLL_SECONDS = 0.5
ENDED = frozenset({"completed", "partial", "failed", "skipped"})
# So many files are read ahead of being stored, for each reader.
AHEAD = 4

Progress = Callable[["Report"], None]


class VectorStore(Protocol):
    """What a caller's own store of vectors must be able to do."""

    def add_chunks(self, chunks: Sequence[Mapping[str, Any]]) -> None:
        """Take new chunks: ``chunk_id, document_id, position, heading, text``."""
        ...

    def update_metadata(self, chunk_id: str, metadata: Mapping[str, Any]) -> None:
        """Take the metadata of a chunk that was added before."""
        ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A document whose pipeline was submitted: ``id`` is its first run's."""

    id: str
    document_id: str
    path: str

    @property
    def state(self) -> str:
        """How the document stands: ``PENDING``, ``PROGRESS``, ``SUCCESS`` or ``FAILURE``."""
        found = store.row("document", id=self.document_id)
        status = found["status"] if found else "stored"
        return {"stored": "PENDING", "processing": "PROGRESS", "completed": "SUCCESS"}.get(
            status, "FAILURE"
        )


@dataclass(slots=True)
class Report:
    """What a run over a directory came to, and is coming to."""

    batch_id: str
    files: int = 0
    read: int = 0
    chunks: int = 0
    done: int = 0
    failed: int = 0
    unchanged: int = 0
    submitted: list[Pipeline] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _Read:
    id: str
    path: str
    size: int
    source: Source | None
    chunks: tuple[StoredChunk, ...]
    reason: str | None


class DocumentProcessor:
    """Reads the documents of ``input_dir`` and has the metadata of their chunks made.

    Chunks are stored first and submitted then; their tasks write the metadata to the database.
    With ``output_dir`` each document also becomes a file of JSON Lines there, a chunk a line. A
    ``vector_store`` gets the chunks when they are stored and their metadata when they arrive.
    ``use_celery`` sends everything to Celery; else the stored ratio decides, and while nobody has
    set one that is RQ.
    """

    def __init__(
        self,
        input_dir: str | os.PathLike[str],
        output_dir: str | os.PathLike[str] | None = None,
        vector_store: VectorStore | None = None,
        use_celery: bool = False,
        *,
        max_bytes: int = MAX_BYTES,
        readers: int | None = None,
    ) -> None:
        self.input_dir = Path(input_dir)
        self.output_dir = Path(output_dir) if output_dir is not None else None
        self.vector_store = vector_store
        self.use_celery = use_celery
        self.max_bytes = max_bytes
        self.readers = readers or min(4, os.cpu_count() or 1)

    def files(self) -> list[Path]:
        """The files below ``input_dir`` that are read, in order; links out of it are not followed.

        Raises :class:`NotADirectoryError`.
        """
        if not self.input_dir.is_dir():
            raise NotADirectoryError(f"{self.input_dir} is no directory")
        return sorted(
            path
            for path in self.input_dir.rglob("*")
            if media_type(path) and path.is_file() and not path.is_symlink()
        )

    # -- submitting --------------------------------------------------------------------------------

    def submit(self, progress: Progress = lambda report: None) -> Report:
        """Read, store and submit everything; a file that cannot be read is noted and passed over.

        What is stored already is not read into chunks again; what is complete is not submitted.
        """
        report = Report(str(uuid4()))
        found = self.files()
        report.files = len(found)
        store.add_batch(report.batch_id, str(self.input_dir))
        progress(report)
        for each in self._read_all(found):
            self._take(each, report)
            progress(report)
        return report

    def process(
        self, progress: Progress = lambda report: None, *, timeout: float | None = None
    ) -> Report:
        """:meth:`submit`, then wait for the metadata, and write the files of ``output_dir``.

        After ``timeout`` seconds it returns with what there is, ``ended`` false; the rest goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        report = self.submit(progress)
        delivered: set[str] = set()
        while True:
            stands = store.row("batch", batch_id=report.batch_id) or {}
            report.chunks, report.done = stands["chunks"], stands["done"]
            report.failed = stands["failed"]
            self._deliver(report, delivered)
            progress(report)
            if stands["ended"] >= stands["documents"]:
                report.ended = True
                return report
            if deadline is not None and time.monotonic() >= deadline:
                return report
            time.sleep(POLL_SECONDS)

    def _read_all(self, found: Sequence[Path]) -> Iterator[_Read]:
        """Every file, read in processes of their own: a reader that dies takes one file with it."""
        waiting = [(path, str(path.relative_to(self.input_dir))) for path in found]
        while waiting:
            waiting = yield from self._read_some(waiting)

    def _read_some(self, waiting: list[tuple[Path, str]]) -> Any:
        """Read until a reader dies; returns what is left then."""
        left = list(waiting)
        under_way: dict[Future[_Read], tuple[Path, str]] = {}
        with ProcessPoolExecutor(self.readers, mp_context=get_context("spawn")) as pool:
            while left or under_way:
                while left and len(under_way) < self.readers * AHEAD:
                    path, name = left.pop(0)
                    under_way[pool.submit(_read_one, path, name, self.max_bytes)] = (path, name)
                ready, _ = wait(under_way, return_when=FIRST_COMPLETED)
                broken = []
                for future in ready:
                    file = under_way.pop(future)
                    try:
                        yield future.result()
                    except Exception:
                        broken.append(file)
                if broken:
                    # All that were under way broke with it; alone, the guilty one shows.
                    for path, name in [*broken, *under_way.values()]:
                        yield self._read_alone(path, name)
                    return left
        return []

    def _read_alone(self, path: Path, name: str) -> _Read:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                return pool.submit(_read_one, path, name, self.max_bytes).result()
            except Exception as error:
                reason = f"reading it ended its reader ({type(error).__name__})"
                return _unread(path, name, reason)

    def _take(self, found: _Read, report: Report) -> None:
        report.read += 1
        source = found.source
        status = store.add_document(
            found.id,
            found.chunks,
            batch_id=report.batch_id,
            path=found.path,
            title=source.title if source else "",
            media_type=source.media_type if source else "",
            encoding=source.encoding if source else None,
            size=found.size,
            use_celery=self.use_celery,
            skipped=found.reason,
        )
        if found.reason:
            report.skipped[found.path] = found.reason
            return
        report.chunks += len(found.chunks)
        if self.vector_store is not None:
            self.vector_store.add_chunks([_row(found.id, chunk) for chunk in found.chunks])
        if status == "completed":
            report.unchanged += 1
            return
        run = pipeline.start(found.id, use_celery=self.use_celery)
        report.submitted.append(Pipeline(run, found.id, found.path))

    # -- delivering --------------------------------------------------------------------------------

    def _deliver(self, report: Report, delivered: set[str]) -> None:
        """Hand on the metadata of documents that have ended since."""
        if self.output_dir is None and self.vector_store is None:
            return
        for document in store.rows("of_batch", batch_id=report.batch_id):
            id = document["id"]
            if document["status"] not in ENDED or id in delivered:
                continue
            delivered.add(id)
            if document["status"] == "skipped":
                continue
            rows = store.rows("chunks_of", id=id)
            if self.vector_store is not None:
                for row in rows:
                    if row["metadata"] is not None:
                        self.vector_store.update_metadata(row["chunk_id"], row["metadata"])
            if self.output_dir is not None:
                write_lines(self.output_dir / f"{document['path']}.jsonl", document, rows)


def write_lines(
    target: Path, document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write a document's chunks as JSON Lines, all or none of them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=target.parent, suffix=".part", delete=False, encoding="utf-8"
    ) as file:
        for row in rows:
            line = {"path": document["path"], "title": document["title"], **row}
            file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    Path(file.name).chmod(0o640)
    Path(file.name).replace(target)


def _row(document_id: str, chunk: StoredChunk) -> dict[str, Any]:
    return {
        "chunk_id": chunk.id,
        "document_id": document_id,
        "position": chunk.position,
        "heading": chunk.heading,
        "text": chunk.text,
    }


def _read_one(path: Path, name: str, max_bytes: int) -> _Read:
    """Read and cut one file; runs in a reader's process."""
    try:
        source = read(path, max_bytes=max_bytes)
        content = path.read_bytes()
    except Unreadable as problem:
        return _unread(path, name, str(problem))
    except MemoryError:
        return _unread(path, name, "too large: it does not fit into memory")
    except Exception as error:
        return _unread(path, name, f"broken: {type(error).__name__}: {error}")
    id = store.document_id(name, content)
    cut = tuple(
        StoredChunk(
            store.chunk_id(id, chunk.position, chunk.text),
            chunk.position,
            chunk.heading,
            chunk.text,
        )
        for chunk in chunks(source.blocks)
    )
    return _Read(id, name, len(content), source, cut, None)


def _unread(path: Path, name: str, reason: str) -> _Read:
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    # Its content is not known, or too large to be looked at.
    id = store.document_id(name, f"unread {size}".encode())
    return _Read(id, name, size, None, (), reason)
