"""The watchdog: ends what hangs on its host, and tells the others at once what died.

It reads the black boxes of the host's processes (:mod:`ironbeat.runs.blackbox`), which needs
neither store, judges (:mod:`ironbeat.warden.judgement`), and acts:

* dead: its lease is ended, with a testimony of what it was executing, so that its work moves within
  a second and not after the lease's period;
* hung, silent, stalled: where its threads are is written to the log, a run over its limit is
  recorded as failed, and the process is killed. supervisord starts it again;
* holding the interpreter in C code, within its limit: the watchdog renews the lease in its place.

supervisord knows whether a process is there, not whether it works; a process can watch itself only
as long as one of its threads runs; leases need PostgreSQL. Hence a program of its own, small enough
to have no faults of theirs: it loads no task and no Celery.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psutil
import psycopg

from ironbeat import database
from ironbeat.runs import blackbox
from ironbeat.runs.blackbox import Report
from ironbeat.runs.leases import SQL, Lease
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import LedgerUnavailable, Outcome
from ironbeat.settings import Settings
from ironbeat.warden.judgement import Seen, Verdict, Watch, judge
from ironbeat.watch.stores import deadline

logger = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
# Between two looks no more than this may pass, or what was seen before counts for nothing.
GAP_SECONDS = 10.0
DATABASE_SECONDS = 2.0
# How long a process may take to write where its threads are.
STACKS_SECONDS = 0.5
REMEMBERED = 20


class Watchdog:
    """Looks after the processes whose black boxes lie in ``boxes``."""

    def __init__(self, settings: Settings, boxes: Path) -> None:
        self._boxes = boxes
        self._url = settings.database_url.get_secret_value()
        self._patience = float(settings.stall_seconds)
        self._lease_seconds = settings.lease_seconds
        self._ledger = Ledger(self._url, lease_seconds=settings.lease_seconds)
        self._connection: psycopg.Connection[Any] | None = None
        self._since = self._looked_at = time.monotonic()
        self._database_since: float | None = None
        self._told: set[str] = set()
        self._ended: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self._counts: Counter[str] = Counter()
        self.stopping = threading.Event()
        self.lease = Lease(
            "watchdog",
            f"watchdog@{socket.gethostname()}",
            info=self._info,
            url=self._url,
            lease_seconds=settings.lease_seconds,
            renew_seconds=settings.lease_renew_seconds,
        )

    def run(self) -> None:
        """Watch until told to stop."""
        self.lease.start()
        try:
            while not self.stopping.wait(EVERY_SECONDS):
                try:
                    self.look()
                except Exception:
                    logger.exception("while looking after this host's processes")
        finally:
            self.lease.stop()

    def look(self) -> list[Verdict]:
        """Look once, and act; returns what was found."""
        now = time.monotonic()
        if now - self._looked_at > GAP_SECONDS:
            logger.warning("nobody watched for %.0f s; watching anew", now - self._looked_at)
            self._since = now
        self._looked_at = now
        self._listen()
        seen = [_look_at(report) for report in blackbox.read(self._boxes)]
        watch = Watch(time.monotonic(), self._since, self._database_since, self._patience)
        verdicts = judge(seen, watch)
        self._bury([each.report for each in verdicts if each.finding == "dead"])
        self._vouch([each.report for each in verdicts if each.finding == "vouched"])
        for verdict in verdicts:
            if verdict.finding in ("hung", "silent", "stalled"):
                self._end(verdict)
        return verdicts

    # -- acting ------------------------------------------------------------------------------------

    def _bury(self, dead: Sequence[Report]) -> None:
        """Tell which processes are dead and what they were executing, until it has been heard."""
        for report in dead:
            if report.kind == "child":
                continue
            left = [each for each in dead if each.lease == report.lease]
            testimony = {
                "executing": [each.id for one in left for each in one.executing],
                "words": "\n\n".join(each.words for each in left if each.words),
            }
            known = self._ask(
                "testify", {"id": report.lease, "testimony": orjson.dumps(testimony).decode()}
            )
            if known == 0:
                # Its work has been taken over, perhaps from another host.
                blackbox.forget(self._boxes, report.lease)
                self._told.discard(report.lease)
            elif known and report.lease not in self._told:
                self._told.add(report.lease)
                logger.warning("%s (pid %s) is dead", report.name, report.pid)

    def _vouch(self, alive: Sequence[Report]) -> None:
        if alive:
            ids = sorted({report.lease for report in alive})
            self._ask("vouch", {"ids": ids, "seconds": self._lease_seconds})

    def _end(self, verdict: Verdict) -> None:
        report = verdict.report
        try:
            descriptor = os.pidfd_open(report.pid)
        except (OSError, AttributeError):
            return
        try:
            # From here on the descriptor means this very process, whatever becomes of its number.
            if not blackbox.alive(report):
                return
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptor, blackbox.STACKS_SIGNAL)
            time.sleep(STACKS_SECONDS)
            words = next(
                (r.words for r in blackbox.read(self._boxes, report.lease) if r.pid == report.pid),
                "",
            )
            logger.critical(
                "%s (pid %s) is ended, %s: %s\n%s",
                report.name,
                report.pid,
                verdict.finding,
                verdict.why,
                words,
            )
            self._record(verdict)
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)
        self._counts[verdict.finding] += 1
        self._ended.append(
            {
                "name": report.name,
                "pid": report.pid,
                "finding": verdict.finding,
                "why": verdict.why,
                "at": datetime.now(UTC).isoformat(),
            }
        )

    def _record(self, verdict: Verdict) -> None:
        """A run past its limit has failed; its worker's death is none of its doing."""
        outcomes = [
            Outcome(
                each.id,
                each.attempt,
                "failed",
                runtime=time.monotonic() - each.began,
                error=f"TimeLimitExceeded: ({each.hard:g},)",
                reason="ended by the watchdog: its process could not end it",
            )
            for each in verdict.report.executing
            if each.id in verdict.runs
        ]
        try:
            self._ledger.settle(outcomes)
        except LedgerUnavailable as error:
            logger.warning("end of %s not recorded: %s", ", ".join(verdict.runs), error)

    # -- the database ------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Note since when the database has answered without a break."""
        if self._ask("list", {"kind": "watchdog"}) is None:
            self._database_since = None
        elif self._database_since is None:
            self._database_since = time.monotonic()

    def _ask(self, statement: str, parameters: dict[str, Any]) -> int | None:
        """Run a statement; how many rows it was about, ``None`` where the database is away."""
        try:
            if self._connection is None:
                self._connection = database.dedicated(self._url, "ironbeat watchdog")
            with deadline(self._connection, DATABASE_SECONDS):
                return self._connection.execute(SQL[statement], parameters).rowcount
        except (psycopg.Error, OSError) as error:
            if self._database_since is not None:
                logger.warning("the database does not answer: %s", error)
            if self._connection is not None:
                with contextlib.suppress(psycopg.Error, OSError):
                    self._connection.close()
                self._connection = None
            return None

    def _info(self) -> dict[str, Any]:
        memory = psutil.Process().memory_info().rss
        return {
            "rss_mb": round(memory / 2**20, 1),
            "watchdog": {"ended": list(self._ended), "counts": dict(self._counts)},
        }


def _look_at(report: Report) -> Seen:
    alive = blackbox.alive(report)
    stopped = False
    if alive:
        with contextlib.suppress(psutil.Error):
            stopped = psutil.Process(report.pid).status() == psutil.STATUS_STOPPED
    return Seen(report, alive, stopped)
