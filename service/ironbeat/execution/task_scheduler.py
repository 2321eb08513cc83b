"""The TaskScheduler: the source of runs where no broker brings them.

It is a thread in each worker that asks the broker, again and again, whether it takes a write. When
it has not for :data:`LOST_SECONDS`, the worker's consumer leaves it and consumes from the ledger
(:mod:`ironbeat.execution.ledger_transport`): the runs of its queues that are due, the most urgent
first, through the same pool, limits, guard and recording. When the broker has answered for
:data:`RETURNED_SECONDS` the consumer goes back, on new connections. Nothing is handed over at
either change: what was drawn and has not begun is due again in the ledger, and what both sources
hold the guard lets run once.

Meanwhile submissions of this process do not wait for the broker; they are committed to the ledger.

With ``USE_REDIS=false`` there is nobody to ask, and the worker consumes from the ledger for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from celery import bootsteps
from celery.utils.log import get_logger

from ironbeat.execution import ledger_transport, runtime
from ironbeat.execution.custody import consumption
from ironbeat.execution.membership import Membership
from ironbeat.execution.refilling import Refill
from ironbeat.runs.model import LedgerUnavailable
from ironbeat.runs.outbox import Outbox

logger = get_logger(__name__)

# How often the broker is asked, and how long an answer may take.
PROBE_SECONDS = 0.5
PROBE_TIMEOUT_SECONDS = 1.0
# A restart of the broker is over sooner than this; then nothing changes hands.
LOST_SECONDS = 2.5
# A broker that comes and goes is not believed at once.
RETURNED_SECONDS = 1.0
# How often what was drawn and waits is held anew; a fraction of the hold.
KEEP_SECONDS = 2.0
# What the broker's return asks for is done more than once: others may notice it later, and leave
# something to do until then.
ROUNDS = 3
SWEEP_SECONDS = 2.0
ROUND_SECONDS = 5.0

PROBE_KEY = "ironbeat.probe"

Probe = Callable[[], None]


class Breaker(Protocol):
    """What keeps submissions of this process from waiting for the broker."""

    def trip(self, seconds: float | None = None) -> None:
        """It does not answer; do not ask it for so long."""
        ...

    def reset(self) -> None:
        """It answers."""
        ...


class BrokerProbe:
    """Asks one broker, over a connection of its own, whether it takes a write.

    A write, because a broker that is out of memory or disk answers a ping and takes no message.
    Raises whatever the client raises, within about :data:`PROBE_TIMEOUT_SECONDS`.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._connection: Any = None

    def client(self) -> Any:
        """The client that asks. Raises whatever it raises."""
        if self._connection is None:
            self._connection = self._app.connection_for_write(
                transport_options={
                    "socket_timeout": PROBE_TIMEOUT_SECONDS,
                    "socket_connect_timeout": PROBE_TIMEOUT_SECONDS,
                }
            )
        return self._connection.default_channel.client

    def __call__(self) -> None:
        """Ask once."""
        try:
            self.client().set(PROBE_KEY, "1", ex=3600)
        except BaseException:
            connection, self._connection = self._connection, None
            if connection is not None:
                _collect(connection)
            raise


class TaskScheduler:
    """Knows where this worker's runs come from.

    ``probe`` raises when the broker is away; ``None``: there is no broker, runs are drawn for ever.
    ``returned`` does what is to be done when the broker answers (again); what it raises is logged
    and it is called again a little later. ``outbox`` is swept now and then, for the time when no
    beat lives that does. ``refill`` looks after a broker that has lost its messages.
    """

    def __init__(
        self,
        probe: Probe | None,
        breaker: Breaker,
        *,
        returned: Callable[[], object] | None = None,
        outbox: Outbox | None = None,
        refill: Refill | None = None,
    ) -> None:
        self._probe = probe
        self._breaker = breaker
        self._returned = returned
        self._outbox = outbox
        self._refill = refill
        self._swept_at = monotonic()
        self._rounds = ROUNDS
        self._round_at = monotonic()
        self._failing_since: float | None = None
        self._answering_since: float | None = None
        self._kept_at = 0.0
        self._stop = threading.Event()
        #: Set whenever the source has changed.
        self.changed = threading.Event()
        #: Whether this worker's runs are to be drawn from the ledger.
        self.drawing = probe is None

    @property
    def source(self) -> str:
        """Where runs come from now, for people."""
        return "ledger" if self.drawing else "broker"

    def start(self) -> None:
        """Ask from now on."""
        threading.Thread(target=self._keep_asking, name="task-scheduler", daemon=True).start()

    def stop(self) -> None:
        """Ask no more; the source stays as it is."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Wait until the source changes, for at most so long."""
        self.changed.wait(seconds)
        self.changed.clear()

    def _keep_asking(self) -> None:
        while not self._stop.wait(PROBE_SECONDS):
            if self._probe is not None:
                self.ask(self._probe)
            if monotonic() - self._kept_at >= KEEP_SECONDS:
                self._keep_what_waits()
            if not self.drawing:
                self._do_return_work()
                self._refill_broker()
                self._sweep()

    def ask(self, probe: Probe) -> None:
        """Ask once, and draw the conclusion."""
        asked_at = monotonic()
        try:
            probe()
        except Exception as error:
            self._unanswered(asked_at, error)
        else:
            self._answered()

    def _unanswered(self, asked_at: float, error: Exception) -> None:
        self._answering_since = None
        if self._failing_since is None:
            self._failing_since = asked_at
        if not self.drawing and monotonic() - self._failing_since < LOST_SECONDS:
            return
        # For longer than until the next answer.
        self._breaker.trip(4 * (PROBE_SECONDS + PROBE_TIMEOUT_SECONDS))
        if not self.drawing:
            logger.warning("the broker is gone, runs are drawn from the ledger: %s", error)
            self._change(drawing=True)

    def _answered(self) -> None:
        self._failing_since = None
        if not self.drawing:
            return
        now = monotonic()
        if self._answering_since is None:
            self._answering_since = now
        if now - self._answering_since >= RETURNED_SECONDS:
            logger.warning("the broker is back, runs are consumed from it again")
            self._breaker.reset()
            self._change(drawing=False)

    def _change(self, *, drawing: bool) -> None:
        self._answering_since = None
        self._rounds = ROUNDS
        self._round_at = monotonic()
        self.drawing = drawing
        self.changed.set()

    def _do_return_work(self) -> None:
        if self._returned is None or not self._rounds or monotonic() < self._round_at:
            return
        self._round_at = monotonic() + ROUND_SECONDS
        try:
            self._returned()
        except Exception as error:
            logger.warning("what the return of the broker asks for is tried again: %s", error)
        else:
            self._rounds -= 1

    def _refill_broker(self) -> None:
        if self._refill is None or self._failing_since is not None:
            return
        try:
            self._refill.look()
        except Exception as error:
            logger.warning("whether the broker has lost its messages is not known yet: %s", error)

    def _sweep(self) -> None:
        if self._outbox is None or monotonic() - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = monotonic()
        try:
            while self._outbox.sweep() and not self._stop.is_set():
                pass
        except LedgerUnavailable as error:
            logger.debug("outbox not swept: %s", error)
        except Exception as error:
            self._breaker.trip()
            logger.warning("outbox not published: %s", error)

    def _keep_what_waits(self) -> None:
        self._kept_at = monotonic()
        active = runtime.current()
        if active is None:
            return
        try:
            ledger_transport.holdings.keep(active.guard.drawer)
        except LedgerUnavailable as error:
            logger.warning("what was drawn is not held on to: %s", error)
        except Exception:
            logger.exception("while holding on to what was drawn")


class Fallback(bootsteps.StartStopStep):
    """Worker bootstep: the TaskScheduler of a worker whose broker is Redis, or that has none."""

    requires = (Membership,)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        app = worker.app
        breaker = app.ironbeat.submission.breaker
        if not app.ironbeat.settings.use_redis:
            self.scheduler: TaskScheduler | None = TaskScheduler(None, breaker)
        elif app.connection_for_read().transport.driver_type == "redis":
            move_back = getattr(app.backend, "move_back", None)
            outbox = Outbox(app.ironbeat.ledger, app.ironbeat.publish, late=SWEEP_SECONDS)
            probe = BrokerProbe(app)
            self.scheduler = TaskScheduler(
                probe,
                breaker,
                returned=move_back,
                outbox=outbox,
                refill=Refill(probe.client, app.ironbeat.ledger),
            )
        else:
            self.scheduler = None

    def start(self, worker: Any) -> None:
        """Ask once before the consumer connects, and then again and again."""
        if self.scheduler is not None:
            consumption.scheduler = self.scheduler
            self.scheduler.start()

    def stop(self, worker: Any) -> None:
        """Ask no more."""
        if self.scheduler is not None:
            self.scheduler.stop()

    terminate = stop


def _collect(connection: Any) -> None:
    try:
        connection.collect(socket_timeout=PROBE_TIMEOUT_SECONDS)
    except Exception as error:
        logger.debug("probe's connection not closed in order: %r", error)
