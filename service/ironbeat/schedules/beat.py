"""Beat: wakes when a schedule is due, plans, publishes, and sweeps the outbox.

A ``celery.beat.Scheduler`` that keeps no entries: ``celery -A ironbeat beat`` and ``ironbeat
beat`` run it like any other. What is due is read from PostgreSQL at each tick, so memory does not
grow with the number of schedules, and an edit is effective at once: its NOTIFY ends the wait. Any
number of beats may run. The wait happens inside ``tick``, for at most a second, because the service
that calls it sleeps uninterruptibly.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import celery.beat
import psycopg

from ironbeat import database
from ironbeat.observability.heartbeat import Heartbeat
from ironbeat.runs import pruning
from ironbeat.runs.blackbox import BlackBox
from ironbeat.runs.leases import Lease
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import LedgerUnavailable
from ironbeat.runs.outbox import Outbox
from ironbeat.runs.throttles import Throttles
from ironbeat.schedules import planner

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 1.0
# Due schedules are gathered for this long while fires follow each other closely.
SHORTEST_WAIT_SECONDS = 0.04
SWEEP_SECONDS = 1.0
# So long at a time it publishes what waits in the outbox before it looks at the schedules again.
PUBLISH_SECONDS = 0.1
HOUSEKEEPING_SECONDS = 3600.0
OUTAGE_PAUSE_SECONDS = 0.5
# All is well for the outside monitor while beat has ticked within so long, and while nothing has
# been due for longer.
STILL_SECONDS = 30.0
OVERDUE_SECONDS = 60.0


class Beat:
    """One beat: ticks over a connection of its own, under a lease of its own."""

    def __init__(self, app: Any, *, stopping: Callable[[], bool] = lambda: False) -> None:
        platform = app.ironbeat
        self._app = app
        self._url = platform.settings.database_url.get_secret_value()
        self._ledger: Ledger = platform.ledger
        self._publish = platform.publish
        self._breaker = platform.submission.breaker
        self._use_broker = platform.settings.use_redis
        self._throttles = Throttles(self._ledger)
        self._outbox = Outbox(self._ledger, self._publish, platform.capacity.room)
        self._more_to_publish = False
        self._stopping = stopping
        self._queues: dict[str, str] = {}
        self._connection: psycopg.Connection[Any] | None = None
        self._share = (0, 1)
        self._swept_at = 0.0
        self._kept_house_at = 0.0
        self._fired = 0
        self._lateness_ms = 0.0
        self._ticked_at: datetime | None = None
        platform.watch_broker()
        self.lease = Lease(
            "beat",
            f"beat@{socket.gethostname()}",
            info=self._info,
            each=self._look_around,
            url=self._url,
            lease_seconds=platform.settings.lease_seconds,
            renew_seconds=platform.settings.lease_renew_seconds,
        )
        self._around = "the lease has not been held yet"
        self._looked_at = time.monotonic()
        url = platform.settings.heartbeat_url
        self.heartbeat = (
            Heartbeat(url.get_secret_value(), platform.settings.heartbeat_seconds, self._trouble)
            if url is not None
            else None
        )
        self._box = BlackBox(platform.settings.boxes, self.lease.id, "beat", self.lease.holder.name)

    # -- one tick ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due, then wait for the next due time, an edit, or a second.

        An outage of PostgreSQL or of the broker is waited out; nothing is raised.
        """
        try:
            connection = self._connect()
            busy = self._work(connection)
            self._box.tick()
            self._box.waiting(False)
            self._ticked_at = datetime.now(UTC)
            self._wait(connection, SHORTEST_WAIT_SECONDS if busy else None)
        except (psycopg.Error, LedgerUnavailable, OSError) as error:
            logger.warning("beat cannot reach PostgreSQL, it catches up by policy: %s", error)
            self._box.waiting(True)
            self._disconnect()
            self._sleep(OUTAGE_PAUSE_SECONDS)

    def _work(self, connection: psycopg.Connection[Any]) -> bool:
        """Plan what is new, fire what is due, sweep; whether more may be due at once."""
        planner.plan_new(connection)
        place, beats = self._share
        fired = planner.fire_due(
            connection, self._route, place=place, beats=beats, grace=self._grace()
        )
        if fired.publish:
            self._hand_over(fired)
        if fired.cancel:
            self._ledger.end(fired.cancel, "cancelled", "overlap: a newer run replaced it")
        for id in fired.stop:
            logger.info("run %s is asked to stop: a newer run of its schedule begins", id)
        if fired.lateness:
            self._fired += len(fired.lateness)
            self._lateness_ms = max(fired.lateness) * 1000
        now = time.monotonic()
        if now - self._swept_at >= SWEEP_SECONDS:
            self._swept_at = now
            self._sweep()
        if now == self._swept_at or self._more_to_publish:
            self._more_to_publish = self._publish_outbox()
        if now - self._kept_house_at >= HOUSEKEEPING_SECONDS:
            self._kept_house_at = now
            pruning.make_partitions(connection)
        return fired.taken > 0 or self._more_to_publish

    def _grace(self) -> float:
        return planner.GRACE_SECONDS if self._use_broker and not self._breaker.open else 0.0

    def _hand_over(self, fired: planner.Fired) -> None:
        if not self._use_broker or self._breaker.open:
            return
        ids = [id for id, _ in fired.publish]
        try:
            self._publish(fired.publish)
        except Exception as error:
            # Whatever the broker's client raises: the runs are committed and stay in the outbox.
            self._breaker.trip()
            logger.warning(
                "%s runs wait in the outbox, the broker did not take them: %s",
                len(ids),
                error,
            )
            self._ledger.not_published(ids)
            return
        self._ledger.mark_published(ids)

    def _sweep(self) -> None:
        self._throttles.sweep()
        self._ledger.release_held()
        self._ledger.expire_overdue()

    def _publish_outbox(self) -> bool:
        """Publish what is due, for a moment; whether more is. A long outbox delays no fire."""
        if not self._use_broker or self._breaker.open:
            return False
        until = time.monotonic() + PUBLISH_SECONDS
        try:
            while self._outbox.sweep() and not self._stopping():
                if time.monotonic() >= until:
                    return True
        except LedgerUnavailable:
            raise
        except Exception as error:
            self._breaker.trip()
            logger.warning("outbox not published: %s", error)
        return False

    # -- waiting -----------------------------------------------------------------------------------

    def _wait(self, connection: psycopg.Connection[Any], at_least: float | None) -> None:
        following = planner.seconds_to_next(connection)
        wait = LONGEST_WAIT_SECONDS if following is None else min(following, LONGEST_WAIT_SECONDS)
        wait = max(wait, at_least or 0.001)
        if at_least is not None and wait <= at_least:
            self._sleep(wait)
            return
        for _ in connection.notifies(timeout=wait, stop_after=1):
            logger.debug("a schedule was edited")

    def _sleep(self, seconds: float) -> None:
        if not self._stopping():
            time.sleep(seconds)

    # -- connection, lease -------------------------------------------------------------------------

    def _connect(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            connection = database.dedicated(self._url, application_name="ironbeat beat")
            connection.execute("SET statement_timeout = '30s'")
            connection.execute(f"LISTEN {database.CHANNEL_SCHEDULES}")
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look_around(self, connection: psycopg.Connection[Any]) -> None:
        """At each renewal: the other beats, and what the outside monitor is told."""
        self._share = planner.place_among_beats(connection, self.lease.id)
        if self.heartbeat is not None:
            self._around = planner.trouble(connection, OVERDUE_SECONDS)
            self._looked_at = time.monotonic()

    def _trouble(self) -> str:
        """What is wrong, as far as this beat knows; it asks nobody."""
        if time.monotonic() - self._looked_at > STILL_SECONDS:
            return "PostgreSQL does not answer beat"
        if self._ticked_at is None:
            return "beat has not ticked yet"
        still = (datetime.now(UTC) - self._ticked_at).total_seconds()
        return f"beat has not ticked for {still:.0f} s" if still > STILL_SECONDS else self._around

    def _info(self) -> dict[str, Any]:
        return {
            "beat": {
                "last_tick_at": self._ticked_at.isoformat() if self._ticked_at else None,
                "fired": self._fired,
                "lateness_ms": round(self._lateness_ms, 1),
                "place": self._share[0],
                "beats": self._share[1],
                "heartbeat_at": self.heartbeat.taken_at.isoformat() if self.heartbeat else None,
            }
        }

    def close(self) -> None:
        """Give the lease back and close the connection."""
        if self.heartbeat is not None:
            self.heartbeat.stop()
        self._box.close()
        self.lease.stop()
        self._disconnect()

    def _route(self, task: str) -> str:
        """The queue of a task that its schedule does not name."""
        found = self._queues.get(task)
        if found is None:
            route = self._app.amqp.router.route({}, task, (), {}, self._app.tasks.get(task))
            queue = route.get("queue")
            found = getattr(queue, "name", queue) or self._app.conf.task_default_queue
            self._queues[task] = found
        return found


class Scheduler(celery.beat.Scheduler):
    """Celery's face of :class:`Beat`: no entries, and a tick that waits."""

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        # The service builds a scheduler a second time only to look at it: nothing starts here.
        self._beat: Beat | None = None
        self._closed = threading.Event()
        super().__init__(app, *args, **kwargs)

    def setup_schedule(self) -> None:
        """Nothing to set up: the schedules are rows."""
        self.data: dict[str, Any] = {}

    def update_from_dict(self, dict_: Any) -> None:
        """Entries in the configuration are imported by a command, not at each start."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """One tick of beat; it has waited already, hence 0."""
        if self._closed.is_set():
            return 0.0
        if self._beat is None:
            self._beat = Beat(self.app, stopping=self._closed.is_set)
            self._beat.lease.start()
            if self._beat.heartbeat is not None:
                self._beat.heartbeat.start()
        self._beat.tick()
        return 0.0

    def should_sync(self) -> bool:
        """There is nothing to write to a file."""
        return False

    def sync(self) -> None:
        """There is nothing to write to a file."""

    def close(self) -> None:
        """End in order; called inside the signal handler, and again afterwards."""
        if not self._closed.is_set():
            self._closed.set()
            if self._beat is not None:
                self._beat.close()

    @property
    def info(self) -> str:
        """What the start-up banner says."""
        return "    . schedules -> PostgreSQL"
