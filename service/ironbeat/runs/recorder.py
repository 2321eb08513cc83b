"""What happened in this process, written to the ledger in batches.

One row written at a time would cost a quarter of the throughput; a batch shares its round trip and
its commit. Nothing that correctness needs is late: a worker sends an acknowledgement only after
:meth:`Recorder.secure` returned, so an outcome that was not yet written is executed again rather
than lost. While PostgreSQL is away a worker's outcomes are secured in its spool
(:mod:`ironbeat.runs.spool`) and written when it returns, by this process or one that finds them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from ironbeat.runs import spool as spools
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Claim, LedgerUnavailable, NewRun, Outcome
from ironbeat.runs.spool import Record, Spool

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH = 1000
# Notes of runs the broker has taken are a convenience; beyond this many the oldest are dropped.
MAX_NOTES = 100_000
# Beyond so many that PostgreSQL has not taken yet, notes are kept without their messages.
MAX_MESSAGES = 5_000
# After PostgreSQL did not answer, outcomes are secured in the spool for so long without asking it.
AWAY_SECONDS = 1.0

OUTCOME = "outcome"

Handler = Callable[[dict[str, Any]], None]
# How an attempt ended, when (monotonic), and the claim that let it begin.
Ended = tuple[Outcome, float, Claim | None]


@dataclass(slots=True)
class Counts:
    """What this process wrote since it started."""

    outcomes: int = 0
    # Outcomes refused because a later attempt holds the run: two executions overlapped.
    overlapped: int = 0
    notes_dropped: int = 0


@dataclass(slots=True)
class _Waiting:
    outcomes: deque[Ended] = field(default_factory=deque)
    postponed: deque[Record] = field(default_factory=deque)
    published: deque[str] = field(default_factory=deque)
    notes: deque[NewRun] = field(default_factory=deque)
    progress: dict[str, tuple[int, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(
            self.outcomes or self.postponed or self.published or self.notes or self.progress
        )


class Recorder:
    """Collects outcomes, publications, notes of submissions and progress; writes them in batches.

    Safe to use from any thread, and after a fork. ``interval`` (seconds) is how long something may
    wait when nobody calls :meth:`flush`. ``make_spool`` makes the spool of a process that executes;
    others have none. ``handlers`` do what :meth:`postpone` put off, by its kind; they raise
    :class:`LedgerUnavailable` to be called again, and may be called twice for one thing.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        interval: float = 0.1,
        make_spool: Callable[[], Spool] | None = None,
        handlers: dict[str, Handler] | None = None,
    ) -> None:
        self.ledger = ledger
        self.interval = interval
        self.counts = Counts()
        self._make_spool = make_spool
        self._handlers = handlers or {}
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._waiting = _Waiting()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._away_until = 0.0
        # A forked child has a file of its own.
        self.spool = self._make_spool() if self._make_spool is not None else None
        # What the spool holds of what waits: by identity, and kept so that no other has the same.
        self._spooled: dict[int, Any] = {}

    # -- collecting ------------------------------------------------------------------------------

    def outcome(self, outcome: Outcome, claim: Claim | None = None) -> None:
        """An attempt has just ended."""
        self._own().outcomes.append((outcome, time.monotonic(), claim))
        self._wake.set()

    def postpone(self, kind: str, value: dict[str, Any]) -> None:
        """Something has to be done as soon as PostgreSQL answers; ``value`` is plain JSON."""
        self._own().postponed.append(Record(kind, value))
        self._wake.set()

    def published(self, ids: Iterable[str]) -> None:
        """The broker has taken runs that the ledger holds in its outbox."""
        self._own().published.extend(ids)
        self._wake.set()

    def note(self, run: NewRun) -> None:
        """The broker has taken a run that the ledger does not know yet."""
        notes = self._own().notes
        notes.append(run if len(notes) < MAX_MESSAGES else replace(run, message=None))
        if len(notes) > MAX_NOTES:
            notes.popleft()
            if self.counts.notes_dropped % MAX_NOTES == 0:
                logger.warning(
                    "PostgreSQL has been away for more than %s submissions: the ledger hears of "
                    "the oldest ones only when a worker begins them",
                    MAX_NOTES,
                )
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
            try:
                self._flush_outcomes()
                self._flush_postponed()
                if self.spool is not None and self.spool.count:
                    self.spool.clear()
                    self._spooled.clear()
                self._flush_published()
                self._flush_notes()
                self._flush_progress()
            except LedgerUnavailable:
                self._away_until = time.monotonic() + AWAY_SECONDS
                # The writing thread may have found nothing while this one held all of it.
                self._wake.set()
                raise

    def secure(self) -> None:
        """Make every outcome collected so far durable: in the ledger, or else in the spool.

        Raises :class:`LedgerUnavailable` when neither takes it.
        """
        if self._pid == os.getpid() and time.monotonic() < self._away_until:
            self._spool_waiting(LedgerUnavailable("PostgreSQL did not answer a moment ago"))
            return
        try:
            self.flush()
        except LedgerUnavailable as error:
            self._spool_waiting(error)

    def catch_up(self) -> None:
        """Write what is in this process's spool; called before more is claimed.

        PostgreSQL may have crashed and forgotten the claims of what ended meanwhile: then the same
        runs look as if nobody had begun them. Raises :class:`LedgerUnavailable`.
        """
        if self.spool is not None and self.spool.count:
            self.flush()

    def _spool_waiting(self, why: LedgerUnavailable) -> None:
        if self.spool is None:
            raise why
        with self._lock:
            fresh = [o for o in self._waiting.outcomes if id(o[0]) not in self._spooled]
            later = [r for r in self._waiting.postponed if id(r) not in self._spooled]
            records = [_outcome_record(*each) for each in fresh] + later
            if not records:
                return
            try:
                self.spool.append(records)
            except OSError as error:
                raise LedgerUnavailable(f"{why}; and the spool did not take it: {error}") from error
            self._spooled |= {id(each): each for each in (*(o for o, _, _ in fresh), *later)}
        logger.warning("%d records spooled to %s: %s", len(records), self.spool.path, why)

    def recover(self, path: Path) -> int:
        """Write the records of a spool file to the ledger; returns how many there were.

        Outcomes whose run has another attempt by now are refused. Raises
        :class:`LedgerUnavailable`; then the file is to be kept.
        """
        records = spools.read(path)
        outcomes = [_recovered(value) for value in spools.values(records, OUTCOME)]
        for first in range(0, len(outcomes), BATCH):
            self._write(outcomes[first : first + BATCH])
        for record in records:
            if record.kind != OUTCOME:
                self._handle(record)
        return len(records)

    def _handle(self, record: Record) -> None:
        handler = self._handlers.get(record.kind)
        if handler is None:
            logger.error("nobody knows what to do with a spooled %s", record.kind)
            return
        try:
            handler(record.value)
        except LedgerUnavailable:
            raise
        except Exception:
            logger.exception("while doing what was postponed: %s", record.kind)

    def _flush_postponed(self) -> None:
        waiting = self._waiting.postponed
        while waiting:
            self._handle(waiting[0])
            waiting.popleft()

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

    def _settle(self, batch: list[Ended]) -> None:
        now = time.monotonic()
        for outcome, at, _ in batch:
            outcome.age = now - at
        refused = self._write([(outcome, claim) for outcome, _, claim in batch])
        self.counts.outcomes += len(batch)
        if refused:
            self.counts.overlapped += len(refused)
            logger.warning("outcomes refused, a later attempt holds these runs: %s", refused)

    def _write(self, ended: list[tuple[Outcome, Claim | None]]) -> list[str]:
        """Write outcomes; returns the ids of those that a later attempt stands against."""
        taken = self.ledger.settle([outcome for outcome, _ in ended])
        left = [(outcome, claim) for outcome, claim in ended if outcome.id not in taken]
        if not left:
            return []
        lost = [(claim, outcome.attempt) for outcome, claim in left if claim is not None]
        reclaimed = self.ledger.reclaim(lost, lease=None, worker=None)
        again = [outcome for outcome, _ in left if outcome.id in reclaimed]
        if again:
            logger.warning("claims lost in a crash of PostgreSQL made good: %s", sorted(reclaimed))
            taken |= self.ledger.settle(again)
        # A commit may have been made whose answer was lost with the connection.
        attempts = self.ledger.attempts_of_ended([outcome.id for outcome, _ in left])
        return [
            outcome.id
            for outcome, _ in left
            if outcome.id not in taken and attempts.get(outcome.id) != outcome.attempt
        ]

    def _settle_bare(self, ended: Ended) -> None:
        """How an attempt ended is what must not be missing; its texts may be."""
        outcome, at, claim = ended
        bare = Outcome(
            outcome.id,
            outcome.attempt,
            outcome.state,
            runtime=outcome.runtime,
            reason="its texts could not be stored",
            retries=outcome.retries,
            replacements=outcome.replacements,
        )
        self._settle([(bare, at, claim)])

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
                    self._leave_behind()
                    return
                time.sleep(0.2)

    def _leave_behind(self) -> None:
        """PostgreSQL is away as this process ends: its outcomes are found in the spool."""
        try:
            self.secure()
        except LedgerUnavailable as error:
            logger.error("%s outcomes unwritten: %s", len(self._waiting.outcomes), error)


def _outcome_record(outcome: Outcome, ended_at: float, claim: Claim | None) -> Record:
    age = time.monotonic() - ended_at
    return Record(
        OUTCOME,
        {
            "outcome": asdict(outcome),
            "claim": asdict(claim) if claim is not None else None,
            "ended_at": time.time() - age,
        },
    )


def _recovered(value: dict[str, Any]) -> tuple[Outcome, Claim | None]:
    # The same machine's clock; where it was set back meanwhile, the run ended just now.
    age = max(0.0, time.time() - value["ended_at"])
    claim = value["claim"]
    outcome = Outcome(**value["outcome"] | {"age": age})
    return outcome, Claim(**claim) if claim is not None else None
