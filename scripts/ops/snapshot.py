"""One host at one moment: what runs there, and what is wrong with that. Pure.

What supervisord says and what the host's own facts say are put together by pid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from scripts.ops.inventory import Host
from scripts.ops.processes import RUNS, Process


@dataclass(frozen=True)
class Program:
    """One program on a host.

    ``memory_mb`` is the resident memory of the process and all its children; ``None`` when the
    host did not tell. ``release`` is the one that the process was started from. ``problem`` is
    empty when all is well.
    """

    host: str
    group: str
    name: str
    state: str
    pid: int
    seconds: float
    memory_mb: float | None
    release: str | None
    problem: str = ""


@dataclass(frozen=True)
class Snapshot:
    """A host. ``unreachable`` says why it could not be asked, with ``hint`` what to do about it.

    ``release`` is the one that is current there; ``problems`` are the host's own, beside those of
    its programs. ``facts`` is what it told, as it told it.
    """

    host: str
    groups: tuple[str, ...] = ()
    unreachable: str = ""
    hint: str = ""
    release: str | None = None
    programs: tuple[Program, ...] = ()
    problems: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def waiting(self) -> tuple[Program, ...]:
        """The programs that run a release other than the current one, until they are restarted."""
        return tuple(
            program
            for program in self.programs
            if program.pid and program.release and self.release and program.release != self.release
        )

    @property
    def complaints(self) -> tuple[str, ...]:
        """Everything that is wrong here, a sentence each, with the host's name."""
        if self.unreachable:
            return (f"{self.host}: {self.unreachable}",)
        return (
            *(f"{self.host}: {problem}" for problem in self.problems),
            *(
                f"{self.host}: {program.name} {program.problem}"
                for program in self.programs
                if program.problem
            ),
        )


def unreachable(host: Host, why: str, hint: str = "") -> Snapshot:
    """A host that could not be asked."""
    return Snapshot(host.name, tuple(sorted(host.groups)), unreachable=why, hint=hint)


def describe(host: Host, facts: Mapping[str, Any], processes: Sequence[Process] | str) -> Snapshot:
    """A host from its facts and its supervisord's processes, or the reason why there are none."""
    programs: list[Program] = []
    problems: list[str] = []
    if isinstance(processes, str):
        if host.programs:
            problems.append(processes)
    else:
        programs += [_supervised(host, each, facts) for each in processes]
        there = {each.group for each in processes}
        problems += [
            f"{wanted} is not there; run site.yml"
            for wanted in host.programs
            if wanted not in there
        ]
    units = facts.get("units")
    if units is not None:
        programs += [_unit(host, name, unit, facts) for name, unit in sorted(units.items())]
        problems += [
            f"{pattern} is not there; run site.yml"
            for pattern in host.units
            if not any(fnmatchcase(name, pattern) for name in units)
        ]
    return Snapshot(
        host=host.name,
        groups=tuple(sorted(host.groups)),
        release=facts.get("release"),
        programs=tuple(programs),
        problems=tuple(problems),
        facts=facts,
    )


def memory_mb(pid: int, processes: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Resident memory of a process and of all that descend from it."""
    if str(pid) not in processes:
        return None
    family, total = [str(pid)], 0
    for member in family:
        total += processes[member]["rss_kb"]
        family += [child for child, each in processes.items() if str(each["ppid"]) == member]
    return round(total / 1024, 1)


def _supervised(host: Host, process: Process, facts: Mapping[str, Any]) -> Program:
    known = facts.get("processes", {})
    problem = ""
    if process.state not in RUNS and not process.resting:
        problem = f"is {process.state.lower()}"
        if process.problem:
            problem += f": {process.problem}"
        elif process.state in ("EXITED", "FATAL", "BACKOFF"):
            problem += f" with status {process.exit_status}"
    return Program(
        host=host.name,
        group=process.group,
        name=process.name,
        state=process.state.lower(),
        pid=process.pid,
        seconds=process.seconds,
        memory_mb=memory_mb(process.pid, known) if process.pid else None,
        release=known.get(str(process.pid), {}).get("release"),
        problem=problem,
    )


def _unit(host: Host, name: str, unit: Mapping[str, Any], facts: Mapping[str, Any]) -> Program:
    known = facts.get("processes", {})
    short = name.removesuffix(".service")
    running = unit["state"] == "active"
    return Program(
        host=host.name,
        group=short,
        name=short,
        state="running" if running else unit["state"],
        pid=unit["pid"],
        seconds=known.get(str(unit["pid"]), {}).get("seconds", 0.0),
        memory_mb=memory_mb(unit["pid"], known) if unit["pid"] else None,
        release=None,
        problem="" if running else f"is {unit['state']} ({unit['detail']})",
    )
