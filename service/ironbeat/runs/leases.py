"""Leases: a process's claim that it is alive, and what happens when the claim lapses.

A lease is a row that its process renews. Nobody is declared dead by a lock or a connection: a
lease lapses when it was not renewed for ``lease_seconds`` of the database's clock. Then any
process that has itself held a lease *steadily* for a whole period takes the dead one's work over.
The steadiness matters after an outage: when PostgreSQL was away nobody could renew, all leases
look lapsed, and for one period nobody takes anything from anybody.

A process that is started again under the same name on the same host need not wait: it can see
that its predecessor's pid is gone.

A death counts only against the runs that were executing (:mod:`ironbeat.runs.suspicion`).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import psutil
import psycopg

from ironbeat import database, queries
from ironbeat.runs import blackbox, suspicion

logger = logging.getLogger(__name__)

SQL = queries.load("ironbeat.runs", "leases.sql")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds, or held, a lease."""

    id: str
    kind: str
    name: str
    host: str
    pid: int


Heir = Callable[[Holder, "dict[str, int]", "psycopg.Connection[Any]"], None]


class Lease:
    """The lease of this process, renewed by a thread of its own.

    ``info`` is called at each renewal and stored for the monitors. ``on_cancel`` receives the ids
    of this lease's runs that somebody asked to stop. ``heir`` is called for each dead worker with
    its :class:`Holder`, the runs it was executing (id to number of crashes), and the connection
    whose transaction holds their rows; what it raises is logged and tried again at the next
    renewal, and only when it returns is the dead lease removed. Before that ``salvage`` is called
    with the dead lease's id, to write what its process left behind: runs whose outcome it finds
    are not executed again. ``on_reconnect`` is called when PostgreSQL answers again, after the
    renewal. ``boxes`` is where the processes of this host leave their black boxes.
    ``inherits`` names the kinds of leases whose work it can take over (none named: all).
    """

    def __init__(
        self,
        kind: str,
        name: str,
        queues: Sequence[str] = (),
        *,
        info: Callable[[], dict[str, Any]] | None = None,
        on_cancel: Callable[[list[str]], None] | None = None,
        heir: Heir | None = None,
        inherits: Sequence[str] = (),
        each: Callable[[psycopg.Connection[Any]], None] | None = None,
        boxes: Path | None = None,
        salvage: Callable[[str], None] | None = None,
        on_reconnect: Callable[[], None] | None = None,
        url: str | None = None,
        lease_seconds: float = 6.0,
        renew_seconds: float = 2.0,
        id: str | None = None,
    ) -> None:
        self.id = id or uuid4().hex
        self.holder = Holder(self.id, kind, name, socket.gethostname(), os.getpid())
        self.queues = list(queues)
        self.lease_seconds = lease_seconds
        self.renew_seconds = renew_seconds
        self.renewed_at: float | None = None
        self._info = info
        self._on_cancel = on_cancel
        self._heir = heir
        self._inherits = tuple(inherits)
        self._each = each
        self._boxes = boxes
        self._salvage = salvage
        self._on_reconnect = on_reconnect
        self._failed = False
        self._url = url
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: psycopg.Connection[Any] | None = None

    def start(self) -> None:
        """Take the lease and keep it renewed. Returns at once; an outage is waited out."""
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give the lease back, so that nobody waits for it to lapse."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        try:
            self._connect().execute(SQL["drop"], {"id": self.id})
        except (psycopg.Error, OSError) as error:
            logger.warning("lease not given back, it will lapse: %s", error)
        finally:
            self._disconnect()

    # -- the renewing thread ---------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._renew_once()
            except (psycopg.Error, OSError) as error:
                logger.warning("lease not renewed: %s", error)
                self._failed = True
                self._disconnect()
            except Exception:
                logger.exception("while renewing the lease")
            self._stop.wait(max(0.1, self.renew_seconds - (time.monotonic() - began)))

    def _renew_once(self) -> None:
        connection = self._connect()
        first = self.renewed_at is None
        self._renew(connection)
        if self._failed and self._on_reconnect is not None:
            self._on_reconnect()
        self._failed = False
        if first:
            self._bury_predecessors(connection)
        if self._on_cancel is not None:
            self._pass_on_cancellations(connection)
        if self._heir is not None:
            self._take_over(connection)
        if self._each is not None:
            self._each(connection)

    def _renew(self, connection: psycopg.Connection[Any]) -> None:
        info = self._info() if self._info is not None else {}
        asked_at = time.monotonic()
        row = connection.execute(
            SQL["renew"],
            {
                "id": self.id,
                "kind": self.holder.kind,
                "name": self.holder.name,
                "host": self.holder.host,
                "pid": self.holder.pid,
                "queues": self.queues,
                "seconds": self.lease_seconds,
                "info": orjson.dumps(info, default=str).decode(),
            },
        ).fetchone()
        self.renewed_at = asked_at
        if row is not None and row[0]:
            logger.warning("lease had lapsed and is held again")

    def _pass_on_cancellations(self, connection: psycopg.Connection[Any]) -> None:
        rows = connection.execute(
            "SELECT id FROM ironbeat.runs WHERE lease_id = %s AND state = 'running'"
            " AND cancel_requested_at IS NOT NULL",
            (self.id,),
        ).fetchall()
        if rows and self._on_cancel is not None:
            self._on_cancel([row[0] for row in rows])

    # -- taking over -----------------------------------------------------------------------------

    def _bury_predecessors(self, connection: psycopg.Connection[Any]) -> None:
        """Expire leases of this name and host whose process is gone, and take their work."""
        holder = self.holder
        rows = connection.execute(
            SQL["neighbours"],
            {"host": holder.host, "kind": holder.kind, "name": holder.name, "me": self.id},
        ).fetchall()
        for row in rows:
            dead = Holder(*row)
            if not _is_alive(dead.pid):
                connection.execute(SQL["expire"], {"id": dead.id})
                self._inherit(connection, dead)

    def _take_over(self, connection: psycopg.Connection[Any]) -> None:
        rows = connection.execute(
            SQL["lapsed"], {"me": self.id, "seconds": self.lease_seconds}
        ).fetchall()
        for row in rows:
            dead = Holder(*row)
            if not self._inherits or dead.kind in self._inherits:
                self._inherit(connection, dead)

    def _inherit(self, connection: psycopg.Connection[Any], dead: Holder) -> None:
        with connection.transaction():
            locked = connection.execute(SQL["lock"], {"id": dead.id}).fetchone()
            if locked is None:
                return  # Another heir is at it.
            if self._salvage is not None:
                self._salvage(dead.id)
            rows = connection.execute(SQL["claimed"], {"id": dead.id}).fetchall()
            reports = self._reports(dead)
            judged = suspicion.judge(dict(rows), reports, locked[0])
            orphans = connection.execute(
                SQL["orphans"],
                {
                    "id": dead.id,
                    "grace": 1.0,
                    "dead": orjson.dumps([each.row() for each in judged]).decode(),
                },
            ).fetchall()
            if self._heir is not None:
                suspects = {id: crashes for id, crashes, suspect in orphans if suspect}
                self._heir(dead, suspects, connection)
            connection.execute(SQL["drop"], {"id": dead.id})
            # Last, as this one row is everybody's.
            connection.execute(SQL["count_loss"], {"kind": dead.kind})
        if self._boxes is not None and reports:
            blackbox.bury(self._boxes, dead.id)
        logger.warning(
            "took over from %s (pid %s on %s): %s runs",
            dead.name,
            dead.pid,
            dead.host,
            len(orphans),
        )
        for each in judged:
            if each.suspect:
                logger.warning("run %s was executing when %s: %s", each.id, dead.name, each.error)

    def _reports(self, dead: Holder) -> list[blackbox.Report]:
        """What the dead process left, if it lived on this host."""
        if self._boxes is None or dead.host != self.holder.host:
            return []
        return list(blackbox.read(self._boxes, dead.id))

    # -- connection ------------------------------------------------------------------------------

    def _connect(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = database.dedicated(self._url, application_name="ironbeat lease")
            self._connection.execute("SET statement_timeout = '3s'")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def count_lost(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """How many processes lost their lease to an heir since they were first counted, by kind."""
    row = connection.execute(SQL["lost"]).fetchone()
    return {} if row is None else {kind: int(number) for kind, number in row[0].items()}


def _is_alive(pid: int) -> bool:
    """Whether a process with this pid runs here and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
