"""In which order processes are restarted, and how many at a time. Pure.

Programs that stop at once come before those that drain, so that a release which does not work shows
before any worker has been touched. Among workers, hosts with a short drain and short tasks come
first: one that may drain for half an hour holds nobody else up. On a host one process at a time is
restarted; only where a group's file has changed does the whole group go together, because
supervisord can take a new definition for a whole stopped group only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from scripts.ops.failures import NOT_FOUND, REFUSED, OpsError
from scripts.ops.processes import PROGRAMS, RUNS, Process

# Of the runs of a queue, this share took no longer than what counts as typical.
TYPICAL_SHARE = 0.95


@dataclass(frozen=True)
class Candidate:
    """A process that might be restarted, and what is known of it.

    ``stop_seconds``: when supervisord would kill it. ``changed``: its group's file differs from
    what runs. ``task_seconds``: how long tasks of its queues typically take.
    """

    host: str
    process: Process
    stop_seconds: int
    start_seconds: int
    changed: bool = False
    task_seconds: float = 0.0


@dataclass(frozen=True)
class Step:
    """What is restarted together: one process, or a changed group (``replace``)."""

    host: str
    group: str
    names: tuple[str, ...]
    replace: bool
    running: bool
    stop_seconds: int
    start_seconds: int
    task_seconds: float


@dataclass(frozen=True)
class Wave:
    """Hosts that are worked on at the same time, each through its own steps one by one."""

    group: str
    steps: Mapping[str, tuple[Step, ...]]


def typical_seconds(runs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """For each queue, how long its runs typically took, from a list of ended runs."""
    taken: dict[str, list[float]] = {}
    for run in runs:
        if run["seconds"] is not None:
            taken.setdefault(run["queue"], []).append(float(run["seconds"]))
    return {
        queue: sorted(each)[min(len(each) - 1, int(len(each) * TYPICAL_SHARE))]
        for queue, each in taken.items()
    }


def chosen(candidates: Sequence[Candidate], programs: Sequence[str]) -> list[Candidate]:
    """Those that ``programs`` names: by program (``worker``), process, or pattern (``*_0[01]``).

    One that is stopped because nobody needs it stays so.
    Raises :class:`OpsError` for a name that no candidate has.
    """
    candidates = [each for each in candidates if not each.process.resting]
    if not programs:
        return candidates
    found = []
    for wanted in programs:
        meant = [
            each
            for each in candidates
            if any(
                fnmatchcase(name, wanted)
                for name in (each.process.group, each.process.name, each.process.full_name)
            )
        ]
        if not meant:
            known = sorted({each.process.group for each in candidates})
            hint = f"There are: {', '.join(known)}." if known else "Nothing runs there."
            raise OpsError(f"no host here has the program {wanted!r}", hint, NOT_FOUND)
        found += [each for each in meant if each not in found]
    return found


def plan(candidates: Sequence[Candidate], serial: int = 1) -> tuple[Wave, ...]:
    """The waves, ``serial`` hosts in each.

    Raises :class:`OpsError` when hosts that are worked on together are all that run a program.
    """
    waves = []
    groups = {each.process.group for each in candidates}
    for group in sorted(groups, key=_rank):
        hosts: dict[str, tuple[Step, ...]] = {}
        for host in dict.fromkeys(each.host for each in candidates):
            mine = [x for x in candidates if x.host == host and x.process.group == group]
            if mine:
                hosts[host] = _steps(mine)
        order = sorted(hosts, key=lambda host: _length(hosts[host]))
        for begin in range(0, len(order), serial):
            together = order[begin : begin + serial]
            wave = Wave(group, {host: hosts[host] for host in together})
            _refuse_standstill(wave, candidates, serial)
            waves.append(wave)
    return tuple(waves)


def _rank(group: str) -> tuple[int, str]:
    return PROGRAMS.index(group) if group in PROGRAMS else len(PROGRAMS), group


def _steps(candidates: Sequence[Candidate]) -> tuple[Step, ...]:
    if any(each.changed for each in candidates):
        return (_step(candidates, replace=True),)
    # What does not run is quick, and missed the most.
    order = sorted(candidates, key=lambda each: (each.process.state in RUNS, each.process.name))
    return tuple(_step([each], replace=False) for each in order)


def _step(candidates: Sequence[Candidate], *, replace: bool) -> Step:
    return Step(
        host=candidates[0].host,
        group=candidates[0].process.group,
        names=tuple(each.process.full_name for each in candidates),
        replace=replace,
        running=any(each.process.state in RUNS for each in candidates),
        stop_seconds=max(each.stop_seconds for each in candidates),
        start_seconds=max(each.start_seconds for each in candidates),
        task_seconds=max(each.task_seconds for each in candidates),
    )


def _length(steps: Sequence[Step]) -> tuple[int, float]:
    return max(step.stop_seconds for step in steps), max(step.task_seconds for step in steps)


def _refuse_standstill(wave: Wave, candidates: Sequence[Candidate], serial: int) -> None:
    if len(wave.steps) < 2:
        # One host after another is as careful as it gets.
        return
    running = sum(
        each.process.group == wave.group and each.process.state in RUNS for each in candidates
    )
    down = sum(max(len(step.names) for step in steps) for steps in wave.steps.values())
    if running and down >= running:
        raise OpsError(
            f"--serial {serial} would stop every {wave.group} at once (on {', '.join(wave.steps)})",
            "Choose a smaller --serial, or --program for the others.",
            REFUSED,
        )
