"""The ledger as a kombu transport: a worker that has no broker draws its messages from it.

To Celery it is one more broker, at ``ledger://``. So all that a worker does stays as it is: its
pool and time limits, prefetch and rate limits, queues, leases, guard, recording. What differs:

* Messages are drawn (:mod:`ironbeat.runs.drawing`) where a broker would deliver them. Nothing is
  published: whoever submits commits to the ledger, and that is the publication.
* An acknowledgement is nothing to send: a run's outcome in the ledger is its end.
* What returns to its queue is made due again in the ledger.
* There is no broadcast. Cancellations come with the lease's renewal; events are dropped.

:mod:`ironbeat.execution.task_scheduler` says when a worker consumes from here.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import count
from time import monotonic, sleep
from typing import Any
from weakref import WeakSet

import kombu
import orjson
from celery.utils.log import get_logger
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.utils.json import dumps as kombu_dumps

from ironbeat.execution import header, runtime
from ironbeat.execution.custody import Delivery, consumption
from ironbeat.execution.pace import Pace
from ironbeat.runs.drawing import Drawer, Drawn
from ironbeat.runs.guard import Guard
from ironbeat.runs.model import LedgerUnavailable

logger = get_logger(__name__)

URL = "ledger://localhost"

# An idle worker looks into the ledger this often, and this often while PostgreSQL is away.
POLL_SECONDS = 0.25
OUTAGE_PAUSE_SECONDS = 1.0
# A batch is drawn to last about this long; what has not begun after the second time goes back.
BATCH_SECONDS = 0.050
PATIENCE_SECONDS = 0.250
BATCH_LIMIT = 64

# For kombu's own connections too, which an application's pools hold.
TRANSPORT_ALIASES.setdefault("ledger", f"{__name__}:Transport")

channels: WeakSet[Channel] = WeakSet()


class BrokerReturned(ConnectionError):
    """The broker answers again: the worker leaves the ledger and consumes from it."""


class QoS(virtual.QoS):
    """What a channel delivered and is not done; it returns to the ledger, not to a queue."""

    def ack(self, delivery_tag: str) -> None:
        """The run has ended, or its copy was dropped: nobody has to hold it any more."""
        self.channel.let_go([self._id(delivery_tag)])
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Let go of it; ``requeue``: it is due again, for this worker or another."""
        id = self._id(delivery_tag)
        if requeue and id is not None:
            active = runtime.current()
            # An inline attempt has given its own claim back. A child that died has not.
            crashed = active is not None and not active.batched
            self.channel.give_back([id], crashed=crashed)
        self.channel.let_go([id])
        self._quick_ack(delivery_tag)

    def restore_unacked(self) -> None:
        """Give back everything that is not done and not running."""
        self._flush()
        running = set(consumption.running())
        left = [tag for tag in self._delivered if tag not in running]
        ids = [self._id(tag) for tag in left]
        self._delivered.clear()
        self.channel.give_back([id for id in ids if id is not None])
        self.channel.let_go(ids)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """The same, when the channel closes."""
        self._on_collect.cancel()
        self.restore_unacked()

    @property
    def waiting_ids(self) -> list[str]:
        """The runs that were handed over and are not done."""
        dirty = set(self._dirty)
        return [m.headers["id"] for t, m in list(self._delivered.items()) if t not in dirty]

    def _id(self, delivery_tag: str) -> str | None:
        message = self._delivered.get(delivery_tag)
        return None if message is None else message.headers.get("id")


class Channel(virtual.Channel):
    """Consumes runs of its queues from the ledger."""

    QoS = QoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pace = Pace(BATCH_SECONDS, BATCH_LIMIT)
        self._unstarted: deque[Delivery] = deque()
        self._tags = count()
        self._delivering = False
        self._batch_began = 0.0
        self._look_at = 0.0
        channels.add(self)

    # -- drawing -----------------------------------------------------------------------------------

    def draw(self, known: Collection[str]) -> bool:
        """Draw a batch of the queues in ``known`` and hand it over; whether there may be more."""
        guard = _guard()
        queues = [queue for queue in dict.fromkeys(self._active_queues) if queue in known]
        if guard is None or not queues or self._delivering or monotonic() < self._look_at:
            return False
        limit = self._room(queues)
        if limit < 1 or consumption.stopping:
            return False
        try:
            drawn = guard.drawer.draw(queues, limit)
        except LedgerUnavailable as error:
            logger.warning("nothing can be drawn from the ledger: %s", error)
            self._look_at = monotonic() + OUTAGE_PAUSE_SECONDS
            return False
        if not drawn:
            self._look_at = monotonic() + POLL_SECONDS
            return False
        guard.drawn.update(run.id for run in drawn)
        batch = [self._delivery(run) for run in drawn]
        try:
            consumption.hooks.on_batch(batch)
        except Exception:
            logger.exception("while announcing a batch of %d runs", len(batch))
        self._unstarted.extend(batch)
        self._deliver_unstarted()
        return True

    def _room(self, queues: Sequence[str]) -> int:
        allowed = self.qos.can_consume_max_estimate()
        if not consumption.inline:
            return BATCH_LIMIT if allowed is None else min(allowed, BATCH_LIMIT)
        if allowed is not None and allowed < 1:
            return 0
        slowest = max(self.pace.cost(queue) for queue in queues)
        return max(1, min(BATCH_LIMIT, int(BATCH_SECONDS / max(slowest, 1e-6))))

    def _delivery(self, run: Drawn) -> Delivery:
        tag = f"ledger.{next(self._tags)}"
        headers = dict(run.message["headers"])
        # It is due by the database's clock, which is the one that counts.
        headers["eta"] = None
        headers[header.NAME] = {**header.read(headers), "drawn": True}
        payload = {
            "body": _text(run.message["body"]),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": {
                "delivery_mode": 2,
                **(run.message.get("properties") or {}),
                "priority": run.priority if run.priority is not None else 0,
                "delivery_tag": tag,
                "delivery_info": {"exchange": "", "routing_key": run.queue},
            },
        }
        return Delivery(tag, run.queue, run.queue, b"", payload)

    def _deliver_unstarted(self) -> None:
        """Hand over message by message; an inline pool runs each before the next is handed over."""
        self._delivering = True
        self._batch_began = monotonic()
        handled: dict[str, list[float]] = {}
        first = True
        try:
            while True:
                try:
                    delivery = self._unstarted.popleft()
                except IndexError:
                    break
                if not self._may_deliver(first):
                    self._unstarted.appendleft(delivery)
                    self.give_back_unstarted()
                    break
                first = False
                start = monotonic()
                self.connection._deliver(delivery.payload, delivery.queue)
                total = handled.setdefault(delivery.queue, [0, 0.0])
                total[0] += 1
                total[1] += monotonic() - start
        except BaseException:
            self.give_back_unstarted()
            raise
        finally:
            self._delivering = False
            for queue, (messages, seconds) in handled.items():
                self.pace.learn(queue, int(messages), seconds)

    def _may_deliver(self, first: bool) -> bool:
        if self.closed or consumption.stopping:
            return False
        if not self.qos.can_consume():
            return False
        return first or not consumption.inline or not self._late()

    def _late(self) -> bool:
        return monotonic() - self._batch_began > PATIENCE_SECONDS

    # -- what is held, for the threads beside the consuming one ------------------------------------

    def relieve(self) -> None:
        """Give back what waits behind a slow task."""
        if self._unstarted and self._delivering and self._late():
            self.give_back_unstarted()

    def give_back_unstarted(self) -> None:
        """Give back what was drawn and has not begun."""
        back: list[Delivery] = []
        # The consuming thread takes from the left meanwhile: each run goes one way only.
        while True:
            try:
                back.append(self._unstarted.pop())
            except IndexError:
                break
        ids = [delivery.headers["id"] for delivery in back]
        self.give_back(ids)
        self.let_go(ids)

    def give_back(self, ids: Sequence[str], *, crashed: bool = False) -> None:
        """Make runs due again. Where PostgreSQL is away their hold lapses, or this worker's lease.

        What was claimed for them and not used is given back with them.
        """
        guard = _guard()
        if guard is None or not ids:
            return
        try:
            guard.withdraw(ids)
            guard.drawer.give_back(ids, crashed=crashed)
        except LedgerUnavailable as error:
            logger.warning("%d runs not given back, their hold lapses: %s", len(ids), error)

    def let_go(self, ids: Sequence[str | None]) -> None:
        """These are in this worker's hands no more."""
        guard = _guard()
        if guard is not None:
            guard.drawn.difference_update(id for id in ids if id is not None)

    @property
    def held_ids(self) -> list[str]:
        """The runs that were drawn and are not done."""
        return [*self.qos.waiting_ids, *(d.headers["id"] for d in tuple(self._unstarted))]

    # -- kombu's channel ---------------------------------------------------------------------------

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        """Events and replies have no readers here; a task never comes this way."""

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        raise virtual.base.Empty

    def _purge(self, queue: str) -> int:
        return 0

    def close(self) -> None:
        """Give back what has not begun, and leave what is running alone."""
        if not self.closed:
            self.give_back_unstarted()
        super().close()


class Transport(virtual.Transport):
    """Draws for the channels of one connection."""

    Channel = Channel
    driver_type = "ledger"
    driver_name = "ironbeat"
    polling_interval = POLL_SECONDS

    implements = virtual.Transport.implements.extend(
        asynchronous=True, exchange_type=frozenset(["direct", "topic"])
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self._loop: Any = None
        self._wakers: tuple[int, int] | None = None

    def driver_version(self) -> str:
        """The transport is part of the platform."""
        from ironbeat import __version__

        return __version__

    def verify_connection(self, connection: Any) -> bool:
        """The ledger is asked at each draw."""
        return True

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Draw at each round of Celery's event loop, which is woken up while there is more."""
        self._loop = loop
        reading, writing = self._wakers = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        loop.add_reader(reading, self._awake, reading)
        loop.on_tick.add(self.tick)
        loop.call_repeatedly(POLL_SECONDS, int)

    @staticmethod
    def _awake(descriptor: int) -> None:
        with suppress(BlockingIOError):
            os.read(descriptor, 4096)

    def tick(self) -> None:
        """Draw what there is room for. Raises :class:`BrokerReturned` when it is time to go."""
        if consumption.broker_returned():
            raise BrokerReturned("the broker answers again")
        if self._draw() and self._wakers is not None:
            with suppress(BlockingIOError):
                os.write(self._wakers[1], b"1")

    def _draw(self) -> bool:
        known = self._queues()
        return max([channel.draw(known) for channel in tuple(self.channels)], default=False)

    def _queues(self) -> Collection[str]:
        # Remote control's queues are no queues of runs.
        return [queue for queue in self._callbacks if not queue.endswith(".pidbox")]

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Draw, for pools without an event loop; raises :class:`TimeoutError` when idle."""
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            if consumption.broker_returned():
                raise BrokerReturned("the broker answers again")
            if self._draw():
                return
            left = POLL_SECONDS if deadline is None else deadline - monotonic()
            if left <= 0:
                raise TimeoutError
            sleep(min(POLL_SECONDS, left))

    def close_connection(self, connection: Any) -> None:
        """Leave the event loop; what the channels hold goes back."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.on_tick.discard(self.tick)
        wakers, self._wakers = self._wakers, None
        if wakers is not None:
            if loop is not None:
                with suppress(KeyError, OSError, ValueError):
                    loop.remove_reader(wakers[0])
            for descriptor in wakers:
                os.close(descriptor)
        super().close_connection(connection)


class Holdings:
    """What this process drew and holds, as the pool's watchdog and a leaving worker see it."""

    def relieve(self) -> None:
        """Give back what waits behind a task that takes long."""
        for channel in tuple(channels):
            channel.relieve()

    def abandon(self) -> int:
        """Give everything back that is not done, because the process ends; returns how many."""
        returned = 0
        for channel in tuple(channels):
            ids = channel.held_ids
            channel.give_back_unstarted()
            channel.give_back(ids)
            returned += len(ids)
        return returned

    def keep(self, drawer: Drawer) -> None:
        """Hold what waits in this worker for another while. Raises :class:`LedgerUnavailable`."""
        drawer.keep([id for channel in tuple(channels) for id in channel.held_ids])


holdings = Holdings()


def connection(make: Callable[..., Any] = kombu.Connection) -> Any:
    """A connection to the ledger, for a worker's consumer."""
    return make(URL)


def _guard() -> Guard | None:
    active = runtime.current()
    return active.guard if active is not None else None


def _text(body: Any) -> str:
    try:
        return orjson.dumps(body).decode()
    except TypeError:
        return kombu_dumps(body)
