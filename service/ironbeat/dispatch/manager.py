"""TaskManager: durable submission, and everything one asks of a run afterwards."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, cast
from uuid import uuid4

import orjson
import psycopg
from celery.exceptions import TimeoutError as ResultTimeout
from kombu.exceptions import EncodeError
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from ironbeat import database, queries
from ironbeat.capacity import Capacity, QueueFull
from ironbeat.dispatch import template
from ironbeat.execution import deliveries
from ironbeat.execution.attempt import RunFailed
from ironbeat.execution.rq_carrier import Attempt, carries, own_name
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import LedgerUnavailable, NewRun, Run, RunNotFound
from ironbeat.runs.replay import again
from ironbeat.submission import BROKER_ERRORS, SENDING, Sending, hold_for

logger = logging.getLogger(__name__)

SQL = queries.load("ironbeat.dispatch", "idempotency.sql")

# A message goes through Redis, PostgreSQL and logs; what is larger belongs into a table or a file.
MAX_ARGUMENT_BYTES = 1024 * 1024
# What one commit of `submit_many` may hold.
BATCH_BYTES = 8 * 1024 * 1024
_POLL_SECONDS = 0.05
_POLL_SECONDS_MOST = 0.5


# A template for each kind of submission: task, queue, priority; ``None`` where there can be none.
Forms = dict[tuple[str, str | None, int | None], template.Template | None]


class TaskRejected(ValueError):
    """A submission that cannot be carried out as asked; nothing was written or sent."""


@dataclass(frozen=True, slots=True)
class Submit:
    """One submission of :meth:`TaskManager.submit_many`; the fields are those of ``submit``."""

    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    priority: int | None = None
    countdown: float | None = None
    eta: datetime | None = None
    expires: float | datetime | None = None


class TaskManager:
    """Submits tasks and follows their runs.

    A submission that returned is committed to the ledger: whatever dies next, the run is published,
    executed, and ends once. ``app`` is the platform's or an adopted application.
    """

    def __init__(self, app: Any = None) -> None:
        if app is None:
            from ironbeat.app import current_app

            app = current_app()
        self.app = app

    @property
    def ledger(self) -> Ledger:
        """The ledger that the application writes to."""
        return cast("Ledger", self.app.ironbeat.ledger)

    # -- submitting --------------------------------------------------------------------------------

    def submit(
        self,
        task: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        queue: str | None = None,
        priority: int | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        idempotency_key: str | None = None,
        idempotency_window: float = 86400.0,
        session: Session | None = None,
        connection: psycopg.Connection[Any] | None = None,
    ) -> str:
        """Submit a task durably; returns its run's id.

        ``countdown``, ``expires`` and ``idempotency_window`` are seconds. With an
        ``idempotency_key``, a repeated submission inside the window returns the first run's id and
        submits nothing. With the caller's ``session`` or ``connection`` the run is committed with
        the caller's data, or not at all, and published afterwards.

        Raises :class:`TaskRejected` for an unknown task, arguments that do not fit its signature,
        are no JSON or are too large, :class:`ironbeat.QueueFull` when as many runs wait in the
        queue as may, and :class:`LedgerUnavailable` when nothing could be committed.
        """
        asked = Submit(task, args, kwargs or {}, queue, priority, countdown, eta, expires)
        run = replace(self.prepare(asked), idempotency_key=idempotency_key)
        self._capacity.admit(run.queue)
        if session is not None:
            connection = cast(
                "psycopg.Connection[Any]", session.connection().connection.driver_connection
            )
        if connection is not None:
            id = self._commit(connection, run, idempotency_window)
            if id == run.id and session is not None:
                event.listen(session, "after_commit", lambda _: self.publish([run]), once=True)
            return id
        if idempotency_key is None:
            self._hand_over([run])
            return run.id
        try:
            with database.connection(self._url) as pooled, pooled.transaction():
                id = self._commit(pooled, run, idempotency_window)
        except psycopg.OperationalError as error:
            raise LedgerUnavailable(f"PostgreSQL cannot be reached: {error}") from error
        if id == run.id:
            self.publish([run])
        return id

    def submit_many(self, submissions: Iterable[Submit], *, batch: int = 1000) -> list[str]:
        """Submit many tasks durably, a batch to a commit; returns their ids in order.

        ``submissions`` may be a generator: no more than a batch of it is in memory, and of large
        arguments no more than ``BATCH_BYTES``. All submissions of a batch are checked before any
        of it is written. Raises as :meth:`submit` does; :class:`ironbeat.QueueFull` then carries
        the ids of the batches before in ``submitted``.
        """
        ids: list[str] = []
        forms: Forms = {}
        waiting: list[NewRun] = []
        size = 0
        # One batch is committed while the next one is prepared.
        with ThreadPoolExecutor(1, thread_name_prefix="submit") as committing:
            before: Future[None] | None = None
            for asked in submissions:
                waiting.append(self.prepare(asked, forms))
                size += len(waiting[-1].message or "")
                if len(waiting) >= batch or size >= BATCH_BYTES:
                    if before is not None:
                        before.result()
                    before = committing.submit(self._submit_batch, waiting, ids)
                    waiting, size = [], 0
            if before is not None:
                before.result()
            self._submit_batch(waiting, ids)
        return ids

    def enlist(
        self, connection: psycopg.Connection[Any], submissions: Sequence[Submit]
    ) -> list[NewRun]:
        """Write the runs of these in the caller's transaction: committed with it, or not at all.

        Hand what is returned to :meth:`publish` once that is committed; whoever dies in between
        leaves it to the outbox. Raises as :meth:`submit` does, with nothing written.
        """
        runs = [self.prepare(asked) for asked in submissions]
        self._admit(runs)
        self.ledger.create(runs, connection=connection)
        return runs

    def _submit_batch(self, runs: list[NewRun], ids: list[str]) -> None:
        try:
            self._admit(runs)
        except QueueFull as error:
            error.submitted = ids
            raise
        if runs:
            self._hand_over(runs)
        ids += [run.id for run in runs]

    def _admit(self, runs: Sequence[NewRun]) -> None:
        for queue, number in Counter(run.queue for run in runs).items():
            self._capacity.admit(queue, number)

    @property
    def _capacity(self) -> Capacity:
        return cast("Capacity", self.app.ironbeat.capacity)

    def _commit(self, connection: psycopg.Connection[Any], run: NewRun, window: float) -> str:
        """Write the run in the caller's transaction, unless its key is another run's."""
        if run.idempotency_key is not None:
            parameters = {"key": run.idempotency_key, "run_id": run.id, "window": window}
            if connection.execute(SQL["take"], parameters).fetchone() is None:
                row = connection.execute(SQL["holder"], parameters).fetchone()
                if row is None:
                    raise TaskRejected(f"idempotency key {run.idempotency_key!r} just expired")
                return str(row[0])
        self.ledger.create([run], connection=connection)
        return run.id

    def prepare(self, asked: Submit, forms: Forms | None = None) -> NewRun:
        """Check a submission and build its run with its message; touches no store.

        ``forms`` keeps a template of each kind of submission for the next ones. Raises
        :class:`TaskRejected`.
        """
        task = self._task(asked)
        run = self._fill_in(task, asked, forms) if forms is not None else self._make(task, asked)
        size = len(run.message or "")
        if size > MAX_ARGUMENT_BYTES:
            raise TaskRejected(
                f"the arguments of {asked.task!r} take {size} bytes; at most {MAX_ARGUMENT_BYTES} "
                "are carried. Store the data in a table or a file and pass its key."
            )
        return run

    def _fill_in(self, task: Any, asked: Submit, forms: Forms) -> NewRun:
        """The run of a submission, from the template of its kind where there can be one."""
        kind = (asked.task, asked.queue, asked.priority)
        timed = not (asked.countdown is None and asked.eta is None and asked.expires is None)
        form = None if timed else forms.get(kind)
        if form is not None:
            try:
                return form.run(asked.args, asked.kwargs)
            except (EncodeError, TypeError, ValueError) as error:
                raise TaskRejected(f"task {asked.task!r} cannot be submitted: {error}") from error
        run = self._make(task, asked)
        if not timed and kind not in forms:
            cut = template.can_be_cut(self.app, task)
            forms[kind] = template.Template(self.app, run) if cut else None
        return run

    def _task(self, asked: Submit) -> Any:
        """The task that is asked for, whose signature the arguments fit."""
        task = self.app.tasks.get(asked.task)
        if task is None:
            # A program that only submits has not imported the task modules yet.
            self.app.loader.import_default_modules()
            task = self.app.tasks.get(asked.task)
        if task is None:
            known = ", ".join(sorted(n for n in self.app.tasks if not n.startswith("celery.")))
            raise TaskRejected(f"no task is named {asked.task!r}; registered are: {known}")
        check_arguments(task, asked.args, asked.kwargs)
        if asked.queue is not None and own_name(asked.queue) not in self.app.amqp.queues:
            known = ", ".join(sorted(self.app.amqp.queues))
            raise TaskRejected(
                f"no queue is named {asked.queue!r}; there are: {known} (of RQ: rq:NAME)"
            )
        return task

    def _make(self, task: Any, asked: Submit) -> NewRun:
        """The run that Celery's own sender makes of a submission."""
        captured: list[NewRun] = []
        token = SENDING.set(Sending(durable=True, capture=captured))
        options = {
            name: value
            for name in ("queue", "priority", "countdown", "eta", "expires")
            if (value := getattr(asked, name)) is not None
        }
        try:
            task.apply_async(tuple(asked.args), dict(asked.kwargs), task_id=str(uuid4()), **options)
        except (EncodeError, TypeError, ValueError) as error:
            raise TaskRejected(f"task {asked.task!r} cannot be submitted: {error}") from error
        finally:
            SENDING.reset(token)
        [run] = captured
        return replace(
            run, publish_after=hold_for(run.eta, run.queue) or self.app.ironbeat.submission.grace
        )

    def hand_over_once(
        self, runs: Sequence[NewRun], *, window: float, goes_on: bool = False
    ) -> list[str]:
        """Commit prepared runs together, but those whose key another run holds, and publish them.

        Returns for each run the id of the one that holds its key: its own where it is new. A key is
        held for ``window`` seconds, and no longer by a run that ended without success. ``goes_on``:
        caps do not hold for these. Raises :class:`ironbeat.QueueFull` and
        :class:`LedgerUnavailable`, with nothing written.
        """
        if not runs:
            return []
        try:
            with database.connection(self._url) as connection, connection.transaction():
                holders = _take_keys(connection, runs, window)
                ids = [holders.get(run.idempotency_key or "", run.id) for run in runs]
                new = [run for run, id in zip(runs, ids, strict=True) if run.id == id]
                if not goes_on:
                    self._admit(new)
                committed, at_once = self._with_room(new)
                self.ledger.create(committed, connection=connection)
        except (psycopg.OperationalError, psycopg.InterfaceError, SQLAlchemyError) as error:
            raise LedgerUnavailable(f"PostgreSQL cannot be reached: {error}") from error
        self.publish(at_once)
        return ids

    def _hand_over(self, runs: Sequence[NewRun]) -> None:
        """Commit runs, and publish those the broker has room for; the outbox has the others."""
        committed, at_once = self._with_room(runs)
        self.ledger.create(committed)
        self.publish(at_once)

    def _with_room(self, runs: Sequence[NewRun]) -> tuple[list[NewRun], list[NewRun]]:
        """Runs as they are to be committed, and those of them that the broker has room for."""
        submission = self.app.ironbeat.submission
        numbers = Counter(run.queue for run in runs)
        sizes: Counter[str] = Counter()
        for run in runs:
            sizes[run.queue] += len(run.message or "")
        full = {q for q, n in numbers.items() if not submission.may_publish(q, n, sizes[q])}
        committed = [
            replace(run, publish_after=hold_for(run.eta, run.queue) or 0.0)
            if run.queue in full
            else run
            for run in runs
        ]
        return committed, [run for run in runs if run.queue not in full]

    def publish(self, runs: Sequence[NewRun]) -> None:
        """Hand committed runs to the broker; what it does not take stays in the outbox."""
        submission = self.app.ironbeat.submission
        due = [run for run in runs if hold_for(run.eta, run.queue) is None]
        if not due or not submission.use_broker or submission.breaker.open:
            return
        try:
            self.app.ironbeat.publish([(run.id, run.message or "") for run in due])
        except BROKER_ERRORS as error:
            submission.breaker.trip()
            logger.warning("%s runs wait in the outbox: %s", len(due), error)
            submission.hurry([run.id for run in due])
            return
        submission.recorder.published(run.id for run in due)

    def republish(self, ids: Sequence[str]) -> None:
        """Publish waiting runs now, from the ledger; what is not taken the outbox publishes.

        One that is marked as published is published, too: the mark may be of where it was before.
        """
        with suppress(RunNotFound):
            runs = [self.ledger.get(id) for id in ids]
            waiting = [
                run
                for run in runs
                if run.state in ("pending", "published")
                and run.message
                and not hold_for(run.eta, run.queue)
            ]
            submission = self.app.ironbeat.submission
            if not waiting or not submission.use_broker or submission.breaker.open:
                return
            try:
                self.app.ironbeat.publish([(run.id, run.message) for run in waiting])
            except BROKER_ERRORS as error:
                submission.breaker.trip()
                logger.warning("%s runs wait in the outbox: %s", len(waiting), error)
                return
            submission.recorder.published(run.id for run in waiting)

    def withdraw(self, queue: str, attempts: Sequence[Attempt]) -> int:
        """Take the messages of these runs out of a queue where they still wait; returns how many.

        Only for runs that are published elsewhere. A broker that does not answer keeps them: the
        guard drops them when they are taken.
        """
        context = self.app.ironbeat
        if not context.submission.use_broker:
            return 0
        try:
            if carries(queue):
                return int(context.rq.forget(queue, attempts))
            return deliveries.take_out(context.rq.client, queue, [id for id, _, _ in attempts])
        except BROKER_ERRORS as error:
            logger.warning("copies of %s moved runs stay in %s: %s", len(attempts), queue, error)
            return 0

    @property
    def _url(self) -> str:
        return cast("str", self.app.ironbeat.settings.database_url.get_secret_value())

    # -- following ---------------------------------------------------------------------------------

    def status(self, id: str) -> Run:
        """The run as the ledger has it. Raises :class:`ironbeat.runs.model.RunNotFound`."""
        return self.ledger.get(id)

    def progress(self, id: str) -> dict[str, Any] | None:
        """What a running task last said of itself."""
        return cast("dict[str, Any] | None", self.ledger.get(id).progress)

    def result(self, id: str, timeout: float | None = 10.0) -> Any:
        """Wait up to ``timeout`` seconds for the run's end and return its result.

        Raises :class:`celery.exceptions.TimeoutError` when it has not ended by then, and
        :class:`ironbeat.execution.attempt.RunFailed` when it ended without success.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _POLL_SECONDS
        while True:
            run = self._seen(id)
            if run is not None and run.ended:
                return self._value(run)
            if deadline is not None and time.monotonic() >= deadline:
                state = run.state if run is not None else "not known yet"
                raise ResultTimeout(f"run {id} is {state} after {timeout} s")
            time.sleep(pause)
            pause = min(_POLL_SECONDS_MOST, pause * 1.5)

    def _seen(self, id: str) -> Run | None:
        try:
            return self.ledger.get(id)
        except RunNotFound:
            return None

    def _value(self, run: Run) -> Any:
        if run.state != "succeeded":
            raise RunFailed(f"run {run.id} is {run.state}: {run.error or run.reason}")
        if run.result is not None:
            return run.result
        # Too large for the ledger, or ignored: the result backend has it while it lasts.
        return self.app.AsyncResult(run.id).result

    # -- changing ----------------------------------------------------------------------------------

    def cancel(self, id: str, *, reason: str = "cancelled by hand") -> str:
        """Cancel a run, waiting or running; returns ``cancelled``, ``stopping`` or its end state.

        A running attempt is interrupted by its worker within a lease's renewal (2 s by default).
        Raises :class:`ironbeat.runs.model.RunNotFound`.
        """
        if self.ledger.end([id], "cancelled", reason):
            return "cancelled"
        asked = self.ledger.request_cancel([id])
        run = self.ledger.get(id)
        if id in asked:
            if not carries(run.queue):
                self._interrupt(id, asked[id])
            return "stopping"
        return run.state

    def replay(self, id: str, *, succeeded_too: bool = False) -> str:
        """Run an ended run's task again with the same arguments; returns the new run's id.

        The new run names the old one as its parent, which stays as it ended. Raises
        :class:`ironbeat.runs.model.RunNotFound`, and :class:`ironbeat.runs.replay.NotReplayable`
        for a run that has not ended, that succeeded (unless ``succeeded_too``), or whose message
        is not kept.
        """
        run = again(self.ledger.get(id), id=str(uuid4()), succeeded_too=succeeded_too)
        self.ledger.create([run])
        self.publish([run])
        return run.id

    def _interrupt(self, id: str, worker: str | None) -> None:
        """Tell the worker at once; should the message not arrive, its lease's renewal does."""
        submission = self.app.ironbeat.submission
        if not submission.use_broker or submission.breaker.open or worker is None:
            return
        try:
            self.app.control.revoke(id, terminate=True, destination=[worker])
        except BROKER_ERRORS as error:
            logger.warning("cancellation of %s waits for the lease's renewal: %s", id, error)

    # -- the same for asyncio ----------------------------------------------------------------------

    async def asubmit(self, task: str, *args: Any, **options: Any) -> str:
        """:meth:`submit` without blocking the event loop."""
        return await asyncio.to_thread(self.submit, task, *args, **options)

    async def asubmit_many(self, submissions: Iterable[Submit]) -> list[str]:
        """:meth:`submit_many` without blocking the event loop."""
        return await asyncio.to_thread(self.submit_many, submissions)

    async def astatus(self, id: str) -> Run:
        """:meth:`status` without blocking the event loop."""
        return await asyncio.to_thread(self.status, id)

    async def aresult(self, id: str, timeout: float | None = 10.0) -> Any:
        """:meth:`result` without blocking the event loop."""
        return await asyncio.to_thread(self.result, id, timeout)

    async def acancel(self, id: str, *, reason: str = "cancelled by hand") -> str:
        """:meth:`cancel` without blocking the event loop."""
        return await asyncio.to_thread(self.cancel, id, reason=reason)


def _take_keys(
    connection: psycopg.Connection[Any], runs: Sequence[NewRun], window: float
) -> dict[str, str]:
    """Give runs the keys that nobody holds; returns for each key the run that holds it now."""
    wanted = {run.idempotency_key: run.id for run in reversed(runs) if run.idempotency_key}
    if not wanted:
        return {}

    def ask(query: str, keys: Iterable[str]) -> set[str]:
        rows = [{"key": key, "run_id": wanted[key]} for key in sorted(keys)]
        parameters = {"keys": orjson.dumps(rows).decode(), "window": window}
        return {row[0] for row in connection.execute(SQL[query], parameters).fetchall()}

    left = wanted.keys() - ask("take_many", wanted)
    left -= ask("take_over_many", left) if left else set()
    if not left:
        return wanted
    others = dict(connection.execute(SQL["holders"], {"keys": sorted(left)}).fetchall())
    if expired := left - others.keys():
        raise TaskRejected(f"idempotency key {min(expired)!r} just expired")
    return wanted | others


@lru_cache(maxsize=1024)
def _signature(body: Any) -> inspect.Signature:
    return inspect.signature(body)


def check_arguments(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise :class:`TaskRejected` unless the arguments fit the task's signature."""
    if isinstance(args, str | bytes) or not isinstance(args, Sequence):
        raise TaskRejected(f"args must be a list, not {type(args).__name__}")
    if not isinstance(kwargs, Mapping):
        raise TaskRejected(f"kwargs must be a mapping, not {type(kwargs).__name__}")
    signature = _signature(task.run)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TaskRejected(f"the arguments do not fit {task.name}{signature}: {error}") from error
