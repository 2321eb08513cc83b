"""Drawing runs from the ledger, where no broker brings them.

A run can be drawn whose message the ledger holds: what waits in the outbox, and what was published
to a broker that is gone now, since a copy that it still has will be dropped by the guard. Drawing
takes a run for some seconds by moving its ``publish_at``, the same hold that an outbox's sweeper
uses: should the drawer die it is due again, to be drawn by another worker or published. Whether it
may be executed is decided, as ever, by the claim. The clock is the database's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ironbeat import queries
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Message

SQL = queries.load("ironbeat.runs", "drawing.sql")

# How long a drawn run is left alone by others; its drawer renews this while it waits.
HOLD_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """A run in this worker's hands, not yet claimed."""

    id: str
    queue: str
    priority: int | None
    message: Message


class Drawer:
    """Draws runs for one worker, under its lease. All raise :class:`LedgerUnavailable`."""

    def __init__(self, ledger: Ledger, lease: str, *, hold: float = HOLD_SECONDS) -> None:
        self.ledger = ledger
        self.lease = lease
        self.hold = hold

    def draw(self, queues: Sequence[str], limit: int) -> list[Drawn]:
        """Take up to ``limit`` due runs of ``queues``: the most urgent, then the oldest first."""
        parameters = {"queues": list(queues), "limit": limit, "hold": self.hold}
        rows = self.ledger.within(lambda c: c.execute(SQL["draw"], parameters).fetchall())
        return [Drawn(*row) for row in rows]

    def keep(self, ids: Sequence[str]) -> None:
        """Hold what was drawn and has not begun for another while."""
        if ids:
            parameters = {"ids": sorted(ids), "hold": self.hold}
            self.ledger.within(lambda c: c.execute(SQL["keep"], parameters))

    def give_back(self, ids: Sequence[str], *, crashed: bool = False) -> None:
        """Let others have these at once. ``crashed``: the child process that ran them died."""
        if ids:
            parameters = {"ids": sorted(ids), "lease": self.lease}
            if crashed:
                self.ledger.within(lambda c: c.execute(SQL["return_crashed"], parameters))
            self.ledger.within(lambda c: c.execute(SQL["return"], parameters))
