"""How a task's message leaves this process: broker first, or ledger first.

Every message of a task passes here, whether it was sent by ``delay``, a chain, ``retry`` or
:class:`ironbeat.TaskManager`; the hook is the producer that Celery's sender publishes with.

* A plain task goes to the broker and is noted for the ledger, in batches. A broker that does not
  take it within a bounded time does not make the caller wait or fail: the message goes to the
  ledger's outbox instead (unless ``submit_to_ledger_when_broker_is_down`` is off).
* A durable one is committed to the ledger first, and published then. Whatever dies in between, the
  outbox still has it.
* A message for one of RQ's queues (``rq:NAME``) goes to the ledger first, always, and is published
  to RQ then (:mod:`ironbeat.execution.rq_carrier`); one that is due later waits in the ledger.
* A message that carries the id of the run which is executing is a retry or a replacement. It is
  always committed first, because Celery turns a retry that cannot be published into a rejection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from celery._state import get_current_task
from kombu.exceptions import BatchPublishError, OperationalError
from kombu.utils.json import dumps as kombu_dumps
from redis.exceptions import RedisError

from ironbeat.capacity import Capacity
from ironbeat.execution import attempt, events, header, publishing, runtime
from ironbeat.execution.rq_carrier import RQCarrier, carries
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import LedgerUnavailable, NewRun, Outcome
from ironbeat.runs.recorder import Recorder

logger = logging.getLogger(__name__)

BROKER_ERRORS: tuple[type[BaseException], ...] = (
    OperationalError,
    BatchPublishError,
    RedisError,
    OSError,
)

# The submitter publishes at once; only if it died does the outbox, after this long.
GRACE_SECONDS = 3.0
# A durable run that is due later than this waits in the ledger and not in a worker's memory.
HOLD_ETA_SECONDS = 30.0
# Messages of plain submissions that the ledger keeps beside the broker, until their runs end.
NOTED_BYTES = 64 * 1024
# What may be said of a message that goes the short way: the ledger's form of it says as much.
_PLAIN = frozenset(
    (
        *("exchange", "routing_key", "serializer", "compression", "delivery_mode", "declare"),
        *("headers", "retry", "retry_policy", "timeout", "confirm_timeout"),
        *("correlation_id", "reply_to", "priority"),
    )
)
# A failure that comes sooner than this is a refusal or a stale connection, not a broker that hangs.
STALE_SECONDS = 0.5


class NotAccepted(ConnectionError):
    """Neither the broker nor the ledger could take a task; it was not submitted."""


@dataclass(frozen=True, slots=True)
class Sending:
    """What the caller of ``send_task`` said, for the message it leads to.

    ``capture`` collects the run instead of handing it over; ``durable`` overrides the task.
    """

    durable: bool = False
    has_own_id: bool = False
    capture: list[NewRun] | None = None


SENDING: ContextVar[Sending] = ContextVar("ironbeat_sending", default=Sending())  # noqa: B039 (frozen)


class Breaker:
    """Remembers for a moment that the broker does not answer, so that nobody else waits for it."""

    def __init__(self, pause: float = 1.0) -> None:
        self._pause = pause
        self._until = 0.0

    @property
    def open(self) -> bool:
        """Whether the broker was found dead just now."""
        return time.monotonic() < self._until

    def trip(self, seconds: float | None = None) -> None:
        """The broker did not take a message, or is known to be gone for ``seconds`` more."""
        until = time.monotonic() + (self._pause if seconds is None else seconds)
        self._until = max(self._until, until)

    def reset(self) -> None:
        """The broker took a message."""
        self._until = 0.0


class WorkloadOf(Protocol):
    """Names the workload of a task."""

    def __call__(self, task: str) -> str:
        """The workload's name, or the empty text."""
        ...


class Submission:
    """Hands the messages of one application over."""

    def __init__(
        self,
        ledger: Ledger,
        recorder: Recorder,
        workload_of: WorkloadOf,
        *,
        rq: RQCarrier,
        capacity: Capacity | None = None,
        use_broker: bool = True,
        to_ledger_when_down: bool = True,
    ) -> None:
        self.ledger = ledger
        self.recorder = recorder
        self.workload_of = workload_of
        self.rq = rq
        self.capacity = capacity
        self.use_broker = use_broker
        self.to_ledger_when_down = to_ledger_when_down
        self.breaker = Breaker()

    @property
    def grace(self) -> float:
        """How long the outbox leaves a committed run to its submitter, who publishes it at once."""
        return GRACE_SECONDS if self.use_broker and not self.breaker.open else 0.0

    def producer(self, real: Any) -> SubmittingProducer:
        """A producer that Celery's sender can publish with."""
        return SubmittingProducer(real, self)

    def hand_over(self, real: Any, body: Any, publish: dict[str, Any]) -> None:
        """Take one task message: ``body`` and the keywords of ``Producer.publish``."""
        sending = SENDING.get()
        run, resent = self._describe(body, publish, sending)
        if sending.capture is not None:
            sending.capture.append(replace(run, message=message_json(body, publish)))
            return
        if resent is not None:
            self._resend(real, body, publish, run, resent)
            return
        if self.capacity is not None and not _goes_on():
            self.capacity.admit(run.queue)
        if run.durable or not self.use_broker or carries(run.queue):
            self._ledger_first(real, body, publish, run)
        else:
            self._broker_first(real, body, publish, run)

    # -- the ways ----------------------------------------------------------------------------------

    def _ledger_first(self, real: Any, body: Any, publish: dict[str, Any], run: NewRun) -> None:
        waits = hold_for(run.eta, run.queue)
        message = message_json(body, publish)
        at_once = not waits and self.may_publish(run.queue, 1, len(message))
        grace = GRACE_SECONDS if at_once else 0.0
        self.ledger.create([replace(run, message=message, publish_after=waits or grace)])
        if not at_once:
            return
        try:
            self._publish(real, body, publish, message)
        except BROKER_ERRORS as error:
            logger.warning("broker did not take run %s, the outbox has it: %s", run.id, error)
            self.hurry([run.id])
            return
        self.recorder.published([run.id])

    def may_publish(self, queue: str, number: int, size: int) -> bool:
        """Whether the broker may be given so many messages of ``size`` bytes in all."""
        if not self.use_broker or self.breaker.open:
            return False
        try:
            return self.capacity is None or self.capacity.may_publish(queue, number, size)
        except BROKER_ERRORS as error:
            self.breaker.trip()
            logger.warning("the broker does not say what it holds: %s", error)
            return False

    def _broker_first(self, real: Any, body: Any, publish: dict[str, Any], run: NewRun) -> None:
        message = message_json(body, publish)
        has_room = self.breaker.open or self.may_publish(run.queue, 1, len(message))
        if not has_room and not self.breaker.open:
            waits = hold_for(run.eta, run.queue) or 0.0
            self.ledger.create([replace(run, message=message, publish_after=waits)])
            return
        try:
            self._publish(real, body, publish, message)
        except BROKER_ERRORS as error:
            if not self.to_ledger_when_down:
                raise
            self._fall_back(replace(run, message=message), error)
            return
        # Should the broker lose it, the ledger has the message as well.
        self.recorder.note(replace(run, message=message) if len(message) <= NOTED_BYTES else run)

    def _fall_back(self, run: NewRun, error: BaseException) -> None:
        try:
            self.ledger.create([replace(run, publish_after=hold_for(run.eta, run.queue) or 0.0)])
        except ConnectionError as second:
            raise NotAccepted(
                f"task {run.task} was not submitted: the broker did not take it ({error}) and "
                f"neither did the ledger ({second})"
            ) from second
        logger.warning("broker did not take run %s, it waits in the ledger: %s", run.id, error)

    def _resend(
        self, real: Any, body: Any, publish: dict[str, Any], run: NewRun, number: int
    ) -> None:
        """A retry or a replacement of the run that is executing, whose attempt is ``number``."""
        request = get_current_task().request
        error = attempt.retry_reason(request)
        outcome = Outcome(
            run.id,
            number,
            "retrying",
            error=attempt.describe(error) if error else None,
            traceback=attempt.format_traceback(error) if error else None,
            retries=run.retries,
            replacements=run.replacements,
            eta=run.eta,
        )
        message = message_json(body, publish)
        waits = hold_for(run.eta, run.queue)
        try:
            self.ledger.reschedule(outcome, message, waits or self.grace)
        except LedgerUnavailable as problem:
            # Nothing can begin without the ledger: the retry waits for it, in the spool.
            logger.warning("retry of run %s waits for the ledger: %s", run.id, problem)
            attempt.mark_resent(request, run.retries, run.replacements, recorded=True)
            outcome.message = message
            self.recorder.outcome(outcome, attempt.claim_of(request))
            return
        attempt.mark_resent(request, run.retries, run.replacements, recorded=True)
        if waits or not self.use_broker:
            return
        try:
            self._publish(real, body, publish, message)
        except BROKER_ERRORS as problem:
            logger.warning("broker did not take the retry of run %s: %s", run.id, problem)
            self.hurry([run.id])
            return
        self.recorder.published([run.id])

    def hurry(self, ids: Sequence[str]) -> None:
        """The broker did not take these committed runs: let whoever can have them run at once."""
        try:
            self.ledger.not_published(ids)
        except LedgerUnavailable as error:
            logger.debug("%d runs wait for their grace: %s", len(ids), error)

    def _publish(self, real: Any, body: Any, publish: dict[str, Any], message: str) -> None:
        if self.breaker.open:
            raise OperationalError("the broker did not answer a moment ago")
        if carries(publish.get("routing_key")):
            self._publish_to_rq(publish["headers"]["id"], message)
            return
        began = time.monotonic()
        try:
            _put(real, body, publish, message)
            return
        except BROKER_ERRORS:
            if time.monotonic() - began > STALE_SECONDS:
                self.breaker.trip()
                raise
        # A connection from the pool may have died while it lay there; a new one is worth a try.
        try:
            real.revive(real.connection.default_channel)
            _put(real, body, publish, message)
        except BROKER_ERRORS:
            self.breaker.trip()
            raise

    def _publish_to_rq(self, id: str, message: str) -> None:
        try:
            self.rq.publish([(id, message)])
        except BROKER_ERRORS:
            self.breaker.trip()
            raise

    # -- reading a message -------------------------------------------------------------------------

    def _describe(
        self, body: Any, publish: dict[str, Any], sending: Sending
    ) -> tuple[NewRun, int | None]:
        """The run a message stands for and, where it is the executing run again, its attempt."""
        headers = publish["headers"]
        current = get_current_task()
        request = current.request if current is not None else None
        number = None
        if request is not None and request.id == headers["id"] and not request.called_directly:
            number = attempt.attempt_of(request)
        own = header.read(request.__dict__) if request is not None else {}
        durable = sending.durable or (number is not None and bool(own.get("durable")))
        created_at = datetime.now(UTC)
        if own and (number is not None or sending.has_own_id):
            # The same id must always name the same partition, also when a copy sends it again.
            created_at = header.instant(own.get("created_at")) or created_at
        workload = self.workload_of(headers["task"])
        headers[header.NAME] = header.make(created_at, durable=durable, workload=workload)
        queue = publish.get("routing_key") or "default"
        run = NewRun(
            id=headers["id"],
            task=headers["task"],
            created_at=created_at,
            queue=queue,
            workload=workload,
            priority=publish.get("priority"),
            durable=durable,
            parent_id=headers.get("parent_id"),
            root_id=headers.get("root_id"),
            group_id=headers.get("group"),
            eta=header.instant(headers.get("eta")),
            expires_at=header.instant(headers.get("expires")),
            retries=headers.get("retries") or 0,
            replacements=headers.get("replaced_task_nesting") or 0,
            argsrepr=headers.get("argsrepr"),
            kwargsrepr=headers.get("kwargsrepr"),
        )
        return run, number


class SubmittingProducer:
    """What Celery's sender sees as its producer: task messages go through :class:`Submission`."""

    def __init__(self, real: Any, submission: Submission) -> None:
        self._real = real
        self._submission = submission

    def publish(self, body: Any, **publish: Any) -> Any:
        """Hand a task's message over; anything else (events) is published when that is possible."""
        headers = publish.get("headers") or {}
        if "task" in headers and "id" in headers:
            return self._submission.hand_over(self._real, body, publish)
        return self._publish_event(body, publish)

    def _publish_event(self, body: Any, publish: dict[str, Any]) -> Any:
        submission = self._submission
        if (
            not submission.use_broker
            or submission.breaker.open
            or SENDING.get().capture is not None
        ):
            return None
        try:
            if events.unheard(self._real.channel, publish.get("routing_key") or ""):
                return None
            return self._real.publish(body, **publish)
        except BROKER_ERRORS:
            submission.breaker.trip()
            return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _goes_on() -> bool:
    """Whether a worker sends this because a task has ended: the next step of a chain, a callback.

    A task that submits from its body is a submitter like any other.
    """
    current, active = get_current_task(), runtime.current()
    if current is None or active is None or current.request.called_directly:
        return False
    return current.request.id not in active.executing


def _put(real: Any, body: Any, publish: dict[str, Any], message: str) -> None:
    """Publish: the short way what is plain, with kombu's producer everything else."""
    if not (_is_plain(publish) and publishing.put_one(real, message)):
        real.publish(body, **publish | {"retry": False})


def _is_plain(publish: dict[str, Any]) -> bool:
    return (
        publish.keys() <= _PLAIN
        and publish.get("serializer") in (None, "json")
        and not publish.get("compression")
    )


def hold_for(eta: datetime | None, queue: str = "") -> float | None:
    """How long a run that is due later waits in the ledger, in seconds; ``None``: not at all.

    One that RQ carries waits there all the time: RQ's workers keep nothing for later.
    """
    if eta is None:
        return None
    seconds = (eta - datetime.now(UTC)).total_seconds()
    if carries(queue):
        return seconds if seconds > 0 else None
    return seconds - HOLD_ETA_SECONDS / 2 if seconds > HOLD_ETA_SECONDS else None


def message_json(body: Any, publish: dict[str, Any]) -> str:
    """A task's message as the ledger keeps it, as JSON text."""
    properties = {
        name: publish[name]
        for name in ("correlation_id", "reply_to", "priority", "expiration")
        if publish.get(name) is not None
    }
    return kombu_dumps(
        {
            "body": list(body),
            "headers": publish["headers"],
            "properties": properties,
            "exchange": exchange_name(publish.get("exchange")),
            "routing_key": publish.get("routing_key") or "default",
        }
    )


def exchange_name(exchange: Any) -> str:
    """The name of an exchange given as text or as an object."""
    return exchange if isinstance(exchange, str) else getattr(exchange, "name", "") or ""
