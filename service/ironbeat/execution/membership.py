"""A worker's membership: its lease, its runtime, and its share in taking over from the dead."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from celery import bootsteps, signals
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.worker import state as worker_state

import ironbeat
from ironbeat import throttle
from ironbeat.execution import deliveries, header, runtime
from ironbeat.execution.attempt import describe
from ironbeat.execution.bookkeeping import LedgerHooks
from ironbeat.execution.custody import BROKER_ERRORS, consumption, custodies
from ironbeat.execution.turns import Turns
from ironbeat.observability.masking import Masker, secrets_of
from ironbeat.runs import blackbox, suspicion
from ironbeat.runs import spool as spools
from ironbeat.runs.blackbox import BlackBox, SayingHandler
from ironbeat.runs.guard import Guard
from ironbeat.runs.leases import Holder, Lease
from ironbeat.runs.model import LedgerUnavailable, State
from ironbeat.runs.recorder import Recorder
from ironbeat.runs.spool import Spool
from ironbeat.runs.throttles import Throttles

logger = logging.getLogger(__name__)

PULSE_SECONDS = 1.0
SALVAGE_SECONDS = 10.0


class Membership(bootsteps.StartStopStep):
    """Worker bootstep: installs the runtime before the pool starts and holds the lease."""

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.app = worker.app
        platform = self.app.ironbeat
        settings = platform.settings
        self._poison_limit = settings.poison_limit
        self._worker = worker
        self._spool_dir = settings.spool_dir
        self._salvaged_at = 0.0
        self._process = psutil.Process()
        # Dead workers whose deliveries have still to be put back: lease and name.
        self._bereft: dict[str, str] = {}
        self.boxes = settings.boxes
        self.lease = Lease(
            "worker",
            worker.hostname,
            sorted(worker.app.amqp.queues.consume_from),
            info=self._info,
            on_cancel=self._cancel,
            heir=self._inherit,
            each=self._regularly,
            boxes=self.boxes,
            salvage=self._salvage,
            on_reconnect=self._claim_again,
            url=settings.database_url.get_secret_value(),
            lease_seconds=settings.lease_seconds,
            renew_seconds=settings.lease_renew_seconds,
        )
        self.runtime = runtime.Runtime(
            ledger=platform.ledger,
            guard=Guard(platform.ledger, self.lease.id, worker.hostname),
            recorder=Recorder(
                platform.ledger, make_spool=self._make_spool, handlers=platform.postponed
            ),
            # Outcomes may wait for the acknowledgements only where both are one process's.
            batched=not issubclass(worker.pool_cls, PreforkPool),
            poison_limit=settings.poison_limit,
            box=BlackBox(
                self.boxes,
                self.lease.id,
                "worker",
                worker.hostname,
                mask=Masker(secrets_of(settings)),
            ),
            turns=Turns(
                Throttles(platform.ledger),
                self.lease.id,
                throttle.parse(settings.throttles),
                platform.publish_first if settings.use_redis else None,
            ),
        )
        platform.submission.recorder = self.runtime.recorder
        runtime.install(self.runtime)
        consumption.lease = self.lease.id
        consumption.hooks = LedgerHooks(self.runtime)
        self._pid = os.getpid()
        self._breath = threading.Event()
        self._saying: logging.Handler | None = None
        signals.task_revoked.connect(self._on_revoked)
        signals.task_failure.connect(self._on_failure)

    def _make_spool(self) -> Spool:
        settings = self.app.ironbeat.settings
        return Spool(
            settings.spool_dir, self.lease.id, max_bytes=settings.spool_max_mb * 1024 * 1024
        )

    def start(self, worker: Any) -> None:
        """Take the lease, and begin to breathe."""
        assert self.runtime.box is not None
        self._saying = SayingHandler(self.runtime.box)
        logging.getLogger().addHandler(self._saying)
        threading.Thread(target=self._breathe, name="pulse", daemon=True).start()
        # Before anything is claimed: PostgreSQL may have crashed and forgotten the claims of what
        # has ended since, and a copy of its message would find nothing in its way.
        with suppress(LedgerUnavailable, OSError):
            self._salvage_regularly()
        self.lease.start()

    def _breathe(self) -> None:
        # A thread that waits for nobody: while it runs, any thread of this process can.
        box = self.runtime.box
        while box is not None and not self._breath.wait(PULSE_SECONDS):
            box.pulse()

    def stop(self, worker: Any) -> None:
        """Write what is left and give the lease back."""
        self.runtime.stopping = True
        self.runtime.guard.release()
        self.runtime.recorder.close()
        self.lease.stop()
        self._breath.set()
        if self._saying is not None:
            logging.getLogger().removeHandler(self._saying)
        if self.runtime.box is not None:
            self.runtime.box.close()
        blackbox.forget(self.boxes, self.lease.id)

    terminate = stop

    def _claim_again(self) -> None:
        """PostgreSQL may have crashed and lost the claims of what is running here, or has run."""
        self._salvaged_at = 0.0
        claims = [(each.claim, each.attempt) for each in list(self.runtime.executing.values())]
        lost = self.runtime.ledger.reclaim(
            claims, lease=self.lease.id, worker=self._worker.hostname
        )
        if lost:
            logger.warning("claims lost in a crash of PostgreSQL put back: %s", sorted(lost))

    def _salvage(self, lease: str) -> None:
        """Write what a dead worker's processes spooled on this machine, before its runs move."""
        for path in spools.of_lease(self._spool_dir, lease):
            self._recover(path)

    def _regularly(self, _connection: Any) -> None:
        """At each renewal of the lease."""
        self._put_back()
        self._salvage_regularly()

    def _salvage_regularly(self) -> None:
        """Write what any process left behind: a pool's child, or a worker of an earlier time."""
        if time.monotonic() - self._salvaged_at >= SALVAGE_SECONDS:
            self._salvaged_at = time.monotonic()
            for path in spools.left_behind(self._spool_dir):
                self._recover(path, remove=True)

    def _recover(self, path: Path, *, remove: bool = False) -> None:
        try:
            records = self.runtime.recorder.recover(path)
            if remove:
                path.unlink(missing_ok=True)
        except (LedgerUnavailable, OSError) as error:
            logger.warning("spool %s is tried again later: %s", path, error)
            raise
        logger.warning("%d records of a process that is gone written from %s", records, path)

    def _info(self) -> dict[str, Any]:
        """What the monitors show of this worker."""
        with self._process.oneshot():
            rss = self._process.memory_info().rss
            cpu = self._process.cpu_percent()
        counts = self.runtime.recorder.counts
        return {
            "rss_mb": round(rss / 2**20, 1),
            "cpu_pct": cpu,
            "concurrency": self._worker.concurrency or 1,
            "running": [
                {"id": request.id, "task": request.name, "since": _since(request)}
                for request in list(worker_state.active_requests)
            ],
            "tasks": sorted(n for n in self.app.tasks if not n.startswith("celery.")),
            "version": ironbeat.__version__,
            "consumed": worker_state.all_total_count[0],
            "outcomes": counts.outcomes,
            "overlapped": counts.overlapped,
            "spooled": self.runtime.recorder.spool.count if self.runtime.recorder.spool else 0,
            "source": "ledger" if consumption.broker_lost() else "broker",
        }

    def _cancel(self, ids: list[str]) -> None:
        """Interrupt runs of this worker that somebody asked to stop."""
        for id in ids:
            request = worker_state.requests.get(id)
            if request is not None and request in worker_state.active_requests:
                logger.info("run %s is interrupted, it was asked to stop", id)
                request.terminate(self._worker.pool, signal="TERM")

    def _on_revoked(
        self, request: Any, terminated: bool = False, expired: bool = False, **_: Any
    ) -> None:
        """Record a run that Celery dropped: expired, revoked, or its child process killed."""
        if terminated and self.runtime.batched:
            return  # Its own attempt says so, when it has been interrupted.
        state: State = "expired" if expired else "cancelled"
        reason = "not started before it expired" if expired else "revoked"
        own = header.read(request.__dict__)
        try:
            ended = self.runtime.ledger.end([request.id], state, reason, running=terminated)
            if not ended and not terminated:
                self.runtime.ledger.entomb(
                    request.id,
                    state,
                    reason,
                    task=request.task,
                    queue=(request.delivery_info or {}).get("routing_key") or "",
                    created_at=header.instant(own.get("created_at")),
                )
                # Its submitter may have noted it just now.
                self.runtime.ledger.end([request.id], state, reason)
        except LedgerUnavailable as error:
            logger.warning("end of run %s (%s) not recorded: %s", request.id, state, error)

    def _on_failure(self, task_id: str, exception: BaseException, **_: Any) -> None:
        """Record a run whose child process was killed for its hard limit, or died for good."""
        if self.runtime.batched or os.getpid() != self._pid:
            return  # Its own attempt says so.
        try:
            self.runtime.ledger.end(
                [task_id], "failed", None, error=describe(exception), running=True
            )
        except LedgerUnavailable as error:
            logger.warning("failure of run %s not recorded: %s", task_id, error)

    def _inherit(
        self, dead: Holder, runs: dict[str, int], connection: psycopg.Connection[Any]
    ) -> None:
        """Take a dead worker's work: its deliveries go back, what kills workers is buried."""
        poisonous = [id for id, crashes in runs.items() if crashes >= self._poison_limit]
        if poisonous:
            reason = suspicion.died_of_it(self._poison_limit)
            self.runtime.ledger.end(poisonous, "dead", reason, error=reason, connection=connection)
            logger.error("runs %s are dead: %s", ", ".join(poisonous), reason)
        if dead.kind == "worker":
            self._bereft[dead.id] = dead.name
            self._put_back()

    def _put_back(self) -> None:
        """Return the deliveries of dead workers to their queues.

        The broker may be away, and a worker that has just begun, and takes its predecessor's work
        over, may not have reached it yet: then it does so at one of its next renewals.
        """
        brokers = custodies()
        if not brokers or consumption.broker_lost():
            return
        for lease, name in list(self._bereft.items()):
            try:
                restored = sum(
                    deliveries.restore(each.client, lease, each.layout) for each in brokers
                )
            except BROKER_ERRORS as error:
                logger.warning("deliveries of %s are put back later: %s", name, error)
                return
            logger.warning("%s deliveries of %s put back", restored, name)
            del self._bereft[lease]


def _since(request: Any) -> float | None:
    """When a request began, in seconds since the epoch."""
    started = request.time_start
    if not started:
        return None
    # Celery notes monotonic time for requests of its own pools.
    return started if started > 1e9 else time.time() - (time.monotonic() - started)
