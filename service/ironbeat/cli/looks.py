"""One look at the suite for the live screen, and at the one thing that its operator opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from ironbeat.runs.ledger import Ledger
    from ironbeat.runs.model import Run
    from ironbeat.watch import Status, Waiting
    from ironbeat.watch.stores import Kept

WINDOW_SECONDS = 600
# So many runs and schedules one can scroll through.
RUNS_READ = 100
SCHEDULES_READ = 100


class Kind(StrEnum):
    """What can be opened."""

    QUEUE = "queue"
    PROCESS = "process"
    RUN = "run"
    SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to open: a queue or schedule by name, a run by id, a process by kind and name."""

    kind: Kind
    key: str


@dataclass(frozen=True, slots=True)
class Question:
    """What a look is asked for: runs with all of ``words`` in their names, and a target's own."""

    target: Target | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InLine:
    """A run that waits in a queue: as a message in the broker, in the ledger alone, or in both."""

    id: str
    task: str
    state: str
    since: datetime | None
    age_seconds: float | None
    schedule: str | None
    arguments: str | None


@dataclass(frozen=True, slots=True)
class Detail:
    """What there is to say of a target beyond what the status has. ``problem``: why not all."""

    target: Target
    run: Run | None = None
    waiting: tuple[InLine, ...] = ()
    running: tuple[Run, ...] = ()
    runs: tuple[Run, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """The suite as it was at ``seen.at``."""

    question: Question
    seen: Status
    runs: tuple[Run, ...] = ()
    detail: Detail | None = None
    problems: tuple[str, ...] = field(default=())


def take(question: Question) -> Look:
    """Look at the suite. What cannot be read is named in the answer instead of raised."""
    from ironbeat.cli.runs import ledger
    from ironbeat.runs.model import Filters, LedgerUnavailable
    from ironbeat.watch import status

    seen = status(
        window_seconds=WINDOW_SECONDS,
        schedule_limit=SCHEDULES_READ,
        failure_limit=5,
        connect=_kept().database,
    )
    detail = Detail(question.target) if question.target else None
    if not seen.database:
        return Look(question, seen, (), detail)
    try:
        book = ledger()
        if question.target is None:
            runs = book.find(Filters(names=question.words, limit=RUNS_READ))
            return Look(question, seen, tuple(runs))
        return Look(question, seen, (), _detail(book, question.target, question.words, seen))
    except LedgerUnavailable as error:
        return Look(question, seen, (), detail, (str(error),))


@cache
def _kept() -> Kept:
    from ironbeat.watch.stores import Kept

    return Kept()


def _detail(book: Ledger, target: Target, words: tuple[str, ...], seen: Status) -> Detail:
    from ironbeat.runs.model import Filters, RunNotFound

    if target.kind is Kind.RUN:
        try:
            return Detail(target, run=book.get(target.key))
        except RunNotFound:
            return Detail(
                target,
                problem="The ledger does not have it: a message that was not submitted durably is"
                " entered when a worker takes it, and ended runs are kept for `history_days`.",
            )
    running, waiting = ("running",), ("pending", "published", "retrying")

    def found(**conditions: Any) -> tuple[Run, ...]:
        return tuple(book.find(Filters(names=words, limit=RUNS_READ, **conditions)))

    if target.kind is Kind.QUEUE:
        messages, problem = _messages(target.key, seen)
        return Detail(
            target,
            waiting=in_line(messages, found(queue=target.key, states=waiting), seen.at),
            running=found(queue=target.key, states=running),
            problem=problem,
        )
    if target.kind is Kind.SCHEDULE:
        return Detail(target, runs=found(schedule=target.key))
    name = target.key.partition(" ")[2]
    latest = found(worker=name)
    return Detail(
        target,
        running=found(worker=name, states=running),
        runs=tuple(run for run in latest if run.state != "running"),
    )


def _messages(queue: str, seen: Status) -> tuple[Sequence[Waiting], str | None]:
    """The messages that are next in line in the broker, or why they could not be read."""
    from ironbeat.settings import get_settings
    from ironbeat.watch.queues import next_messages
    from ironbeat.watch.stores import BROKER_ERRORS, broker

    if seen.broker is None:
        return (), None
    try:
        with broker(get_settings()) as client:
            return next_messages(client, queue, RUNS_READ), None
    except BROKER_ERRORS as error:
        return (), f"Redis: {error}"


def in_line(messages: Iterable[Waiting], runs: Iterable[Run], now: datetime) -> tuple[InLine, ...]:
    """The broker's messages in their order, then the runs that wait and are no message yet. Pure.

    A message whose run the ledger has shows that run's state and times.
    """
    known = {run.id: run for run in runs}
    found = []
    for message in messages:
        run = known.pop(message.id, None)
        since = run.created_at if run else None
        found.append(
            InLine(
                message.id,
                message.task,
                run.state if run else "message",
                since,
                message.age_seconds,
                message.schedule,
                message.argsrepr,
            )
        )
    for run in sorted(known.values(), key=lambda run: run.created_at):
        age = (now - run.created_at).total_seconds()
        arguments = f"{run.argsrepr or '()'} {run.kwargsrepr or '{}'}"
        found.append(
            InLine(run.id, run.task, run.state, run.created_at, age, run.schedule_name, arguments)
        )
    return tuple(found)
