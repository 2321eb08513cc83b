"""A process as its host's supervisord tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# States in which a process runs or is about to.
RUNS = ("RUNNING", "STARTING")

# Programs, in the order in which they may be restarted: those that stop at once come first.
PROGRAMS = (
    "watchdog",
    "scaler",
    "beat",
    "api",
    "flower",
    "rq_dashboard",
    "worker",
    "spare",
    "rq_worker",
)

# Programs that run only while they are needed; one that is stopped is as it should be.
ON_DEMAND = ("spare",)


@dataclass(frozen=True)
class Process:
    """One process as supervisord sees it.

    ``seconds``: how long it has run; 0 when it does not. ``started_at``: its last start by the
    host's own clock, in seconds since the epoch; 0 when it was never started.
    """

    group: str
    name: str
    state: str
    pid: int
    seconds: int
    exit_status: int
    problem: str
    logfile: str
    started_at: int = 0

    @property
    def resting(self) -> bool:
        """Whether it is stopped because nobody needs it now."""
        return self.state == "STOPPED" and self.group in ON_DEMAND

    @property
    def full_name(self) -> str:
        """What supervisord calls it: ``worker:worker_00``; ``beat`` where both are the same."""
        return self.name if self.group == self.name else f"{self.group}:{self.name}"


@dataclass(frozen=True)
class Bounds:
    """How a process is stopped and started: seconds until it is killed, seconds until it counts."""

    stop_seconds: int
    start_seconds: int


def from_info(info: Mapping[str, Any]) -> Process:
    """A process from supervisord's own description of it."""
    return Process(
        group=info["group"],
        name=info["name"],
        state=info["statename"],
        pid=info["pid"],
        seconds=max(info["now"] - info["start"], 0) if info["pid"] else 0,
        exit_status=info["exitstatus"],
        problem=info["spawnerr"],
        logfile=info["stdout_logfile"],
        started_at=info["start"],
    )
