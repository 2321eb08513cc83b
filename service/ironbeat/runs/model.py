"""The values the ledger takes and returns. A run's id is its Celery task id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

State = Literal[
    "pending",
    "published",
    "running",
    "retrying",
    "succeeded",
    "failed",
    "cancelled",
    "skipped",
    "expired",
    "dead",
]

LIVE_STATES: frozenset[State] = frozenset({"pending", "published", "running", "retrying"})
ENDED_STATES: frozenset[State] = frozenset(
    {"succeeded", "failed", "cancelled", "skipped", "expired", "dead"}
)
# Ended without success, and worth an operator's look.
UNSUCCESSFUL_STATES: frozenset[State] = frozenset({"failed", "expired", "dead"})

Message = Mapping[str, Any]


class RunNotFound(LookupError):
    """No run has this id, neither among the live ones nor in the history that is kept."""


class LedgerUnavailable(ConnectionError):
    """PostgreSQL cannot be reached, so nothing could be committed to the ledger."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to be written to the ledger.

    ``message`` is the JSON text of what the broker will carry: ``body`` (``[args, kwargs,
    embed]``), ``headers``, ``properties``, ``exchange`` and ``routing_key``. ``publish_after``
    (seconds from now) is when the outbox publishes the run unless its submitter has done so;
    ``None`` holds it back until it is released.
    """

    id: str
    task: str
    created_at: datetime
    queue: str = "default"
    workload: str = ""
    priority: int | None = None
    durable: bool = False
    schedule_id: int | None = None
    schedule_name: str | None = None
    scheduled_for: datetime | None = None
    idempotency_key: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    group_id: str | None = None
    eta: datetime | None = None
    expires_at: datetime | None = None
    retries: int = 0
    replacements: int = 0
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    message: str | None = None
    publish_after: float | None = 0.0


# Made for every task; a frozen one takes three times as long to make.
@dataclass(slots=True)
class Claim:
    """A worker's wish to execute one delivered message.

    ``created_at`` comes with the message and says in which partition an earlier outcome would lie;
    it is ``None`` for a message that some other producer made.
    """

    id: str
    task: str
    created_at: datetime | None = None
    queue: str = "default"
    workload: str = ""
    priority: int | None = None
    durable: bool = False
    retries: int = 0
    replacements: int = 0
    eta: datetime | None = None
    expires_at: datetime | None = None
    parent_id: str | None = None
    root_id: str | None = None
    group_id: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None


Refusal = Literal["ended", "running", "superseded", "cancelled"]


# Made for every task; a frozen one takes three times as long to make.
@dataclass(slots=True)
class Verdict:
    """What the ledger says to a :class:`Claim`.

    ``attempt`` is the fencing token of an execution that may proceed and ``None`` for one that may
    not; then ``refusal`` says why: the run has ``ended`` (``state`` and ``result`` tell how), is
    ``running`` under a live lease, was ``superseded`` by a later retry or replacement, or was
    ``cancelled``. ``crashes`` counts how often a worker died with this run.
    """

    id: str
    attempt: int | None
    crashes: int = 0
    refusal: Refusal | None = None
    state: State | None = None
    result: Any = None
    error: str | None = None


# Made for every task; a frozen one takes three times as long to make.
@dataclass(slots=True)
class Outcome:
    """How one attempt ended.

    ``runtime`` is its duration in seconds, ``age`` how many seconds ago it ended: the database's
    clock gives the instants. ``retrying`` outcomes carry the next ``retries``/``replacements``
    and the ``eta``. ``result`` is JSON text. ``message`` is what was delivered, of a run that did
    not succeed and whose message the ledger may not have: it can be replayed then.
    """

    id: str
    attempt: int
    state: State
    runtime: float = 0.0
    age: float = 0.0
    result: str | None = None
    error: str | None = None
    traceback: str | None = None
    reason: str | None = None
    retries: int | None = None
    replacements: int | None = None
    eta: datetime | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the ledger, live or ended, as it is read back."""

    id: str
    created_at: datetime
    task: str
    workload: str
    queue: str
    priority: int | None
    state: State
    durable: bool
    schedule_id: int | None
    schedule_name: str | None
    scheduled_for: datetime | None
    idempotency_key: str | None
    parent_id: str | None
    root_id: str | None
    group_id: str | None
    eta: datetime | None
    expires_at: datetime | None
    publish_at: datetime | None
    published_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    attempt: int
    retries: int
    replacements: int
    crashes: int
    lease_id: str | None
    worker: str | None
    argsrepr: str | None
    kwargsrepr: str | None
    message: Any
    progress: Any
    result: Any
    error: str | None
    traceback: str | None
    reason: str | None
    attempts: Any
    cancel_requested_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether the run has its one outcome."""
        return self.state in ENDED_STATES

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took, once it ended."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Filters:
    """Which runs to list: every condition given must hold. Times bound ``created_at``.

    ``text`` is looked for in what a run was about (task, arguments, error); each of ``names`` in
    what it is called by: its id, task, queue, worker, schedule or state.
    """

    state: State | None = None
    states: tuple[State, ...] = ()
    task: str | None = None
    schedule: str | None = None
    workload: str | None = None
    queue: str | None = None
    worker: str | None = None
    text: str | None = None
    names: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    parent_id: str | None = None
    group_id: str | None = None
    before: tuple[datetime, str] | None = None
    limit: int = 50

    def wanted_states(self) -> tuple[State, ...]:
        """The states asked for, from either field."""
        return (*((self.state,) if self.state else ()), *self.states)
