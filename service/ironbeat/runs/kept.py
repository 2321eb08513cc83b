"""What Celery's result backend keeps in PostgreSQL: results without Redis, and the count of chords.

Plain storage, without any notion of tasks; :mod:`ironbeat.execution.results` gives it meaning. All
raise :class:`ironbeat.runs.model.LedgerUnavailable` when PostgreSQL cannot be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from ironbeat import queries
from ironbeat.runs.ledger import Ledger

SQL = queries.load("ironbeat.runs", "kept.sql")

Move = Callable[[str, bytes, float | None], None]


class Shelf:
    """Values under keys, each for some time."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values of those of ``keys`` that are there and have not expired."""
        rows = self._ledger.within(lambda c: c.execute(SQL["get"], {"keys": list(keys)}).fetchall())
        return {key: bytes(value) for key, value in rows}

    def set(self, key: str, value: bytes, seconds: float | None, *, final: bool = False) -> None:
        """Keep ``value`` for ``seconds`` (``None``: for ever); a final value stays as it is."""
        parameters = {"key": key, "value": value, "seconds": seconds, "final": final}
        self._ledger.within(lambda c: c.execute(SQL["set"], parameters))

    def delete(self, key: str) -> None:
        """Forget ``key``."""
        self._ledger.within(lambda c: c.execute(SQL["delete"], {"key": key}))

    def move(self, put: Move, limit: int = 200) -> int:
        """Hand up to ``limit`` values to ``put`` with the seconds they have left; returns how many.

        They are gone from here once ``put`` has returned for all of them; what it raises leaves
        everything as it was.
        """
        return self._ledger.within(lambda c: self._move(c, put, limit))

    @staticmethod
    def _move(connection: psycopg.Connection[Any], put: Move, limit: int) -> int:
        with connection.transaction():
            rows = connection.execute(SQL["take"], {"limit": limit}).fetchall()
            for key, value, seconds in rows:
                if seconds is None or seconds > 0:
                    put(key, bytes(value), seconds)
        return len(rows)


@dataclass(frozen=True, slots=True)
class Counted:
    """How a chord stands after a part was counted: whether all parts have ended, and how their
    results are nested, if they are.
    """

    complete: bool
    structure: str | None


@dataclass(frozen=True, slots=True)
class Part:
    """How one part of a chord ended; ``result`` is encoded."""

    run_id: str
    state: str
    result: str


class Chords:
    """Counts the parts of chords, each once by its run's id."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def set_size(self, chord: str, size: int) -> None:
        """A chord has so many parts."""
        self._execute("chord_size", chord=chord, size=size)

    def add(self, chord: str) -> None:
        """A chord has one part more."""
        self._execute("chord_add", chord=chord)

    def set_structure(self, chord: str, structure: str) -> None:
        """Note how the results of a chord's parts are nested."""
        self._execute("chord_structure", chord=chord, structure=structure)

    def count(self, chord: str, part: Part, place: int | None) -> Counted:
        """A part has ended. A repeated call for the same part changes nothing.

        Each caller is told whether the chord is complete until :meth:`end` was called, so that one
        who dies before the chord's body is committed is followed by another.
        """
        parameters = {
            "chord": chord,
            "run": part.run_id,
            "place": place,
            "state": part.state,
            "result": part.result,
        }
        row = self._ledger.within(lambda c: c.execute(SQL["chord_part"], parameters).fetchone())
        assert row is not None
        return Counted(*row)

    def parts(self, chord: str) -> list[Part]:
        """The parts of a chord in their order."""
        parameters = {"chord": chord}
        rows = self._ledger.within(lambda c: c.execute(SQL["chord_parts"], parameters).fetchall())
        return [Part(*row) for row in rows]

    def end(self, chord: str) -> None:
        """The chord's body is committed, or the chord has failed."""
        self._execute("chord_end", chord=chord)

    def _execute(self, name: str, **parameters: Any) -> None:
        self._ledger.within(lambda c: c.execute(SQL[name], parameters))


def prune(connection: psycopg.Connection[Any], days: int) -> dict[str, int]:
    """Drop results whose time is over, and chords that ended or began ``days`` ago."""
    results = connection.execute(SQL["prune_kept"]).rowcount
    parts = connection.execute(SQL["prune_chords"], {"days": days}).rowcount
    return {"results": results, "chord_parts": parts}
