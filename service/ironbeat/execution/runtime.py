"""What an executing process holds: its ledger, guard and recorder, under its worker's lease.

A worker installs it before its pool starts, so that forked children inherit it; a process that only
submits has none, and tasks called in it directly run as plain functions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ironbeat.runs.guard import Guard
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.recorder import Recorder


@dataclass(slots=True)
class Runtime:
    """The parts an attempt needs.

    ``batched``: acknowledgements wait for :meth:`Recorder.flush`, so outcomes may be collected;
    otherwise each outcome is written before the task returns. ``poison_limit``: how many workers
    may die with a run before it is dead. ``result_bytes``: the largest result the ledger keeps.
    """

    ledger: Ledger
    guard: Guard
    recorder: Recorder
    batched: bool = False
    poison_limit: int = 3
    result_bytes: int = 65536
    stopping: bool = False
    # The executions of this process, for whoever has to end one by force: id to attempt and begin.
    executing: dict[str, tuple[int, float]] = field(default_factory=dict)


_current: Runtime | None = None


def install(runtime: Runtime | None) -> None:
    """Make ``runtime`` this process's, and that of children forked from now on."""
    global _current
    _current = runtime


def current() -> Runtime | None:
    """The runtime of this process, or ``None`` where no worker runs."""
    return _current
