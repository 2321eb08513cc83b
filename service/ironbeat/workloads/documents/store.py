"""Documents and chunks in PostgreSQL. All changes are made here, each in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from ironbeat import connection, load_queries

Cursor = psycopg.Cursor[dict[str, Any]]

# What PostgreSQL's text cannot hold.
_FORBIDDEN = dict.fromkeys([0, *range(0xD800, 0xE000)])


@dataclass(frozen=True, slots=True)
class Standing:
    """How a document stands: of ``total`` chunks some are ``submitted``, ``done``, ``failed``."""

    document_id: str
    total: int
    submitted: int
    done: int
    failed: int

    @property
    def open(self) -> int:
        """Chunks that runs have now."""
        return self.submitted - self.done - self.failed

    @property
    def ended(self) -> bool:
        """Whether every chunk has come to its end."""
        return self.done + self.failed >= self.total

    @property
    def waiting(self) -> int:
        """Chunks that nobody has yet."""
        return self.total - self.submitted


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as it is stored; ``id`` is made of its document, its place and its text."""

    id: str
    position: int
    heading: str
    text: str


def storable(text: str) -> str:
    """``text`` without what PostgreSQL's text cannot hold."""
    return text.translate(_FORBIDDEN)


def document_id(path: str, content: bytes) -> str:
    """The id of a file's content at a path: another content is another document."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape"))
    digest.update(b"\0")
    digest.update(content)
    return digest.hexdigest()[:32]


def chunk_id(document: str, position: int, text: str) -> str:
    """The id of a chunk."""
    digest = hashlib.sha256(f"{document}\0{position}\0{text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


@contextmanager
def transaction() -> Iterator[Cursor]:
    """A cursor in a transaction of its own."""
    with connection() as opened, opened.transaction(), opened.cursor(row_factory=dict_row) as found:
        yield found


def execute(cursor: Cursor, query: str, **parameters: Any) -> Cursor:
    """Run a query of ``queries.sql``."""
    return cursor.execute(load_queries(__package__, "queries.sql")[query], parameters)


def rows(query: str, **parameters: Any) -> list[dict[str, Any]]:
    """All rows that a query answers with."""
    with transaction() as cursor:
        return execute(cursor, query, **parameters).fetchall()


def row(query: str, **parameters: Any) -> dict[str, Any] | None:
    """The first row that a query answers with."""
    with transaction() as cursor:
        return execute(cursor, query, **parameters).fetchone()


# -- storing


def add_batch(id: str, source: str) -> None:
    """Note a batch."""
    with transaction() as cursor:
        execute(cursor, "add_batch", id=id, source=storable(source))


def add_document(
    id: str,
    chunks: Iterable[StoredChunk] = (),
    *,
    batch_id: str | None = None,
    path: str = "",
    title: str = "",
    media_type: str = "",
    encoding: str | None = None,
    size: int = 0,
    use_celery: bool = False,
    skipped: str | None = None,
) -> str:
    """Store a document and its chunks, before anything is done with them; returns its status.

    What is stored already stays, with its metadata. An older version of the same file goes.
    ``skipped`` is the reason why a file could not be read.
    """
    found = [
        {
            "id": c.id,
            "position": c.position,
            "heading": storable(c.heading),
            "text": storable(c.text),
        }
        for c in chunks
    ]
    with transaction() as cursor:
        execute(cursor, "forget_path", path=storable(path), id=id)
        execute(
            cursor,
            "add_document",
            id=id,
            batch_id=batch_id,
            path=storable(path),
            title=storable(title)[:500],
            media_type=media_type,
            encoding=encoding,
            bytes=size,
            use_celery=use_celery,
            status="skipped" if skipped else "stored",
            reason=storable(skipped) if skipped else None,
            total=0,
        )
        if found:
            execute(cursor, "add_chunks", document_id=id, chunks=json.dumps(found))
        execute(cursor, "count_chunks", id=id)
        stands = execute(cursor, "document", id=id).fetchone()
    return str(stands["status"]) if stands else "stored"


# -- the chord of a document


def begin(id: str) -> bool:
    """Begin, or go on with, a document; whether there is something to do."""
    with transaction() as cursor:
        execute(cursor, "lock_document", id=id)
        found = execute(cursor, "begin", id=id).fetchone()
    if found is None:
        raise LookupError(f"no document has the id {id!r}, or it was skipped")
    return bool(found["done"] < found["total"] or found["total"] == 0)


def complete(id: str, metadata: Mapping[str, Any], side: str | None) -> Standing | None:
    """Write a chunk's metadata; how its document stands then, ``None`` if it had them before."""
    return _standing(
        "complete", id=id, metadata=storable(json.dumps(metadata, ensure_ascii=False)), side=side
    )


def give_up(id: str, error: str) -> Standing | None:
    """Note that a chunk failed for good; as :func:`complete`."""
    return _standing("give_up", id=id, error=storable(error)[:2000])


def _standing(query: str, **parameters: Any) -> Standing | None:
    with transaction() as cursor:
        execute(cursor, "lock_document_of", id=parameters["id"])
        found = execute(cursor, query, **parameters).fetchone()
    if found is None:
        return None
    return Standing(found["id"], found["total"], found["submitted"], found["done"], found["failed"])


def finish(id: str) -> dict[str, Any] | None:
    """End a document whose chunks have all ended: ``status, done, failed, total``."""
    return row("finish", id=id)


def take_back(document_id: str, ids: Sequence[str]) -> None:
    """Let chunks whose runs are gone be handed out once more."""
    with transaction() as cursor:
        execute(cursor, "lock_document", id=document_id)
        execute(cursor, "take_back", ids=list(ids), document_id=document_id)
