"""What a process leaves on the disk of its host for those who find it dead, hung or silent.

The ledger knows which runs a worker has claimed, not which of them it had begun: telling it would
cost a write a task. So each process keeps a small file mapped into its memory, which outlives it
however it dies, and in which noting the begin of a run takes a microsecond. It says

* which runs are executing, since when and with what hard limit: if the process dies, these are
  under suspicion and no others; if one is over its limit, the watchdog ends the process;
* when the process last drew breath (a thread's ``pulse``) and when its main loop last came round
  (``tick``), on the clock that all processes of a host share;
* the last lines that it logged, and beside it, in a file of Python's own fault handler, where it
  was when it crashed.

The reader belongs to the same user on the same host. Whoever looks from elsewhere has to do with
what the lease told.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

logger = logging.getLogger(__name__)

MAGIC = b"IRONBOX1"
SLOTS = 64
SLOT_BYTES = 192
ID_BYTES = 128
SAID_BYTES = 4096
NAME_BYTES = 128

# magic, pid, born (of the process), pulse, tick, waiting since (for a store), kind, name
_HEADER = struct.Struct(f"<8sqdddd16s{NAME_BYTES}s")
_PULSE_AT = 8 + 8 + 8
_TICK_AT = _PULSE_AT + 8
_WAITING_AT = _TICK_AT + 8
_INSTANT = struct.Struct("<d")
_SLOTS_AT = 256
# began, hard limit, attempt, length of the id (0: free), id
_SLOT = struct.Struct(f"<ddiH{ID_BYTES}s")
_LENGTH_AT = 8 + 8 + 4
_LENGTH = struct.Struct("<H")
_SAID_AT = _SLOTS_AT + SLOTS * SLOT_BYTES
_CURSOR = struct.Struct("<I")
_SIZE = _SAID_AT + _CURSOR.size + SAID_BYTES

WORDS_CHARACTERS = 6000
#: The signal at which a process writes where its threads are, also when none of them can run.
STACKS_SIGNAL = signal.SIGUSR2


@dataclass(frozen=True, slots=True)
class Execution:
    """A run that a process has begun and not ended; ``began`` is monotonic, ``hard`` seconds."""

    id: str
    attempt: int
    began: float
    hard: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a process left. Instants are monotonic seconds of this host; 0: never.

    ``born`` is when the process began (see :func:`born`): with ``pid`` it tells the process from a
    later one of the same number. ``words`` are its last ones.
    """

    path: Path
    lease: str
    pid: int
    born: float
    kind: str
    name: str
    pulse: float
    tick: float
    waiting_since: float
    executing: tuple[Execution, ...] = ()
    words: str = field(default="", repr=False)


class BlackBox:
    """The writing side: one for a process; a forked child begins one of its own, kind ``child``.

    ``mask`` is applied to lines of the log before they are kept.
    """

    def __init__(
        self,
        directory: Path,
        lease: str,
        kind: str,
        name: str,
        *,
        mask: Callable[[str], str] = str,
    ) -> None:
        self._directory = directory
        self._lease = lease
        self._kind = self._own_kind = kind
        self._name = name
        self._mask = mask
        self._lock = threading.Lock()
        self._pid = 0
        self._map: mmap.mmap | None = None
        self._crash: IO[bytes] | None = None
        self._free: list[int] = []
        self._open()

    def begin(self, id: str, attempt: int, hard: float | None) -> int:
        """A run begins; returns what :meth:`end` wants. Costs about a microsecond."""
        if self._pid != os.getpid():
            # A fork may have come while a thread of the parent held it.
            self._lock = threading.Lock()
            self._open()
        found = self._map
        try:
            slot = self._free.pop()
        except IndexError:
            return -1
        if found is None:
            return -1
        if len(self._free) == SLOTS - 1:
            # Alone: what was said before is about another run.
            _CURSOR.pack_into(found, _SAID_AT, 0)
        name = id.encode()[:ID_BYTES]
        at = _SLOTS_AT + slot * SLOT_BYTES
        _SLOT.pack_into(found, at, time.monotonic(), hard or 0.0, attempt, 0, name)
        # Last: from here on the slot counts.
        _LENGTH.pack_into(found, at + _LENGTH_AT, len(name))
        return slot

    def end(self, slot: int) -> None:
        """The run of a slot has ended."""
        if slot >= 0 and self._map is not None:
            _LENGTH.pack_into(self._map, _SLOTS_AT + slot * SLOT_BYTES + _LENGTH_AT, 0)
            self._free.append(slot)

    @property
    def busy(self) -> bool:
        """Whether a run is executing here."""
        return len(self._free) < SLOTS

    def pulse(self) -> None:
        """The process lives: one of its threads could run."""
        self._stamp(_PULSE_AT, time.monotonic())

    def tick(self) -> None:
        """The main loop has come round."""
        self._stamp(_TICK_AT, time.monotonic())

    def waiting(self, yes: bool) -> None:
        """The main loop waits for a store that does not answer, which is no fault of its own."""
        self._stamp(_WAITING_AT, time.monotonic() if yes else 0.0)

    def say(self, line: str) -> None:
        """Keep a line for the last words; the oldest give way."""
        found = self._map
        if found is None or self._pid != os.getpid():
            return
        text = (self._mask(line)[:1000].strip() + "\n").encode("utf-8", "replace")
        with self._lock:
            (cursor,) = _CURSOR.unpack_from(found, _SAID_AT)
            start = _SAID_AT + _CURSOR.size
            if cursor + len(text) > SAID_BYTES:
                kept = bytes(found[start : start + cursor])[-(SAID_BYTES // 2) :]
                kept = kept[kept.find(b"\n") + 1 :]
                found[start : start + len(kept)] = kept
                cursor = len(kept)
            found[start + cursor : start + cursor + len(text)] = text
            _CURSOR.pack_into(found, _SAID_AT, cursor + len(text))

    def close(self) -> None:
        """The process ends in order: nobody has to look for what it left."""
        if self._map is None or self._pid != os.getpid():
            return
        self._map = None
        _forget(self._path)

    # -- files -----------------------------------------------------------------------------------

    @property
    def _path(self) -> Path:
        return self._directory / f"{self._lease}.{self._pid}"

    def _stamp(self, at: int, value: float) -> None:
        if self._map is not None and self._pid == os.getpid():
            _INSTANT.pack_into(self._map, at, value)

    def _open(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            if self._pid:
                self._own_kind = "child"
            self._pid = os.getpid()
            self._free = list(range(SLOTS))
            try:
                self._map = self._make()
                self._watch_faults()
            except (OSError, ValueError) as error:
                self._map = None
                logger.warning("no black box in %s: %s", self._directory, error)

    def _make(self) -> mmap.mmap:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # Allocated, not only announced: on a full disk a first write would be a SIGBUS.
            os.posix_fallocate(descriptor, 0, _SIZE)
            made = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        now = time.monotonic()
        _HEADER.pack_into(
            made,
            0,
            MAGIC,
            self._pid,
            born(self._pid),
            now,
            now,
            0.0,
            self._own_kind.encode()[:16],
            self._name.encode()[:NAME_BYTES],
        )
        return made

    def _watch_faults(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self._crash = os.fdopen(os.open(_crash_path(self._path), flags, 0o600), "wb")
        faulthandler.enable(self._crash, all_threads=False)
        if threading.current_thread() is threading.main_thread():
            faulthandler.register(STACKS_SIGNAL, self._crash, all_threads=True, chain=False)


class SayingHandler(logging.Handler):
    """Keeps what is logged while a run executes, for its last words."""

    def __init__(self, box: BlackBox) -> None:
        super().__init__(logging.INFO)
        self._box = box

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        if self._box.busy:
            try:
                self._box.say(f"{record.levelname} {record.getMessage()}")
            except Exception:
                self.handleError(record)


# -- reading ---------------------------------------------------------------------------------------


def read(directory: Path, lease: str | None = None) -> Iterator[Report]:
    """What processes left in ``directory``: those of one lease, or all. Nothing raises."""
    with contextlib.suppress(OSError):
        for path in sorted(directory.glob(f"{lease or '*'}.*")):
            if path.suffix[1:].isdigit():
                found = _read(path)
                if found is not None:
                    yield found


def forget(directory: Path, lease: str) -> None:
    """Remove what the processes of a lease left."""
    for report in read(directory, lease):
        _forget(report.path)


def bury(directory: Path, lease: str) -> None:
    """Remove what the dead processes of a lease left.

    One that is only stopped writes on when it is continued, and is looked after until then.
    """
    for report in read(directory, lease):
        if not alive(report):
            _forget(report.path)


def alive(report: Report) -> bool:
    """Whether the process that wrote it is still there."""
    try:
        return (
            born(report.pid) == report.born
            and psutil.Process(report.pid).status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def born(pid: int) -> float:
    """When a process began, in a measure that no step of the wall clock changes.

    Raises :class:`psutil.NoSuchProcess`.
    """
    try:
        # Clock ticks since the machine's start; the name before it may hold anything.
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return float(stat.rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return psutil.Process(pid).create_time()


def _read(path: Path) -> Report | None:
    try:
        data = path.read_bytes()
        magic, pid, born, pulse, tick, waiting, kind, name = _HEADER.unpack_from(data)
        if magic != MAGIC or len(data) != _SIZE:
            return None
        return Report(
            path=path,
            lease=path.stem,
            pid=pid,
            born=born,
            kind=_text(kind),
            name=_text(name),
            pulse=pulse,
            tick=tick,
            waiting_since=waiting,
            executing=tuple(_executing(data)),
            words=_words(path, data),
        )
    except (OSError, struct.error):
        return None


def _executing(data: bytes) -> Iterator[Execution]:
    for slot in range(SLOTS):
        began, hard, attempt, length, id = _SLOT.unpack_from(data, _SLOTS_AT + slot * SLOT_BYTES)
        if length:
            yield Execution(id[:length].decode(errors="replace"), attempt, began, hard or None)


def _words(path: Path, data: bytes) -> str:
    parts = []
    with contextlib.suppress(OSError):
        crash = _crash_path(path).read_text(errors="replace").strip()
        if crash:
            parts.append(crash[:WORDS_CHARACTERS])
    (cursor,) = _CURSOR.unpack_from(data, _SAID_AT)
    start = _SAID_AT + _CURSOR.size
    said = data[start : start + min(cursor, SAID_BYTES)].decode(errors="replace").strip()
    if said:
        parts.append(f"last lines of its log:\n{said}")
    return "\n\n".join(parts)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\x00").decode(errors="replace")


def _crash_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.crash")


def _forget(path: Path) -> None:
    for each in (path, _crash_path(path)):
        with contextlib.suppress(OSError):
            each.unlink()
