"""The scaler: starts and stops the spare workers of its host with the backlog.

supervisord cannot change how many processes a group has while it runs. So the group ``spare``
declares as many as there may be, none of which starts by itself; the scaler starts and stops
single ones. A stopped one drains: it finishes its task. What :mod:`ironbeat.warden.scaling` decides
from is the backlog of the whole suite and all its live workers: hosts need not know of each other.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from typing import Any

import psutil
import psycopg

from ironbeat.runs.leases import Lease
from ironbeat.settings import Settings
from ironbeat.warden.scaling import Load, Rules, State, decide
from ironbeat.warden.supervisord import ERRORS, NoSupervisor, Process, Supervisord
from ironbeat.watch.backlog import read_backlog
from ironbeat.watch.fleet import read_fleet
from ironbeat.watch.queues import read_queues
from ironbeat.watch.stores import BROKER_ERRORS, broker, database

logger = logging.getLogger(__name__)

GROUP = "spare"
#: What keeps the scaler from seeing what there is.
UNSEEN: tuple[type[Exception], ...] = (*ERRORS, *BROKER_ERRORS, psycopg.Error, NoSupervisor)
EVERY_SECONDS = 2.0
_DOWN = ("STOPPED", "EXITED", "FATAL")
_WAITING_STATES = ("pending", "published", "retrying")


class Scaler:
    """Keeps the number of spare workers of this host in step with what waits."""

    def __init__(self, settings: Settings, supervisord: Supervisord | None = None) -> None:
        self._settings = settings
        self._supervisord = supervisord
        self._rules = Rules(
            settings.scale_up_backlog, settings.scale_up_seconds, settings.scale_down_seconds
        )
        self._state = State()
        self._load: Load | None = None
        self._changes = [0, 0]
        self.stopping = threading.Event()
        self.lease = Lease(
            "scaler",
            f"scaler@{socket.gethostname()}",
            info=self._info,
            url=settings.database_url.get_secret_value(),
            lease_seconds=settings.lease_seconds,
            renew_seconds=settings.lease_renew_seconds,
        )

    def run(self) -> None:
        """Scale until told to stop."""
        self.lease.start()
        try:
            while not self.stopping.wait(EVERY_SECONDS):
                try:
                    self.step()
                except UNSEEN as error:
                    # What cannot be seen is no reason to change anything.
                    self._state = State()
                    logger.warning("workers stay as they are: %s", error)
        finally:
            self.lease.stop()

    def step(self) -> int:
        """Look once, and act; returns how many spares were started or, negative, stopped.

        Raises the errors of supervisord, PostgreSQL and Redis.
        """
        if self._supervisord is None:
            self._supervisord = Supervisord()
        spares = self._supervisord.group(GROUP)
        load = self._load = self._look(spares)
        self._state, change = decide(self._state, load, time.monotonic(), self._rules)
        if change > 0:
            down = [each for each in spares if each.state in _DOWN][:change]
            for each in down:
                self._supervisord.start(each)
            self._tell("started", down, load)
            self._changes[0] += len(down)
        elif change < 0:
            up = [each for each in spares if each.state == "RUNNING"][change:]
            for each in up:
                self._supervisord.stop(each)
            self._tell("stopped", up, load)
            self._changes[1] += len(up)
        return change

    def _look(self, spares: list[Process]) -> Load:
        settings = self._settings
        with database(settings, application_name="ironbeat scaler") as connection:
            fleet = read_fleet(connection)
            here = [w for w in fleet.live_workers if w.host == socket.gethostname()]
            queues = sorted({q for w in here for q in w.queues}) or list(
                settings.consumed_queues or ("default",)
            )
            workers = sum(bool(set(w.queues) & set(queues)) for w in fleet.live_workers)
            if not settings.use_redis:
                by_queue = read_backlog(connection).by_queue
                waiting = sum(
                    number
                    for q in queues
                    for state, number in by_queue.get(q, {}).items()
                    if state in _WAITING_STATES
                )
        if settings.use_redis:
            with broker(settings) as client:
                waiting = sum(each.length for each in read_queues(client, queues))
        return Load(
            waiting=waiting,
            workers=workers,
            running=sum(each.state == "RUNNING" for each in spares),
            startable=sum(each.state in _DOWN for each in spares),
            affordable=self._affordable(),
        )

    def _affordable(self) -> int:
        """How many more workers the host has memory for, at their ceiling."""
        each = (self._settings.worker_max_memory_mb or 512) * 2**20
        return math.floor(psutil.virtual_memory().available / each)

    def _tell(self, what: str, which: list[Process], load: Load) -> None:
        logger.info(
            "%s %s: %d messages wait for %d workers",
            what,
            ", ".join(each.full_name for each in which),
            load.waiting,
            load.workers,
        )

    def _info(self) -> dict[str, Any]:
        load = self._load
        return {
            "rss_mb": round(psutil.Process().memory_info().rss / 2**20, 1),
            "scaler": {
                "spares_running": load.running if load else None,
                "waiting": load.waiting if load else None,
                "started": self._changes[0],
                "stopped": self._changes[1],
            },
        }
