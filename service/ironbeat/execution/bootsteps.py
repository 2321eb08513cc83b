"""What a worker does besides running tasks, as Celery bootsteps.

:func:`install` puts them into an application. The lease itself is held by
:class:`ironbeat.execution.membership.Membership`.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Collection
from time import monotonic
from typing import Any

import celery
from celery import bootsteps, signals
from celery.utils.log import get_logger
from celery.utils.sysinfo import load_average
from celery.worker import state

from ironbeat.execution import deliveries, redis_results
from ironbeat.execution.custody import BROKER_ERRORS, Custody, consumption, custodies
from ironbeat.execution.leaving import ExitStatus, leave
from ironbeat.execution.transport import Channel

logger = get_logger(__name__)

WORKER_CONSUMER = "ironbeat.execution.consumer:Consumer"


def install(app: celery.Celery) -> None:
    """Give the workers of ``app`` the steps of this module, and the consumer they need."""
    app.steps["worker"].update({Renewal, StallWatch})
    app.steps["consumer"].add(BusyHeart)
    app.conf.worker_consumer = WORKER_CONSUMER


class Background(bootsteps.StartStopStep):
    """A step that does something again and again on a thread of its own."""

    every = 1.0

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._stop = threading.Event()

    def start(self, parent: Any) -> None:
        """Start the thread."""
        self._stop = threading.Event()
        name = type(self).__name__.lower()
        threading.Thread(
            target=self._repeat, args=(parent, self._stop), name=name, daemon=True
        ).start()

    def stop(self, parent: Any) -> None:
        """End the thread."""
        self._stop.set()

    terminate = stop

    def _repeat(self, parent: Any, stop: threading.Event) -> None:
        while not stop.wait(self.every):
            try:
                self.act(parent)
            except BROKER_ERRORS as error:
                logger.warning("%s: %s", type(self).__name__.lower(), error)
            except Exception:
                logger.exception("in %s", type(self).__name__.lower())

    def act(self, parent: Any) -> None:
        """Do it once."""
        raise NotImplementedError


class Renewal(Background):
    """Keeps the deliveries of this worker from becoming overdue, however long their tasks take.

    It goes on while the worker drains. It also sends acknowledgements that nobody else sends: those
    of a pool's last tasks, when the event loop has ended already.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        consumption.running = running_tags
        timeout = worker.app.conf.broker_transport_options.get(
            "lease_timeout", Channel.lease_timeout
        )
        self._interval = float(timeout) / 3
        self._renewed_at = 0.0
        self.every = min(1.0, self._interval)

    def stop(self, parent: Any) -> None:
        """Go on: the pool has still to drain, and the thread ends with the worker."""
        signals.worker_shutdown.connect(self._end)

    terminate = stop

    def _end(self, **_: Any) -> None:
        self._stop.set()

    def act(self, worker: Any) -> None:
        """Renew what is due, and send what is owed."""
        # They go out with acknowledgements; who draws from the ledger has none to send.
        redis_results.flush_all()
        if consumption.broker_lost():
            return
        due = monotonic() - self._renewed_at >= self._interval
        for custody in custodies():
            if due:
                custody.renew()
            if custody.ack_age() > self.every:
                custody.flush()
        if due:
            self._renewed_at = monotonic()


class StallWatch(Background):
    """Ends a worker that takes nothing from its queues although something waits in them."""

    requires = ("celery.worker.components:Pool",)
    every = 5.0
    #: After so many seconds without an answer from the broker while messages waited.
    patience = 60.0

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._idle_since: float | None = None
        self._consumed = -1

    def act(self, worker: Any) -> None:
        """Compare what waits with what is being done."""
        now = monotonic()
        if not self._neglects(worker):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= self.patience:
            stacks = "\n".join(
                "".join(traceback.format_stack(frame)) for frame in sys._current_frames().values()
            )
            logger.critical("the threads of a worker that consumes nothing:\n%s", stacks)
            leave(
                ExitStatus.STALLED,
                f"messages waited for {self.patience:.0f} s and none was taken",
            )

    def _neglects(self, worker: Any) -> bool:
        consumed, self._consumed = self._consumed, state.all_total_count[0]
        if consumed != self._consumed or state.active_requests or state.reserved_requests:
            return False
        if consumption.stopping or state.should_stop is not None or consumption.broker_lost():
            return False
        return any(self._waits(worker, custody) for custody in custodies())

    def _waits(self, worker: Any, custody: Custody) -> bool:
        channels = [channel for channel in tuple(custody.channels) if channel.active_queues]
        if any(not channel.qos.can_consume() for channel in channels):
            # It holds all it may: tasks that wait for their time, or for their rate.
            return False
        queues = list(worker.app.amqp.queues.consume_from)
        found = deliveries.backlog(custody.client, queues, custody.layout)
        return found.total_waiting > 0


class BusyHeart(Background):
    """Sends a consumer's events while its thread is busy with a task.

    Celery sends heartbeats and task events between two tasks. One that takes minutes would let
    Flower believe that it never began and that its worker is gone.
    """

    requires = ("celery.worker.consumer.heart:Heart",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._sent_at = 0.0

    def act(self, consumer: Any) -> None:
        """Send what waits, and a heartbeat if it is due."""
        job = getattr(consumer.pool, "job", None)
        eventer = consumer.event_dispatcher
        now = monotonic()
        if job is None or now - job.began < self.every or not (eventer and eventer.enabled):
            return
        eventer.flush()
        heart = consumer.heart
        if heart is not None and heart.tref is not None and now - self._sent_at >= heart.interval:
            self._sent_at = now
            eventer.send(
                "worker-heartbeat",
                freq=heart.interval,
                active=len(state.active_requests),
                processed=state.all_total_count[0],
                loadavg=load_average(),
                **state.SOFTWARE_INFO,
            )


def running_tags() -> Collection[str]:
    """The deliveries whose tasks go on when the connection is replaced; none in a cold shutdown."""
    if state.should_terminate:
        return ()
    return {request.message.delivery_tag for request in tuple(state.active_requests)}
