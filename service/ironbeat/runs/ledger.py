"""The ledger: the one gate to the tables of runs.

Redis carries messages; what is true of a run stands here. Every write is one statement over a
batch, handed over as a single JSON parameter, so that a round trip to PostgreSQL is shared by all
runs of the batch. Live runs stand in ``runs``; an ended run moves to ``run_history`` in the same
statement that records its outcome, and only the attempt that holds the run can end it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString, TypeVar, cast

import orjson
import psycopg
from psycopg.rows import class_row, tuple_row

from ironbeat import database, queries
from ironbeat.runs.model import (
    LIVE_STATES,
    Claim,
    Filters,
    LedgerUnavailable,
    Message,
    NewRun,
    Outcome,
    Run,
    RunNotFound,
    State,
    Verdict,
)

SQL = queries.load("ironbeat.runs", "ledger.sql")
COLUMNS = cast("LiteralString", ", ".join(field.name for field in fields(Run)))

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FOREVER = datetime(9999, 1, 1, tzinfo=UTC)

_DEADLOCK_TRIES = 3
# A server that is stopped but not closed answers nothing and refuses nothing.
PATIENCE_SECONDS = 10.0
# Runs that are put into the outbox again at once, so that no transaction is long.
LOST_BATCH = 10_000

Connection = psycopg.Connection[Any]
T = TypeVar("T")


# NUL as JSON escapes it; a backslash before it that is escaped itself does not count.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def _json(rows: Iterable[Any]) -> str:
    """Rows as one JSON parameter, without what PostgreSQL's text cannot hold."""
    found = list(rows)
    try:
        text = orjson.dumps(found).decode()
    except TypeError:
        # Lone surrogates, such as undecodable bytes of a file's name leave in an argument.
        text = json.dumps(found, default=_plain, ensure_ascii=False)
        text = text.encode("utf-8", "backslashreplace").decode().replace("\\ud", "\\\\ud")
    return _NUL.sub(r"\1\\\\x00", text) if "\\u0000" in text else text


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _window(instants: Iterable[datetime | None]) -> tuple[datetime, datetime]:
    """The span of creation times to search in the history; all of it if one is unknown."""
    known = list(instants)
    if not known or None in known:
        return _EPOCH, _FOREVER
    certain = cast("list[datetime]", known)
    return min(certain), max(certain)


class Ledger:
    """Reads and writes runs.

    ``lease_seconds`` is how long a silent worker keeps its runs, ``patience_seconds`` how long a
    statement may take before PostgreSQL counts as away. Methods that take ``connection``
    run inside the caller's transaction; the others take one from the pool and commit. All raise
    :class:`LedgerUnavailable` when PostgreSQL cannot be reached.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        lease_seconds: float = 6.0,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._url = url
        self.lease_seconds = lease_seconds
        self.patience_seconds = patience_seconds

    # -- writing ---------------------------------------------------------------------------------

    def create(self, runs: Sequence[NewRun], *, connection: Connection | None = None) -> set[str]:
        """Commit runs as ``pending``, each with its message in the outbox.

        Returns the ids that are new: an id that is in the ledger already is left as it is.
        """
        if not runs:
            return set()
        return self._with(connection, lambda c: self._create(c, runs))

    @staticmethod
    def _create(connection: Connection, runs: Sequence[NewRun]) -> set[str]:
        rows = connection.execute(SQL["create"], {"runs": _json(runs)}).fetchall()
        return {row[0] for row in rows}

    def record(self, runs: Sequence[NewRun]) -> None:
        """Note runs that the broker has taken already; those a worker has begun are left alone."""
        if runs:
            self._with(None, lambda c: self._record(c, runs))

    @staticmethod
    def _record(connection: Connection, runs: Sequence[NewRun]) -> None:
        oldest, newest = _window(run.created_at for run in runs)
        with connection.transaction(), connection.pipeline():
            connection.execute(SQL["unhurried"])
            connection.execute(SQL["record"], {"runs": _json(runs)})
            connection.execute(
                SQL["forget_ended"],
                {
                    "ids": [run.id for run in runs],
                    "oldest": oldest,
                    "newest": newest,
                    "lease": None,
                },
            )

    def mark_published(self, ids: Sequence[str]) -> None:
        """Take runs out of the outbox: the broker has their messages."""
        if ids:
            self._with(None, lambda c: c.execute(SQL["mark_published"], {"ids": sorted(ids)}))

    def not_published(self, ids: Sequence[str]) -> None:
        """The broker did not take these: they are due at once, for whoever can have them run."""
        if ids:
            self._with(None, lambda c: c.execute(SQL["not_published"], {"ids": sorted(ids)}))

    def claim(self, claims: Sequence[Claim], *, lease: str, worker: str) -> dict[str, Verdict]:
        """Ask to execute delivered messages; each id gets one :class:`Verdict`.

        At most one claim of an id proceeds at a time, whoever asks: the insert or update of its
        row decides. A second copy proceeds only when the lease of the first has lapsed and the
        asker's own has been held for a whole lease period. Of several claims for one id in a
        batch only the first is put; the caller must treat the others as refused.
        """
        if not claims:
            return {}
        unique = {claim.id: claim for claim in reversed(claims)}
        return self._with(None, lambda c: self._claim(c, unique, lease, worker))

    def _claim(
        self, connection: Connection, claims: dict[str, Claim], lease: str, worker: str
    ) -> dict[str, Verdict]:
        ids = list(claims)
        oldest, newest = _window(claim.created_at for claim in claims.values())
        searched = {"ids": ids, "oldest": oldest, "newest": newest}
        with connection.transaction():
            with connection.pipeline():
                # A claim lost with the server is claimed again; its outcome is what must last.
                connection.execute(SQL["unhurried"])
                claimed = connection.execute(
                    SQL["claim"],
                    {
                        "claims": _json(claims.values()),
                        "lease": lease,
                        "worker": worker,
                        "lease_seconds": self.lease_seconds,
                    },
                )
                # A statement of its own: it sees what was committed while the first one waited
                # for a row that was just being moved to the history.
                ended = connection.execute(SQL["ended"], searched)
            granted = {row[0]: Verdict(row[0], row[1], row[2]) for row in claimed.fetchall()}
            verdicts = {
                row[0]: Verdict(row[0], None, 0, "ended", row[1], row[2], row[3])
                for row in ended.fetchall()
            }
            if granted.keys() & verdicts.keys():
                connection.execute(SQL["forget_ended"], {**searched, "lease": lease})
            verdicts = granted | verdicts
            missing = [id for id in ids if id not in verdicts]
            if missing:
                verdicts |= self._refusals(connection, missing, claims)
        return verdicts

    @staticmethod
    def _refusals(
        connection: Connection, ids: Sequence[str], claims: dict[str, Claim]
    ) -> dict[str, Verdict]:
        refused = {id: Verdict(id, None, 0, "running") for id in ids}
        for row in connection.execute(SQL["live"], {"ids": list(ids)}).fetchall():
            id, state, retries, replacements, _, _, crashes, cancelled = row
            asked = (claims[id].retries, claims[id].replacements)
            why: Any = (
                "cancelled"
                if cancelled
                else "superseded"
                if asked < (retries, replacements)
                else "running"
            )
            refused[id] = Verdict(id, None, crashes, why, state)
        return refused

    def keep_message(self, id: str, message: str) -> None:
        """Keep the message (JSON) of a refused copy, so that a takeover can publish it again."""
        parameters = {"id": id, "message": message}
        self._with(None, lambda c: c.execute(SQL["keep_message"], parameters))

    def keep_message_of_ended(self, id: str, message: str) -> None:
        """Keep the message (JSON) of a run that ended without it, so that it can be replayed."""
        parameters = {"id": id, "message": message}
        self._with(None, lambda c: c.execute(SQL["keep_message_of_ended"], parameters))

    def release(self, ids: Sequence[str], *, lease: str) -> None:
        """Give claims back that no execution used."""
        if ids:
            self._with(
                None, lambda c: c.execute(SQL["release"], {"ids": sorted(ids), "lease": lease})
            )

    def release_crashed(self, id: str, *, lease: str) -> None:
        """A child process died with this run, its worker's lease goes on: count it, and release."""
        self._with(None, lambda c: c.execute(SQL["release_crashed"], {"id": id, "lease": lease}))

    def settle(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Record how attempts ended; returns the ids whose outcome was taken.

        An outcome of an attempt that no longer holds its run is refused: the run was taken over,
        and its one outcome comes from the later attempt.
        """
        if not outcomes:
            return set()
        return self._with(None, lambda c: self._settle(c, outcomes))

    def _settle(self, connection: Connection, outcomes: Sequence[Outcome]) -> set[str]:
        ends = [outcome for outcome in outcomes if outcome.state != "retrying"]
        again = [outcome for outcome in outcomes if outcome.state == "retrying"]
        taken: set[str] = set()
        with connection.transaction():
            if ends:
                rows = connection.execute(SQL["finish"], {"outcomes": _json(ends)}).fetchall()
                taken |= {row[0] for row in rows}
            if again:
                rows = connection.execute(SQL["reschedule"], {"outcomes": _json(again)}).fetchall()
                taken |= {row[0] for row in rows}
        return taken

    def reclaim(
        self, claims: Sequence[tuple[Claim, int]], *, lease: str | None, worker: str | None
    ) -> set[str]:
        """Put claims back that PostgreSQL lost in a crash, each with its attempt's number.

        A claim's commit does not wait for the disk. Who executes by it, or has executed, makes it
        good with this; it does nothing for a run that is claimed by anybody, or has ended. Returns
        the ids of those that were lost.
        """
        if not claims:
            return set()
        rows = [asdict(claim) | {"attempt": attempt} for claim, attempt in claims]
        parameters = {"claims": _json(rows), "lease": lease, "worker": worker}
        return {
            row[0]
            for row in self._with(None, lambda c: c.execute(SQL["reclaim"], parameters).fetchall())
        }

    def attempts_of_ended(self, ids: Sequence[str]) -> dict[str, int]:
        """The attempt that ended each of these runs, of those that have ended."""
        rows = self._with(
            None, lambda c: c.execute(SQL["attempts_of_ended"], {"ids": list(ids)}).fetchall()
        )
        return dict(rows)

    def reschedule(
        self,
        outcome: Outcome,
        message: str,
        publish_after: float,
        *,
        connection: Connection | None = None,
    ) -> bool:
        """End an attempt as ``retrying`` with its next message in the outbox, before publishing.

        ``publish_after`` is in seconds. Returns whether the attempt still held the run.
        """
        row = asdict(outcome) | {
            "message": message,
            "publish_after": publish_after,
        }
        rows = self._with(
            connection,
            lambda c: c.execute(SQL["reschedule"], {"outcomes": _json([row])}).fetchall(),
        )
        return bool(rows)

    def end(
        self,
        ids: Sequence[str],
        state: State,
        reason: str | None,
        *,
        error: str | None = None,
        running: bool = False,
        connection: Connection | None = None,
    ) -> set[str]:
        """End live runs from outside: cancelled, expired, dead. ``running`` includes those."""
        if not ids:
            return set()
        parameters = {
            "ids": sorted(ids),
            "state": state,
            "reason": reason,
            "error": error,
            "running": running,
        }
        rows = self._with(connection, lambda c: c.execute(SQL["end"], parameters).fetchall())
        return {row[0] for row in rows}

    def entomb(
        self,
        id: str,
        state: State,
        reason: str,
        *,
        task: str,
        queue: str,
        created_at: datetime | None,
    ) -> None:
        """Write an end for a run the ledger does not know, so that its message is not executed."""
        parameters = {
            "id": id,
            "state": state,
            "reason": reason,
            "task": task,
            "queue": queue,
            "created_at": created_at,
        }
        self._with(None, lambda c: c.execute(SQL["entomb"], parameters))

    def progress(self, reports: Sequence[tuple[str, int, str]]) -> None:
        """Store what running attempts say of themselves: ``(id, attempt, progress as JSON)``."""
        if reports:
            rows = [{"id": id, "attempt": a, "progress": p} for id, a, p in reports]
            self._with(None, lambda c: c.execute(SQL["progress"], {"reports": _json(rows)}))

    def request_cancel(self, ids: Sequence[str]) -> dict[str, str | None]:
        """Ask running attempts to stop; returns the worker of each that is running."""
        if not ids:
            return {}
        rows = self._with(
            None, lambda c: c.execute(SQL["request_cancel"], {"ids": sorted(ids)}).fetchall()
        )
        return {row[0]: row[1] for row in rows}

    def cancel_requests(self, lease: str) -> list[str]:
        """The runs of a lease that were asked to stop."""
        rows = self._with(
            None, lambda c: c.execute(SQL["cancel_requests"], {"lease": lease}).fetchall()
        )
        return [row[0] for row in rows]

    def release_held(self) -> int:
        """Let runs go that waited for another run of their schedule; returns how many."""
        return self._with(None, lambda c: c.execute(SQL["release_held"]).rowcount)

    def expire_overdue(self) -> set[str]:
        """End runs that nobody started before their time was up."""
        rows = self._with(None, lambda c: c.execute(SQL["overdue"]).fetchall())
        return self.end([row[0] for row in rows], "expired", "not started before it expired")

    def outbox_queues(self) -> list[str]:
        """The queues that have anything in the outbox, due or later."""
        rows = self._with(None, lambda c: c.execute(SQL["outbox_queues"]).fetchall())
        return [row[0] for row in rows]

    def take_due(
        self,
        *,
        limit: int,
        hold: float,
        queue: str | None = None,
        most_bytes: int = 2**24,
        late: float = 0.0,
    ) -> list[tuple[str, str, int | None, Message]]:
        """Take up to ``limit`` runs from the outbox for ``hold`` seconds, to publish them.

        Of one ``queue``, or of all; of large messages no more than ``most_bytes`` together.

        Whoever takes them and dies leaves them in the outbox: they are due again afterwards.
        ``late``: only what has been due for so many seconds. Returns ``(id, queue, priority,
        message)``.
        """
        parameters = {
            "limit": limit,
            "hold": hold,
            "bytes": most_bytes,
            "queue": queue,
            "late": late,
        }
        statement = SQL["due_for_publishing" if queue is None else "due_of_queue"]
        return self._with(None, lambda c: c.execute(statement, parameters).fetchall())

    def waiting_since(self, queue: str, age: float, *, limit: int) -> list[tuple[str, int, int]]:
        """Runs of ``queue`` that were handed over ``age`` seconds ago and that nobody has begun.

        Each with how often it was retried and replaced.
        """
        parameters = {"queue": queue, "age": age, "limit": limit}
        rows = self._with(None, lambda c: c.execute(SQL["waiting_since"], parameters).fetchall())
        return [(row[0], row[1], row[2]) for row in rows]

    def publish_again(self, ids: Sequence[str]) -> None:
        """Put runs that nobody executes into the outbox once more."""
        if ids:
            self._with(None, lambda c: c.execute(SQL["publish_again"], {"ids": sorted(ids)}))

    def publish_lost(self, *, age: float = 0.0) -> int:
        """Put into the outbox what a broker has lost that had it ``age`` seconds ago; how many.

        These are all runs that wait for a worker and whose message the ledger has. A copy that the
        broker has after all is refused when the other one has begun.
        """
        parameters = {"age": age, "limit": LOST_BATCH}
        found = 0
        while batch := self._with(
            None, lambda c: c.execute(SQL["publish_lost"], parameters)
        ).rowcount:
            found += batch
        return found

    def reroute(
        self, queue: str, to: str, *, limit: int, grace: float
    ) -> list[tuple[str, int, int]]:
        """Move up to ``limit`` runs that nobody has begun to another queue.

        Returns their ids, each with how often the run was retried and replaced. The caller
        publishes them there; what it has not after ``grace`` seconds the outbox does. What has no
        message in the ledger stays.
        """
        parameters = {"queue": queue, "to": to, "limit": limit, "grace": grace}
        rows = self._with(None, lambda c: c.execute(SQL["reroute"], parameters).fetchall())
        return [(row[0], row[1], row[2]) for row in rows]

    def movable_later(self, queue: str) -> int:
        """How many runs of ``queue`` wait that :meth:`reroute` leaves for the moment."""
        row = self._with(
            None, lambda c: c.execute(SQL["movable_later"], {"queue": queue}).fetchone()
        )
        return int(row[0]) if row else 0

    # -- reading ---------------------------------------------------------------------------------

    def get(self, id: str) -> Run:
        """The run with this id, live or ended. Raises :class:`RunNotFound`."""
        return self._with(None, lambda c: self._get(c, id))

    @staticmethod
    def _get(connection: Connection, id: str) -> Run:
        with connection.cursor(row_factory=class_row(Run)) as cursor:
            for name in ("get_live", "get_ended"):
                statement = cast("LiteralString", SQL[name].replace("{columns}", COLUMNS))
                found = cursor.execute(statement, {"id": id}).fetchone()
                if found is not None:
                    return found
        raise RunNotFound(f"no run has the id {id!r}")

    def ids_beginning(self, beginning: str, *, limit: int) -> list[str]:
        """The ids of the runs, live and ended, that begin so: for people, who shorten them."""
        parameters = {"beginning": beginning, "limit": limit}
        rows = self._with(None, lambda c: c.execute(SQL["ids_beginning"], parameters).fetchall())
        return [row[0] for row in rows]

    def find(self, filters: Filters) -> list[Run]:
        """The newest runs that meet ``filters``, live and ended together."""
        return self._with(None, lambda c: self._find(c, filters))

    @staticmethod
    def _find(connection: Connection, filters: Filters) -> list[Run]:
        where, parameters = conditions(filters)
        newest = "ORDER BY created_at DESC, id DESC LIMIT %(limit)s"
        states = filters.wanted_states()
        # The history holds no live run, and looking for one reads all of it.
        live_only = bool(states) and LIVE_STATES.issuperset(states)
        tables = ("runs",) if live_only else ("runs", "run_history")
        parts = [
            f"(SELECT {COLUMNS} FROM ironbeat.{table} WHERE {where} {newest})"  # noqa: S608
            for table in tables
        ]
        found = " UNION ALL ".join(parts)
        statement = cast("LiteralString", f"SELECT * FROM ({found}) AS found {newest}")  # noqa: S608
        with connection.cursor(row_factory=class_row(Run)) as cursor:
            return cursor.execute(statement, parameters).fetchall()

    # -- connections -----------------------------------------------------------------------------

    def within(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on a connection of the pool, as every method here does."""
        return self._with(None, work)

    def _with(self, connection: Connection | None, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on the given connection, or on one of the pool with deadlocks retried."""
        if connection is not None:
            return work(connection)
        for attempt in range(_DEADLOCK_TRIES):
            try:
                with (
                    database.connection(self._url) as pooled,
                    database.deadline(pooled, self.patience_seconds),
                ):
                    pooled.row_factory = tuple_row
                    return work(pooled)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                if attempt == _DEADLOCK_TRIES - 1:
                    raise
                time.sleep(0.01 * (attempt + 1))
            except database.outages() as error:
                raise LedgerUnavailable(f"PostgreSQL cannot be reached: {error}") from error
        raise AssertionError("unreachable")


_EQUALITIES: dict[str, LiteralString] = {
    "task": "task = %(task)s",
    "schedule": "schedule_name = %(schedule)s",
    "workload": "workload = %(workload)s",
    "queue": "queue = %(queue)s",
    "worker": "worker = %(worker)s",
    "since": "created_at >= %(since)s",
    "until": "created_at < %(until)s",
    "parent_id": "parent_id = %(parent_id)s",
    "group_id": "group_id = %(group_id)s",
}


def conditions(filters: Filters) -> tuple[str, dict[str, Any]]:
    """The WHERE clause of ``filters`` and its parameters; values never enter the text."""
    clauses: list[LiteralString] = ["true"]
    parameters: dict[str, Any] = {"limit": filters.limit}
    for name, clause in _EQUALITIES.items():
        value = getattr(filters, name)
        if value is not None:
            clauses.append(clause)
            parameters[name] = value
    if filters.wanted_states():
        clauses.append("state = ANY(%(states)s)")
        parameters["states"] = list(filters.wanted_states())
    if filters.text is not None:
        clauses.append(
            "(id = %(text)s OR task ILIKE %(pattern)s OR argsrepr ILIKE %(pattern)s"
            " OR kwargsrepr ILIKE %(pattern)s OR error ILIKE %(pattern)s)"
        )
        parameters["text"] = filters.text
        parameters["pattern"] = _containing(filters.text)
    if filters.names:
        clauses.append(
            "concat_ws(E'\\n', id, task, queue, worker, schedule_name, state)"
            " ILIKE ALL(%(names)s::text[])"
        )
        parameters["names"] = [_containing(name) for name in filters.names]
    if filters.before is not None:
        clauses.append("(created_at, id) < (%(before_at)s, %(before_id)s)")
        parameters["before_at"], parameters["before_id"] = filters.before
    return " AND ".join(clauses), parameters


def _containing(text: str) -> str:
    """The LIKE pattern of what has ``text`` in it."""
    escaped = re.sub(r"([\\%_])", r"\\\1", text)
    return f"%{escaped}%"
