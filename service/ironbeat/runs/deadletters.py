"""Dead letters: runs that nobody will try again unless an operator says so.

A run is dead when it killed its worker as often as the setting ``poison_limit`` allows, or when its
task rejected it. It stays in the history, with its count and its last words, and is a letter until
an operator replays or drops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from ironbeat import queries
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import RunNotFound

SQL = queries.load("ironbeat.runs", "deadletters.sql")

DROPPED = "dropped"
COUNTED_AT_MOST = 10_000


class NotADeadLetter(ValueError):
    """The run is not dead, or was dealt with already; the message says which."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead run. ``attempts``: how often it began; ``crashes``: how often that killed a worker.

    ``handled`` says what an operator did about it, ``None`` while nobody has. ``replayable``: its
    message is kept.
    """

    id: str
    task: str
    workload: str
    queue: str
    schedule: str | None
    created_at: datetime
    ended_at: datetime
    attempts: int
    crashes: int
    worker: str | None
    reason: str | None
    error: str | None
    args: str | None
    kwargs: str | None
    handled: str | None
    replayable: bool


class DeadLetters:
    """Reads dead letters and notes what was done about them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def find(
        self,
        *,
        task: str | None = None,
        queue: str | None = None,
        since: datetime | None = None,
        before: tuple[datetime, str] | None = None,
        handled_too: bool = False,
        limit: int = 50,
    ) -> list[DeadLetter]:
        """The latest dead letters that meet the conditions; ``before`` continues a list."""
        parameters = {
            "task": task,
            "queue": queue,
            "since": since,
            "before_at": before[0] if before else None,
            "before_id": before[1] if before else None,
            "handled": handled_too,
            "limit": limit,
        }
        rows = self._ledger.within(lambda c: c.execute(SQL["list"], parameters).fetchall())
        return [DeadLetter(*row) for row in rows]

    def get(self, id: str) -> DeadLetter:
        """One dead letter.

        Raises :class:`RunNotFound`, and :class:`NotADeadLetter` for a run that is not dead.
        """
        row = self._ledger.within(lambda c: c.execute(SQL["one"], {"id": id}).fetchone())
        if row is None:
            live = self._ledger.get(id)
            raise NotADeadLetter(f"run {id} is not dead, it is {live.state}")
        *fields, state = row
        if state != "dead":
            raise NotADeadLetter(f"run {id} is not dead, it is {state}")
        return DeadLetter(*fields)

    def drop(self, id: str) -> None:
        """An operator has looked at it and wants nothing done.

        Raises :class:`RunNotFound` and :class:`NotADeadLetter`.
        """
        if not self._ledger.within(lambda c: self.handle(c, id, DROPPED)):
            raise self._refusal(id)

    @staticmethod
    def handle(connection: psycopg.Connection[Any], id: str, how: str) -> bool:
        """Note what is done about a letter; ``False``: it is none, or another was faster."""
        row = connection.execute(SQL["handle"], {"id": id, "how": how}).fetchone()
        return row is not None

    def _refusal(self, id: str) -> Exception:
        try:
            found = self.get(id)
        except (RunNotFound, NotADeadLetter) as error:
            return error
        return NotADeadLetter(f"dead letter {id} was dealt with already: {found.handled}")

    def refuse(self, id: str) -> None:
        """Raise why a letter could not be handled."""
        raise self._refusal(id)


def count_open(connection: psycopg.Connection[Any]) -> int:
    """How many dead letters nobody has dealt with; counting stops at ``COUNTED_AT_MOST``."""
    row = connection.execute(SQL["count"], {"most": COUNTED_AT_MOST}).fetchone()
    return int(row[0]) if row is not None else 0
