"""What a scenario is: who breaks, how, what is done about it, and what has to hold afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.faults.suite import Suite

#: A dead process or host, and whoever takes over from it: within so many seconds.
DIED_SECONDS = 10.0


class Skipped(Exception):
    """This machine cannot cause the fault; the message says what it lacks."""


@dataclass(frozen=True)
class Scenario:
    """One row of the fault table.

    ``act`` breaks a running suite and lets it recover; it returns the seconds that took, and
    ``recovered`` says what was waited for. ``lasts`` is about how long that keeps it busy: the load
    is spread over it. ``within`` bounds the seconds; where a process or a host died it is ten.

    ``overlaps`` is how many executions may overlap *in principle* (a worker that was cut off and
    goes on), 0 where none can; ``why`` says where the number comes from. ``alone``: it changes the
    suite's settings, or leaves something behind that no later scenario should find.
    """

    component: str
    fault: str
    act: Callable[[Suite], float]
    recovered: str
    lasts: float = 0.0
    within: float | None = None
    overlaps: int = 0
    why: str = ""
    alone: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    #: The size of the suite's own file system, where the fault is one of it.
    disk_mb: int | None = None
    #: How many seconds later than we the suite lives.
    clock: Callable[[], float] = lambda: 0.0
    #: Says why this machine cannot cause it; ``None`` where it can.
    lacking: Callable[[], str | None] = lambda: None
