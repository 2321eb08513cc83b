"""The body of the task that every system runs: it notes that it ran, and does nothing else.

All processes of a measurement append to one file: each note is 32 bytes, written in one call of
about a microsecond, so counting them is a look at the file's size.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "BENCH_NOTES"
_NOTE = struct.Struct("<qqqq")

_descriptor: int | None = None


def ran(number: int, sent_ns: int, began_ns: int | None = None) -> None:
    """Task ``number``, handed over at ``sent_ns`` of the monotonic clock, runs now.

    One that takes its time is noted when it ends, with the time at which it began.
    """
    global _descriptor
    if _descriptor is None:
        _descriptor = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    now = time.monotonic_ns()
    os.write(_descriptor, _NOTE.pack(number, sent_ns, now if began_ns is None else began_ns, now))


@dataclass(frozen=True, slots=True)
class Note:
    """One execution: the task's number, when it was sent, began and ended (seconds)."""

    number: int
    sent: float
    began: float
    ended: float


class Notes:
    """The file that the bodies write to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def count(self) -> int:
        """How many executions there were."""
        return self.path.stat().st_size // _NOTE.size

    def read(self, since: int = 0) -> Iterator[Note]:
        """The executions from the one with this index on, in the order in which they were noted."""
        data = self.path.read_bytes()[since * _NOTE.size :]
        whole = len(data) // _NOTE.size * _NOTE.size
        for number, sent, began, ended in _NOTE.iter_unpack(data[:whole]):
            yield Note(number, sent / 1e9, began / 1e9, ended / 1e9)
