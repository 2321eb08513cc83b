"""Limits over all workers together, kept in PostgreSQL.

A run that may not begin yet does not wait in a worker: it goes back to the ledger, in the same
transaction that gave it its place. By a rate it is promised a start, and is published again then;
by a concurrency it stands in line, and is called when another run leaves. So each comes once and
once more, whatever the backlog, and nothing spins. Who came first is called first. The places of
dead workers are freed when their runs are taken over; a beat sweeps for those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from ironbeat import queries
from ironbeat.runs.ledger import Ledger
from ironbeat.throttle import Throttle

SQL = queries.load("ironbeat.runs", "throttles.sql")

# Nobody waits in line for so long without having been called: it comes and asks again.
LONGEST_WAIT_SECONDS = 86_400.0
HOLD_SECONDS = 5.0
SWEPT_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """A throttle in use: how many execute, stand in line, and have a start promised.

    ``booked_seconds`` is how far ahead the rate's starts are taken.
    """

    name: str
    concurrency: int | None
    booked_seconds: float
    executing: int
    in_line: int
    promised: int


class Throttles:
    """The places under every throttle. All methods raise :class:`LedgerUnavailable`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def enter(
        self, throttle: Throttle, name: str, run: str, attempt: int, lease: str, message: str
    ) -> bool:
        """Whether an attempt that has been claimed may begin; if not, its run has gone back.

        ``message`` is its message as JSON, kept where the ledger has none.
        """
        asked = {
            "name": name,
            "run": run,
            "lease": lease,
            "pace": throttle.pace,
            "burst": throttle.burst,
            "most": throttle.concurrency,
        }

        def work(connection: psycopg.Connection[Any]) -> bool:
            with connection.transaction():
                row = connection.execute(SQL["enter"], asked).fetchone()
                seconds = row[0] if row is not None else None
                if seconds == 0:
                    return True
                connection.execute(
                    SQL["postpone"],
                    {
                        "run": run,
                        "attempt": attempt,
                        "message": message,
                        "seconds": LONGEST_WAIT_SECONDS if seconds is None else seconds,
                    },
                )
                return False

        return self._ledger.within(work)

    def leave(self, name: str, run: str) -> list[str]:
        """A run has left its place; returns the runs that were called, which are due now."""
        return self._ids("leave", {"name": name, "run": run})

    def sweep(self) -> list[str]:
        """Free the places of the dead, and call others; returns the runs that were called."""
        return self._ids("sweep", {"some": SWEPT_AT_ONCE})

    def take(self, ids: Sequence[str]) -> list[tuple[str, Any]]:
        """The messages of runs that are due, to be published by the caller and nobody else."""
        parameters = {"ids": list(ids), "hold": HOLD_SECONDS}
        return self._ledger.within(lambda c: c.execute(SQL["take"], parameters).fetchall())

    def forget_unused(self) -> None:
        """Remove what nobody will ask for again."""
        self._ledger.within(lambda c: c.execute(SQL["forget"]))

    def _ids(self, statement: str, parameters: dict[str, Any]) -> list[str]:
        rows = self._ledger.within(lambda c: c.execute(SQL[statement], parameters).fetchall())
        return [row[0] for row in rows]


def read_standing(connection: psycopg.Connection[Any], limit: int = 100) -> tuple[Standing, ...]:
    """The throttles that are in use, the busiest first."""
    rows = connection.execute(SQL["standing"], {"limit": limit}).fetchall()
    return tuple(Standing(*row) for row in rows)
