"""What happened in this process, written to the ledger in batches.

One row written at a time would cost a quarter of the throughput; a batch shares its round trip and
its commit. Nothing that correctness needs is late: a worker sends an acknowledgement only after
:meth:`Recorder.flush` returned, so an outcome that was not yet written is executed again rather
than lost.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg

from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import LedgerUnavailable, NewRun, Outcome

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH = 1000
# Notes of runs the broker has taken are a convenience; beyond this many the oldest are dropped.
MAX_NOTES = 100_000


@dataclass(slots=True)
class Counts:
    """What this process wrote since it started."""

    outcomes: int = 0
    # Outcomes refused because a later attempt holds the run: two executions overlapped.
    overlapped: int = 0
    notes_dropped: int = 0


@dataclass(slots=True)
class _Waiting:
    outcomes: deque[tuple[Outcome, float]] = field(default_factory=deque)
    published: deque[str] = field(default_factory=deque)
    notes: deque[NewRun] = field(default_factory=deque)
    progress: dict[str, tuple[int, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.outcomes or self.published or self.notes or self.progress)


class Recorder:
    """Collects outcomes, publications, notes of submissions and progress; writes them in batches.

    Safe to use from any thread, and after a fork. ``interval`` (seconds) is how long something may
    wait when nobody calls :meth:`flush`.
    """

    def __init__(self, ledger: Ledger, *, interval: float = 0.1) -> None:
        self.ledger = ledger
        self.interval = interval
        self.counts = Counts()
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._waiting = _Waiting()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    # -- collecting ------------------------------------------------------------------------------

    def outcome(self, outcome: Outcome) -> None:
        """An attempt has just ended."""
        self._own().outcomes.append((outcome, time.monotonic()))
        self._wake.set()

    def published(self, ids: Iterable[str]) -> None:
        """The broker has taken runs that the ledger holds in its outbox."""
        self._own().published.extend(ids)
        self._wake.set()

    def note(self, run: NewRun) -> None:
        """The broker has taken a run that the ledger does not know yet."""
        notes = self._own().notes
        notes.append(run)
        if len(notes) > MAX_NOTES:
            notes.popleft()
            self.counts.notes_dropped += 1
        self._wake.set()

    def progress(self, id: str, attempt: int, progress: str) -> None:
        """A running attempt reports; only its latest report is kept. ``progress`` is JSON text."""
        self._own().progress[id] = (attempt, progress)
        self._wake.set()

    def _own(self) -> _Waiting:
        """This process's collection; what a parent collected is the parent's to write."""
        if self._pid != os.getpid():
            self._reset()
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(
                        target=self._keep_flushing, name="recorder", daemon=True
                    )
                    self._thread.start()
        return self._waiting

    # -- writing ---------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write everything collected so far.

        Raises :class:`LedgerUnavailable`; what could not be written is kept for the next time.
        """
        if self._pid != os.getpid() or not self._waiting:
            return
        with self._lock:
            self._flush_outcomes()
            self._flush_published()
            self._flush_notes()
            self._flush_progress()

    def _flush_outcomes(self) -> None:
        self._drain(self._waiting.outcomes, self._settle, self._settle_bare)

    def _flush_published(self) -> None:
        self._drain(self._waiting.published, self.ledger.mark_published)

    def _flush_notes(self) -> None:
        self._drain(self._waiting.notes, self.ledger.record)

    def _drain(
        self,
        waiting: deque[T],
        write: Callable[[list[T]], None],
        instead: Callable[[T], None] | None = None,
    ) -> None:
        """Write all that waits, a batch at a time; on an outage the batch waits on.

        A batch that PostgreSQL refuses for what is in it is written one by one, so that one row
        keeps nobody else's back; for a row that is refused by itself there is ``instead``.
        """
        while waiting:
            batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            try:
                write(batch)
            except psycopg.DataError:
                for each in batch:
                    try:
                        write([each])
                    except psycopg.DataError:
                        logger.exception("PostgreSQL refuses what was recorded of a run")
                        if instead is not None:
                            instead(each)
            except BaseException:
                waiting.extendleft(reversed(batch))
                raise

    def _settle(self, batch: list[tuple[Outcome, float]]) -> None:
        now = time.monotonic()
        for outcome, at in batch:
            outcome.age = now - at
        taken = self.ledger.settle([outcome for outcome, _ in batch])
        self.counts.outcomes += len(batch)
        refused = [outcome.id for outcome, _ in batch if outcome.id not in taken]
        if refused:
            self.counts.overlapped += len(refused)
            logger.warning("outcomes refused, a later attempt holds these runs: %s", refused)

    def _settle_bare(self, ended: tuple[Outcome, float]) -> None:
        """How an attempt ended is what must not be missing; its texts may be."""
        outcome, at = ended
        bare = Outcome(
            outcome.id,
            outcome.attempt,
            outcome.state,
            runtime=outcome.runtime,
            reason="its texts could not be stored",
            retries=outcome.retries,
            replacements=outcome.replacements,
        )
        self._settle([(bare, at)])

    def _flush_progress(self) -> None:
        waiting = self._waiting.progress
        if waiting:
            reports = dict(waiting)
            self.ledger.progress([(id, attempt, text) for id, (attempt, text) in reports.items()])
            for id, report in reports.items():
                if waiting.get(id) == report:
                    del waiting[id]

    def _keep_flushing(self) -> None:
        pause = self.interval
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            time.sleep(pause)
            try:
                self.flush()
                pause = self.interval
            except LedgerUnavailable as error:
                pause = min(2.0, pause * 2)
                logger.warning("ledger not written, tried again in %.1f s: %s", pause, error)
                self._wake.set()
            except Exception:
                logger.exception("ledger not written")

    def close(self, timeout: float = 5.0) -> None:
        """Write what is left, for at most ``timeout`` seconds, and end the writing thread."""
        self._closed = True
        self._wake.set()
        deadline = time.monotonic() + timeout
        while self._pid == os.getpid() and self._waiting:
            try:
                self.flush()
            except LedgerUnavailable:
                if time.monotonic() > deadline:
                    logger.error(
                        "ledger unreachable: %s outcomes unwritten", len(self._waiting.outcomes)
                    )
                    return
                time.sleep(0.2)
