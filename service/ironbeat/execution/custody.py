"""What this process holds of a broker's messages, and the acknowledgements it owes.

A connection may break and a channel be replaced while a task runs, so neither can keep this: one
:class:`Custody` for each broker lives as long as the process. Threads share it: the one that
consumes, the pool's watchdog, and the one that renews.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any, Protocol
from uuid import uuid4
from weakref import WeakSet

import redis
from redis.exceptions import RedisError

from ironbeat.execution import deliveries
from ironbeat.execution.deliveries import Layout

logger = logging.getLogger(__name__)

# After the ledger or the broker refused, it is asked again this much later.
BACK_OFF_SECONDS = 0.5
BROKER_ERRORS = (RedisError, OSError)
# With more acknowledgements than this waiting for their outcomes, the consuming thread waits too.
MAX_UNWRITTEN = 500


@dataclass(slots=True)
class Delivery:
    """A message in this process's hands. ``payload`` is kombu's envelope, decoded."""

    tag: str
    queue: str
    key: str
    raw: bytes
    payload: dict[str, Any]

    @property
    def headers(self) -> dict[str, Any]:
        """The message's headers: ``id``, ``task``, ``retries``, …"""
        return self.payload.get("headers") or {}

    @property
    def id(self) -> str | None:
        """The task's id, if the message is a task's."""
        return self.headers.get("id")


class DeliveryHooks:
    """What the ledger wants to know about deliveries; this class knows nothing and does nothing.

    Called by the consuming thread, and but for ``on_batch`` by others too.
    """

    def on_batch(self, batch: Sequence[Delivery]) -> None:
        """These were taken from the broker and none of them has begun.

        What it raises is logged, and the batch runs all the same.
        """

    def before_ack(self) -> None:
        """Acknowledgements are about to be sent: whatever they stand for must be durable.

        If it raises they are kept and tried again; meanwhile their deliveries stay renewed.
        """

    def on_give_back(self, ids: Sequence[str]) -> None:
        """The messages of these tasks are about to return to their queues, for anybody to take.

        If it raises they stay here.
        """

    def on_lasting(self, id: str) -> None:
        """The task with this id has been running for a moment, and still does.

        Called again and again by the pool's watchdog while the task runs.
        """

    def on_forced_end(self, id: str, error: BaseException) -> None:
        """The task with this id is ended by force, and this process with it.

        ``error`` says why: its hard time limit, or a cancellation that it ignored. What it raises
        is logged; the process ends all the same.
        """


class Source(Protocol):
    """Who knows whether this worker's messages come from a broker or from the ledger."""

    drawing: bool

    def wait(self, seconds: float) -> None:
        """Wait until that changes, for at most so long."""
        ...


@dataclass
class Consumption:
    """How this process consumes; set by the worker's bootsteps before it does.

    ``lease``: the first part of its delivery tags; without one deliveries are not renewed, and
    become overdue as slowly as those of kombu's own consumers. ``inline``: messages run while they
    are handed over, so that batches may be sized by time. ``running``: tags of deliveries whose
    tasks go on when the channel closes. ``stopping``: nothing more may begin. ``scheduler``: who
    knows when the broker is gone; without one it is waited for.
    """

    lease: str | None = None
    hooks: DeliveryHooks = field(default_factory=DeliveryHooks)
    inline: bool = False
    running: Callable[[], Collection[str]] = tuple
    stopping: bool = False
    scheduler: Source | None = None

    def broker_lost(self) -> bool:
        """Whether it is known that the broker does not answer: nobody waits for it again."""
        return self.scheduler is not None and self.scheduler.drawing

    def broker_returned(self) -> bool:
        """Whether a worker that draws from the ledger shall go back to its broker."""
        return self.scheduler is not None and not self.scheduler.drawing


consumption = Consumption()

_custodies: dict[Any, Custody] = {}
_creating = threading.Lock()


def custody_of(broker: Any, make: Callable[[], Custody]) -> Custody:
    """The custody of this process for ``broker`` (any hashable name of it)."""
    with _creating:
        found = _custodies.get(broker)
        if found is None:
            found = _custodies[broker] = make()
        return found


def custodies() -> tuple[Custody, ...]:
    """Every custody of this process."""
    return tuple(_custodies.values())


class Custody:
    """The deliveries this process holds from one broker."""

    def __init__(self, client: redis.Redis, layout: Layout) -> None:
        self.client = client
        self.layout = layout
        self.channels: WeakSet[Any] = WeakSet()
        # Everything recorded as unacknowledged in Redis on our behalf, by tag. A delivery leaves
        # when its acknowledgement has been sent, not when it was given.
        self.held: dict[str, Delivery] = {}
        self.answered_at = monotonic()
        # Since when the broker has been reachable without a break.
        self.steady_since = monotonic()
        self._unnamed = f"consumer-{uuid4().hex}"
        self._fetches = count()
        self._acks: deque[str] = deque()
        self._first_ack_at: float | None = None
        # How many of the oldest acknowledgements stand for outcomes that are durable already.
        self._ready = 0
        # Held while the ledger is written, and only for a moment while acknowledgements move.
        self._taking = threading.Lock()
        self._counting = threading.Lock()
        self._wanted = threading.Event()
        self._preparer: threading.Thread | None = None
        self._held_back_until = 0.0
        self._lost: deque[str] = deque()
        self._clock: tuple[float, float] | None = None

    # -- taking ----------------------------------------------------------------------------------

    def next_prefix(self) -> str:
        """What the tags of the next fetch begin with."""
        return f"{consumption.lease or self._unnamed}.{next(self._fetches)}."

    def received(self, batch: Sequence[Delivery]) -> None:
        """These have just been taken, and are recorded in Redis."""
        for delivery in batch:
            self.held[delivery.tag] = delivery
        if batch:
            try:
                consumption.hooks.on_batch(batch)
            except Exception:
                logger.exception("while announcing a batch of %d messages", len(batch))

    def answered(self) -> None:
        """The broker has answered."""
        self.answered_at = monotonic()

    def contact_lost(self) -> None:
        """The broker did not answer: nothing here can say how long others have been silent."""
        self.steady_since = monotonic()

    # -- acknowledging ---------------------------------------------------------------------------

    def ack(self, tag: str) -> None:
        """This delivery is done. Cheap, and safe from any thread: it is sent later, with others."""
        if self._first_ack_at is None:
            self._first_ack_at = monotonic()
        self._acks.append(tag)

    @property
    def owes_acks(self) -> bool:
        """Whether acknowledgements wait that may be sent now."""
        return bool(self._acks) and monotonic() >= self._held_back_until

    def ack_age(self) -> float:
        """Seconds since the oldest acknowledgement waits, 0 when none does."""
        if not self._acks:
            return 0.0
        if self._first_ack_at is None:
            self._first_ack_at = monotonic()
        return monotonic() - self._first_ack_at

    def take_acks(self, limit: int = 1000, *, wait: bool = True) -> list[str]:
        """Acknowledgements to send now: then call :meth:`settle`, or :meth:`keep_acks`.

        Without ``wait`` only those whose outcomes have been written meanwhile: a thread writes the
        others while this one goes on, and the next call has them.
        """
        if not wait and len(self._acks) < MAX_UNWRITTEN:
            return self._take_ready(limit)
        with self._taking:
            if not self.owes_acks:
                return []
            self._make_ready()
            return self._pop(limit)

    def _take_ready(self, limit: int) -> list[str]:
        taken: list[str] = []
        if self._taking.acquire(blocking=False):
            try:
                if self.owes_acks:
                    taken = self._pop(limit)
            finally:
                self._taking.release()
        if self._acks:
            self._prepare()
        return taken

    def _pop(self, limit: int) -> list[str]:
        with self._counting:
            count = min(self._ready, len(self._acks), limit)
            self._ready -= count
            self._first_ack_at = None
            return [self._acks.popleft() for _ in range(count)]

    def _make_ready(self) -> None:
        """Have the ledger written, so that what has been acknowledged until now may be sent."""
        # Counted before: what is acknowledged meanwhile may not be in it.
        count = len(self._acks)
        try:
            consumption.hooks.before_ack()
        except Exception as error:
            self._held_back_until = monotonic() + BACK_OFF_SECONDS
            logger.warning("%d acknowledgements held back: %s", len(self._acks), error)
            return
        with self._counting:
            # Those that were kept meanwhile stand before these.
            self._ready = max(self._ready, count)

    def _prepare(self) -> None:
        if self._preparer is None or not self._preparer.is_alive():
            self._preparer = threading.Thread(
                target=self._keep_preparing, name="outcomes", daemon=True
            )
            self._preparer.start()
        self._wanted.set()

    def _keep_preparing(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            with self._taking:
                if self.owes_acks:
                    self._make_ready()

    def settle(self, tags: Iterable[str]) -> None:
        """These acknowledgements have reached the broker."""
        for tag in tags:
            self.held.pop(tag, None)

    def keep_acks(self, tags: Sequence[str]) -> None:
        """These acknowledgements may not have reached the broker: send them again, to no harm."""
        with self._counting:
            self._acks.extendleft(reversed(tags))
            self._ready += len(tags)

    def flush(self) -> None:
        """Send what is owed over a connection of its own. An unreachable broker is no error."""
        while not consumption.broker_lost() and (tags := self.take_acks()):
            try:
                deliveries.acknowledge(self.client, tags, self.layout)
            except BROKER_ERRORS as error:
                self.keep_acks(tags)
                self._held_back_until = monotonic() + BACK_OFF_SECONDS
                logger.warning("acknowledgements not sent, tried again: %s", error)
                return
            self.settle(tags)

    # -- giving back -----------------------------------------------------------------------------

    def give_back(self, batch: Sequence[Delivery]) -> bool:
        """Return deliveries that never began to the front of their queues, exactly as they were.

        ``batch`` is in the order in which they would have run. ``False``: the ledger refused, and
        they are still here.
        """
        if not self._announce_return(batch):
            return False
        keys: dict[str, int] = {}
        arguments: list[Any] = ["", "RPUSH"]
        for delivery in reversed(batch):
            arguments += (delivery.tag, keys.setdefault(delivery.key, len(keys)), delivery.raw)
        script = self.client.register_script(deliveries.PUT_BACK)
        try:
            _refuse_when_lost()
            script(keys=[self.layout.unacked_key, self.layout.index_key, *keys], args=arguments)
        except BROKER_ERRORS as error:
            logger.warning("%d messages not given back yet: %s", len(batch), error)
            self.lost(delivery.tag for delivery in batch)
        self.settle(delivery.tag for delivery in batch)
        return True

    def requeue(self, tags: Collection[str], *, last: bool = False) -> None:
        """Return deliveries to their queues, marked ``redelivered``: they may have begun."""
        held = [self.held[tag] for tag in tags if tag in self.held]
        if not self._announce_return(held):
            logger.error("%d messages stay claimed until this worker's lease lapses", len(held))
        try:
            _refuse_when_lost()
            deliveries.put_back(self.client, tags, self.layout, last=last)
        except BROKER_ERRORS as error:
            logger.warning("%d messages not restored yet: %s", len(tags), error)
            self.lost(tags)
        self.settle(tags)

    def abandon(self) -> int:
        """Give everything back that is not done, because the process ends; returns how many."""
        for channel in tuple(self.channels):
            channel.give_back_unstarted()
        self.flush()
        done = set(self._acks)
        left = [tag for tag in self.held if tag not in done]
        self.requeue(left)
        return len(left)

    def _announce_return(self, batch: Sequence[Delivery]) -> bool:
        ids = [delivery.id for delivery in batch if delivery.id is not None]
        if ids:
            try:
                consumption.hooks.on_give_back(ids)
            except Exception as error:
                logger.warning("%d messages cannot be given back: %s", len(ids), error)
                return False
        return True

    def lost(self, tags: Iterable[str]) -> None:
        """These may be recorded as ours, but nobody here will run them: put them back later."""
        self._lost.extend(tags)

    # -- in the background -----------------------------------------------------------------------

    def renew(self) -> None:
        """Re-score what is held and put back what was lost. Raises the broker's errors."""
        try:
            _refuse_when_lost()
            self._restore_lost()
            if consumption.lease is not None:
                deliveries.renew(self.client, tuple(self.held), self.layout)
        except BROKER_ERRORS:
            self.contact_lost()
            raise

    def restore_overdue(
        self, leased_seconds: float, foreign_seconds: float, foreign: Callable[[bytes], None]
    ) -> int:
        """Put back what nobody renews; see :func:`deliveries.restore_overdue`.

        Only after this process has itself reached the broker for that long without a break: after
        an outage everything looks overdue until its holder has come back, too.
        """
        if monotonic() - self.steady_since < leased_seconds or self._clock_stepped():
            return 0
        restored = deliveries.restore_overdue(
            self.client, leased_seconds, foreign_seconds, self.layout, foreign
        )
        if restored:
            logger.warning("%d messages restored that nobody renewed", restored)
        return restored

    def _clock_stepped(self) -> bool:
        """Whether the server's clock jumped since the last look: then all scores are off."""
        seconds, micros = self.client.time()
        server, local = seconds + micros / 1e6, monotonic()
        before, self._clock = self._clock, (server, local)
        if before is not None and abs((server - before[0]) - (local - before[1])) > 5:
            self.contact_lost()
            return True
        return False

    def _restore_lost(self) -> None:
        while self._lost:
            tags = [self._lost.popleft() for _ in range(min(len(self._lost), deliveries.BATCH))]
            try:
                deliveries.put_back(self.client, tags, self.layout)
            except BROKER_ERRORS:
                self._lost.extendleft(reversed(tags))
                raise

    def relieve(self) -> None:
        """Give back what waits behind a task that takes long, and send what is owed.

        For a thread beside the consuming one; does nothing as long as that one is not busy.
        """
        for channel in tuple(self.channels):
            channel.relieve()
        if self.ack_age() > 0.010:
            self.flush()


def _refuse_when_lost() -> None:
    """A broker that is known to be gone is not waited for."""
    if consumption.broker_lost():
        raise ConnectionError("the broker is gone")
