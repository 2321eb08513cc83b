"""The spool: outcomes that PostgreSQL could not take, kept on this machine's disk until it can.

Each process appends to a file of its own, named for its lease, which is locked as long as it lives.
A record is one line with its checksum, and is on the disk (``fsync``) before :meth:`Spool.append`
returns; a line that a crash cut off is no record. The files can be read by their owner only. Their
size is bounded: beyond it, and on a full disk, a record is refused, and what it stands for stays
unacknowledged at the broker.

What a dead process left behind is found by its file's free lock, or by the name of its lease.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SUFFIX = ".spool"


@dataclass(frozen=True, slots=True)
class Record:
    """Something to be written to the ledger later: ``kind`` says by whom."""

    kind: str
    value: dict[str, Any]


class Spool:
    """The spool file of this process. Not safe for several threads at once."""

    def __init__(self, directory: Path, owner: str, *, max_bytes: int) -> None:
        self.directory = directory
        self.path = directory / f"{owner}.{os.getpid()}{SUFFIX}"
        self.max_bytes = max_bytes
        self.size = 0
        self.count = 0
        self._file: int | None = None

    def append(self, records: Sequence[Record]) -> None:
        """Put ``records`` on the disk. Raises :class:`OSError`: then none of them is there."""
        data = b"".join(_line(record) for record in records)
        if self.size + len(data) > self.max_bytes:
            raise OSError(
                f"the spool {self.path} is full: {self.size} of {self.max_bytes} bytes are taken"
            )
        descriptor = self._open()
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, self.size)
            raise
        self.size += len(data)
        self.count += len(records)

    def clear(self) -> None:
        """Everything in it is in the ledger."""
        if self._file is not None:
            # First the name: nobody may find an empty file, or half of one.
            with suppress(OSError):
                self.path.unlink()
            os.close(self._file)
            self._file = None
        self.size = self.count = 0

    def _open(self) -> int:
        if self._file is None:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _sync_directory(self.directory)
            except OSError:
                os.close(descriptor)
                raise
            self._file = descriptor
        return self._file


def read(path: Path) -> list[Record]:
    """The records of a spool file, up to the first line that is damaged."""
    found: list[Record] = []
    for line in path.read_bytes().splitlines(keepends=True):
        record = _record(line)
        if record is None:
            logger.warning("%s: what follows record %d is damaged", path, len(found))
            break
        found.append(record)
    return found


def of_lease(directory: Path, lease: str) -> list[Path]:
    """The files of the processes that worked under a lease."""
    return sorted(directory.glob(f"{lease}.*{SUFFIX}")) if directory.is_dir() else []


def left_behind(directory: Path) -> Iterator[Path]:
    """The files of processes that are gone, each locked while it is looked at."""
    for path in sorted(directory.glob(f"*{SUFFIX}")) if directory.is_dir() else ():
        with _locked(path) as gone:
            if gone:
                yield path


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a file; ``False`` when its owner lives, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            # Its owner may have removed it before the lock was free.
            yield path.exists()
    finally:
        os.close(descriptor)


def bytes_in(directory: Path) -> int:
    """How much is spooled on this machine."""
    total = 0
    for path in directory.glob(f"*{SUFFIX}") if directory.is_dir() else ():
        with suppress(OSError):
            total += path.stat().st_size
    return total


def _line(record: Record) -> bytes:
    text = json.dumps([record.kind, record.value], default=str).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _record(line: bytes) -> Record | None:
    checksum, _, text = line.partition(b" ")
    if not text.endswith(b"\n"):
        return None
    text = text[:-1]
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        kind, value = json.loads(text)
    except ValueError:
        return None
    return Record(kind, value)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def values(records: Iterable[Record], kind: str) -> list[dict[str, Any]]:
    """The values of the records of one kind."""
    return [record.value for record in records if record.kind == kind]
