"""Which processes of a host are dead, hung or silent, and which only look so. Pure.

A process is ended only on evidence that nothing but itself can be blamed for:

* a run of it is past its hard limit, and past the time in which it should have ended itself;
* none of its threads has run for ``patience`` seconds, although no task holds the interpreter, or
  the kernel says that it is stopped (its work has long been taken over by then);
* it is a beat whose loop has not come round for as long, although the database has answered the
  watchdog itself without a break in that time.

A watchdog that was stopped itself, with its host perhaps, has seen nothing in that time: it judges
nobody before it has watched for ``patience`` seconds without a gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ironbeat.runs.blackbox import Report

Finding = Literal["dead", "hung", "silent", "stalled", "vouched"]

# A process that ends a task at its hard limit takes so long at most to give back what it holds.
OWN_SECONDS = 30.0
# A thread that breathes each second has not been able to for so long: its lease is in danger.
BREATHLESS_SECONDS = 2.5


@dataclass(frozen=True, slots=True)
class Seen:
    """A process's report and how it stands: whether it is there, and whether it was stopped."""

    report: Report
    alive: bool
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Watch:
    """What the watchdog can vouch for itself: since when it has watched, and heard the database.

    All are monotonic seconds; ``database_since`` is ``None`` while the database does not answer.
    """

    now: float
    since: float
    database_since: float | None
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of a process, and why; ``runs`` are those over their limit."""

    finding: Finding
    report: Report
    why: str
    runs: tuple[str, ...] = ()


def judge(seen: Iterable[Seen], watch: Watch) -> list[Verdict]:
    """The processes of which there is something to say."""
    verdicts = []
    for each in seen:
        found = _judge(each, watch)
        if found is not None:
            verdicts.append(found)
    return verdicts


def _judge(seen: Seen, watch: Watch) -> Verdict | None:
    report = seen.report
    if not seen.alive:
        return Verdict("dead", report, "its process is gone")
    steady = watch.now - watch.since >= watch.patience
    overdue = [
        each
        for each in report.executing
        if each.hard is not None and watch.now - each.began >= each.hard + OWN_SECONDS
    ]
    if overdue and steady:
        longest = min(overdue, key=lambda each: each.began)
        return Verdict(
            "hung",
            report,
            f"run {longest.id} is {watch.now - longest.began:.0f} s old, its hard limit is "
            f"{longest.hard:g} s, and its process has not ended it",
            tuple(each.id for each in overdue),
        )
    if report.kind == "beat":
        return _judge_beat(report, watch, steady)
    if report.kind != "worker":
        return None  # A pool's child breathes through its parent.
    breathless = watch.now - report.pulse
    if report.executing and not seen.stopped:
        if breathless >= BREATHLESS_SECONDS and not overdue:
            return Verdict("vouched", report, "a task holds the interpreter, within its limit")
        return None
    if steady and breathless >= watch.patience:
        what = "it is stopped" if seen.stopped else "it executes nothing"
        why = f"none of its threads has run for {breathless:.0f} s, and {what}"
        return Verdict("silent", report, why)
    return None


def _judge_beat(report: Report, watch: Watch, steady: bool) -> Verdict | None:
    quiet = watch.now - report.tick
    heard = watch.database_since
    if (
        not steady
        or quiet < watch.patience
        or report.waiting_since
        or heard is None
        or watch.now - heard < watch.patience
    ):
        return None
    why = f"it has not ticked for {quiet:.0f} s, and the database answers"
    return Verdict("stalled", report, why)
