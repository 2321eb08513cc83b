"""What an executing process holds: its ledger, guard and recorder, under its worker's lease.

A worker installs it before its pool starts, so that forked children inherit it; a process that only
submits has none, and tasks called in it directly run as plain functions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ironbeat.execution.turns import Turns
from ironbeat.runs.blackbox import BlackBox
from ironbeat.runs.guard import Guard
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Claim
from ironbeat.runs.recorder import Recorder


@dataclass(slots=True)
class Execution:
    """A task's body that runs: its attempt, when it began (monotonic seconds), the claim that let
    it, and how to say so in the result backend once it has lasted a moment.
    """

    attempt: int
    began: float
    claim: Claim
    announce: Callable[[], None] | None = None


@dataclass(slots=True)
class Runtime:
    """The parts an attempt needs.

    ``batched``: acknowledgements wait for :meth:`Recorder.flush`, so outcomes may be collected;
    otherwise each outcome is written before the task returns. ``poison_limit``: how many workers
    may die with a run before it is dead. ``result_bytes``: the largest result the ledger keeps.
    ``box``: where each execution is noted for those who find this process dead. ``turns``: whose
    turn it is where a task is throttled.
    """

    ledger: Ledger
    guard: Guard
    recorder: Recorder
    batched: bool = False
    poison_limit: int = 3
    result_bytes: int = 65536
    stopping: bool = False
    box: BlackBox | None = None
    turns: Turns | None = None
    # The executions of this process by id, for whoever looks after them from another thread.
    executing: dict[str, Execution] = field(default_factory=dict)
    # Held while an execution is announced, and while it ends: what is said of it stays in order.
    announcing: threading.Lock = field(default_factory=threading.Lock)

    def ended(self, id: str) -> None:
        """An execution has ended: nothing more is announced of it."""
        with self.announcing:
            self.executing.pop(id, None)

    def announce(self, id: str) -> None:
        """Say that an execution has begun, unless that was said or it has ended."""
        with self.announcing:
            execution = self.executing.get(id)
            if execution is not None and execution.announce is not None:
                announce, execution.announce = execution.announce, None
                announce()


_current: Runtime | None = None


def install(runtime: Runtime | None) -> None:
    """Make ``runtime`` this process's, and that of children forked from now on."""
    global _current
    _current = runtime


def current() -> Runtime | None:
    """The runtime of this process, or ``None`` where no worker runs."""
    return _current
