"""The guard: one live execution a run.

A message may come twice: published twice, redelivered after a lapse, copied by a broker's
restoration. Before an attempt begins it passes the guard, which asks the ledger to let it proceed
(:meth:`ironbeat.runs.ledger.Ledger.claim`). A batch of messages is claimed in one statement when
the transport hands it over; single ones when they begin.

The key of a claim is (id, retries, replacements): ``retry()`` and ``replace()`` publish the *same*
id again from inside the body, and such a message is a new attempt, not a copy.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from ironbeat.runs.drawing import Drawer
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Claim, LedgerUnavailable, Verdict

logger = logging.getLogger(__name__)

Key = tuple[str, int, int]


def key(claim: Claim) -> Key:
    """What tells an attempt's message from a copy of another one."""
    return claim.id, claim.retries, claim.replacements


class Guard:
    """Admits executions on behalf of one worker, under its lease."""

    def __init__(self, ledger: Ledger, lease: str, worker: str) -> None:
        self.ledger = ledger
        self.lease = lease
        self.worker = worker
        self.drawer = Drawer(ledger, lease)
        #: Runs in this worker's hands that no broker brought: they go back to the ledger.
        self.drawn: set[str] = set()
        self._held: dict[Key, tuple[Claim, Verdict]] = {}
        self._lock = threading.Lock()

    def preclaim(self, claims: Sequence[Claim]) -> None:
        """Claim a batch at once; :meth:`admit` refuses duplicates within it.

        An unreachable ledger is no error here: the claims are then put one by one as they begin.
        """
        try:
            verdicts = self.ledger.claim(claims, lease=self.lease, worker=self.worker)
        except LedgerUnavailable as error:
            logger.warning("batch not claimed: %s", error)
            return
        with self._lock:
            for claim in claims:
                verdict = verdicts.pop(claim.id, None)
                if verdict is not None:
                    self._held[key(claim)] = claim, verdict

    def held(self, key: Key) -> tuple[Claim, Verdict] | None:
        """The claim that was put with its batch, and the verdict on it, once."""
        with self._lock:
            return self._held.pop(key, None)

    def admit(self, claim: Claim, *, give_up: Callable[[], bool] = lambda: False) -> Verdict:
        """The verdict on one execution that is about to begin.

        Waits while PostgreSQL is away, because nothing may run that could not be told from a copy;
        raises :class:`LedgerUnavailable` once ``give_up`` says so.
        """
        found = self.held(key(claim))
        verdict = found[1] if found is not None else None
        pause = 0.2
        while verdict is None:
            try:
                verdict = self.ledger.claim([claim], lease=self.lease, worker=self.worker)[claim.id]
            except LedgerUnavailable as error:
                if give_up():
                    raise
                logger.warning("waiting for the ledger before %s: %s", claim.id, error)
                time.sleep(pause)
                pause = min(2.0, pause * 2)
        return verdict

    def release(self, ids: Sequence[str] | None = None) -> None:
        """Give back claims that were not used: these ids, or all that are left."""
        with self._lock:
            unused = [k for k in self._held if ids is None or k[0] in ids]
            granted = [k[0] for k in unused if self._held.pop(k)[1].attempt is not None]
        if granted:
            try:
                self.hand_back(granted)
            except LedgerUnavailable as error:
                logger.warning("claims not given back, they lapse with the lease: %s", error)

    def withdraw(self, ids: Sequence[str]) -> None:
        """Give back the claims of messages that are about to return to their queues.

        Raises :class:`LedgerUnavailable`; then they are still claimed, and whoever took such a
        message from its queue would drop it as a copy.
        """
        with self._lock:
            claimed = [
                k for k, (_, v) in self._held.items() if k[0] in ids and v.attempt is not None
            ]
        self.hand_back([k[0] for k in claimed])
        with self._lock:
            for found in claimed:
                self._held.pop(found, None)

    def hand_back(self, ids: Sequence[str]) -> None:
        """End this worker's claims on runs that it has not begun, or that are to begin anew.

        What was drawn from the ledger is due again there; the messages of the others return to
        the broker. Raises :class:`LedgerUnavailable`.
        """
        self.drawer.give_back([id for id in ids if id in self.drawn])
        self.ledger.release([id for id in ids if id not in self.drawn], lease=self.lease)
