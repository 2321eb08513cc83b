"""HybridTaskManager: a workload's tasks over two carriers, RQ and Celery, by a ratio.

Both carry the same runs: the ledger knows each by one id, whichever queue it waits in, so status,
result and cancellation are :class:`ironbeat.TaskManager`'s. A run that both have (because it was
moved, or submitted twice) passes the guard once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ironbeat.access import audit
from ironbeat.dispatch.manager import Forms, Submit, TaskManager
from ironbeat.dispatch.ratio import StoredRatio, checked, goes_to_celery
from ironbeat.execution.rq_carrier import PREFIX, carries, own_name
from ironbeat.runs.model import NewRun, Run, RunNotFound
from ironbeat.submission import GRACE_SECONDS

Side = Literal["celery", "rq"]

KEY_WINDOW_SECONDS = 86400.0
MOVED_AT_ONCE = 500
# What was handed over just now is marked in a moment, or due in the outbox after three seconds.
MOVING_SECONDS = 15.0

# The words that Celery's AsyncResult has for what the ledger calls otherwise.
STATES: Mapping[str, str] = {
    "pending": "PENDING",
    "published": "PENDING",
    "running": "STARTED",
    "retrying": "RETRY",
    "succeeded": "SUCCESS",
    "failed": "FAILURE",
    "dead": "FAILURE",
    "cancelled": "REVOKED",
    "expired": "REVOKED",
    "skipped": "IGNORED",
}


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task that was handed over: its run's ``id``, and the side that carries it."""

    id: str
    side: Side
    _look: Callable[[str], Run] = field(repr=False, compare=False)

    @property
    def state(self) -> str:
        """How it stands, in Celery's words: ``PENDING``, ``STARTED``, ``PROGRESS``, ``SUCCESS`` …

        The ledger is asked each time, so a run moved to the other side is followed there.
        """
        try:
            run = self._look(self.id)
        except RunNotFound:
            return "PENDING"
        if run.state == "running" and run.progress:
            return "PROGRESS"
        return STATES[run.state]


@dataclass(frozen=True, slots=True)
class Call:
    """One task for :meth:`HybridTaskManager.submit_tasks`.

    ``key`` decides the side and makes repeated submissions one: a call with the key of a run that
    waits, runs or succeeded within a day returns that run, unless ``again`` differs.
    """

    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    again: str | int = 0


class HybridTaskManager:
    """Hands tasks to Celery and to RQ.

    ``use_celery_ratio`` is the share for Celery while none is stored in the database; where the
    setting ``use_celery`` is on it is 1. A ratio that somebody stored (:attr:`use_celery_ratio`
    set, ``ironbeat documents ratio``, ``fab canary``) holds for everybody.
    """

    def __init__(
        self, use_celery_ratio: float = 0.0, *, workload: str = "documents", app: Any = None
    ) -> None:
        self.tasks = TaskManager(app)
        settings = self.tasks.app.ironbeat.settings
        self._url = settings.database_url.get_secret_value()
        otherwise = 1.0 if settings.use_celery else checked(use_celery_ratio)
        self._workload = workload
        self._ratio = StoredRatio(workload, otherwise, self._url)

    # -- the ratio --------------------------------------------------------------------------------

    @property
    def use_celery_ratio(self) -> float:
        """The share that goes to Celery now; setting it sets it for everybody."""
        return self._ratio.get()

    @use_celery_ratio.setter
    def use_celery_ratio(self, ratio: float) -> None:
        self._ratio.set(ratio)

    def set_ratio(self, ratio: float) -> float:
        """Store the ratio; returns the one before. Raises :class:`ValueError` outside 0 to 1.

        Who did that on a host or a laptop stands in the audit.
        """
        wanted = checked(ratio)
        who = audit.Actor(audit.somebody(), "cli")
        with audit.noted(self._url, who, "ratio.set", self._workload, {"ratio": wanted}) as note:
            before = note.detail["before"] = self._ratio.set(wanted)
            return before

    def side_of(self, key: str) -> Side:
        """Where a task with this key goes now."""
        return "celery" if goes_to_celery(key, self._ratio.get()) else "rq"

    # -- submitting -------------------------------------------------------------------------------

    def submit_task(
        self, task: str, *args: Any, key: str | None = None, use_celery: bool = False, **kwargs: Any
    ) -> Submitted:
        """Submit one task, durably.

        ``key`` (default: the argument ``chunk_id``, or else the first one) decides the side;
        ``use_celery`` sends it to Celery whatever the ratio. Raises what
        :meth:`ironbeat.TaskManager.submit` raises.
        """
        named = key if key is not None else kwargs.get("chunk_id", args[0] if args else task)
        call = Call(task, args, kwargs, str(named))
        return self.submit_tasks([call], use_celery=use_celery)[0]

    def submit_tasks(
        self, calls: Iterable[Call], *, use_celery: bool = False, goes_on: bool = False
    ) -> list[Submitted]:
        """Submit many tasks, in one commit, and publish them in one round trip for each side.

        All are checked before any is written. Raises what :meth:`submit_task` does; a queue's cap
        holds for either side of it, and where one is reached nothing is written. ``goes_on``: a
        step of something that was let in before, which caps do not stop.
        """
        ratio = 1.0 if use_celery else self._ratio.get()
        forms: Forms = {}
        runs = [self._prepared(call, ratio, forms) for call in calls]
        found = self.tasks.hand_over_once(runs, window=KEY_WINDOW_SECONDS, goes_on=goes_on)
        return [
            Submitted(id, "rq" if carries(run.queue) else "celery", self.tasks.status)
            for run, id in zip(runs, found, strict=True)
        ]

    def _prepared(self, call: Call, ratio: float, forms: Forms) -> NewRun:
        run = self.tasks.prepare(Submit(call.task, call.args, call.kwargs), forms)
        if not goes_to_celery(call.key or run.id, ratio):
            carried = Submit(call.task, call.args, call.kwargs, queue=PREFIX + run.queue)
            run = self.tasks.prepare(carried, forms)
        key = f"{call.task}:{call.key}:{call.again}" if call.key else None
        return replace(run, idempotency_key=key)

    # -- following and changing -------------------------------------------------------------------

    def status(self, id: str) -> Run:
        """The run, whichever side carries it. Raises :class:`ironbeat.runs.model.RunNotFound`."""
        return self.tasks.status(id)

    def result(self, id: str, timeout: float | None = 10.0) -> Any:
        """Its result; as :meth:`ironbeat.TaskManager.result`."""
        return self.tasks.result(id, timeout)

    def progress(self, id: str) -> dict[str, Any] | None:
        """What it last said of itself."""
        return self.tasks.progress(id)

    def cancel(self, id: str, *, reason: str = "cancelled by hand") -> str:
        """Cancel it, waiting or running; as :meth:`ironbeat.TaskManager.cancel`."""
        return self.tasks.cancel(id, reason=reason)

    def move(self, queue: str, to: Side) -> list[str]:
        """Move what waits in ``queue`` (its plain name) to the other side; returns the runs' ids.

        What is being executed is left to end where it is. A run is published on its new side at
        once, and its message on the old one taken away where it still waits: should somebody have
        taken it already, the guard lets one of both proceed.
        """
        plain = own_name(queue)
        old, new = (PREFIX + plain, plain) if to == "celery" else (plain, PREFIX + plain)
        ledger, moved = self.tasks.ledger, list[str]()
        deadline = time.monotonic() + MOVING_SECONDS
        while True:
            attempts = ledger.reroute(old, new, limit=MOVED_AT_ONCE, grace=GRACE_SECONDS)
            if not attempts:
                if not ledger.movable_later(old) or time.monotonic() > deadline:
                    return moved
                time.sleep(0.1)
                continue
            self.tasks.withdraw(old, attempts)
            ids = [id for id, _, _ in attempts]
            self.tasks.republish(ids)
            moved += ids
