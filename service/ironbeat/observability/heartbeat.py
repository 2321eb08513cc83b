"""A dead-man's switch: pings to an outside monitor, which raises its alarm when they stop.

Compatible with Healthchecks: the address itself is success, ``/start`` and ``/fail`` below it the
others, ``rid`` ties a start to its end. Two kinds of pings: beat's own, while all is well
(:class:`Heartbeat`), and of each run of a schedule, by the worker that executes it
(:func:`hook_celery`).

Nothing here makes beat or a task wait: pings are sent by a thread, each within a few seconds, and
what cannot be sent is dropped after a few attempts. Logs name the host alone: the path is a secret.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from queue import SimpleQueue
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from ironbeat import __version__
from ironbeat.observability.sentry import schedule_of, slug
from ironbeat.settings import Settings, get_settings

logger = logging.getLogger(__name__)

What = Literal["", "start", "fail"]

TIMEOUT_SECONDS = 5.0
# A success or failure is tried so often, with so long between; a start once.
ATTEMPTS, PAUSE_SECONDS = 3, 1.0
WAITING_AT_MOST = 1000
DRAIN_SECONDS = 2.0
# Monitors limit how often a check may be pinged; a failure is always told.
LEAST_SECONDS_BETWEEN = 15.0
_BODY_BYTES = 1000


class PingRefused(Exception):
    """The outside monitor did not take a ping; the message holds no path."""


def address(url: str, what: What = "", run_id: str | None = None) -> str:
    """The address to ping: ``what`` goes below the path, whatever query follows."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + (f"/{what}" if what else "")
    query = "&".join(
        each for each in (parts.query, urlencode({"rid": run_id}) if run_id else "") if each
    )
    return urlunsplit((parts.scheme, parts.netloc, path or "/", query, ""))


def ping(url: str, body: str = "", *, timeout: float = TIMEOUT_SECONDS) -> None:
    """Send one ping. Raises :class:`PingRefused` unless it was answered with a 2xx."""
    request = urllib.request.Request(  # noqa: S310 - the settings take http and https alone
        url,
        data=body.encode()[:_BODY_BYTES],
        headers={"User-Agent": f"ironbeat/{__version__}", "Content-Type": "text/plain"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        raise PingRefused(f"{_host(url)} answered HTTP {error.code}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise PingRefused(f"{_host(url)} cannot be reached: {reason}") from None


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the heartbeat address"


# -- beat's ----------------------------------------------------------------------------------------


class Heartbeat:
    """Pings an address every so many seconds while ``trouble`` has nothing to say.

    ``trouble`` returns what is wrong, in words, or the empty text; it must not wait. When
    something is wrong ``/fail`` is pinged with these words, so that the outside knows at once.
    """

    def __init__(self, url: str, seconds: float, trouble: Callable[[], str]) -> None:
        self._url = url
        self._seconds = seconds
        self._trouble = trouble
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._refused = False
        #: When a ping was last taken; the start, before the first.
        self.taken_at = datetime.now(UTC)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread = threading.Thread(target=self._keep, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; a ping under way is left to itself."""
        self._stop.set()

    def _keep(self) -> None:
        while not self._stop.wait(0.0):
            began = time.monotonic()
            self._ping()
            self._stop.wait(max(0.5, self._seconds - (time.monotonic() - began)))

    def _ping(self) -> None:
        try:
            wrong = self._trouble()
            ping(address(self._url, "fail" if wrong else ""), wrong or "all is well")
        except PingRefused as error:
            # Once is enough for the log; the metric tells how long it has lasted.
            if not self._refused:
                logger.warning("heartbeat not taken: %s", error)
            self._refused = True
        except Exception:
            logger.exception("while sending a heartbeat")
        else:
            if self._refused:
                logger.info("heartbeats are taken again")
            self._refused = False
            self.taken_at = datetime.now(UTC)


# -- of a schedule's runs --------------------------------------------------------------------------


def hook_celery(settings: Settings | None = None) -> None:
    """Ping for each run of a schedule, where there is an address for schedules; else nothing."""
    settings = settings or get_settings()
    template = settings.heartbeat_schedule_url
    if template is None or not template.get_secret_value():
        return
    from celery import signals

    pings = RunPings(template.get_secret_value(), settings.heartbeat_patterns)
    signals.task_prerun.connect(pings.begun, weak=False, dispatch_uid="ironbeat-heartbeat-begun")
    signals.task_postrun.connect(pings.ended, weak=False, dispatch_uid="ironbeat-heartbeat-ended")
    for signal in (signals.worker_shutdown, signals.worker_process_shutdown):
        signal.connect(pings.drain, weak=False, dispatch_uid="ironbeat-heartbeat-drain")


@dataclass(frozen=True, slots=True)
class _Ping:
    url: str
    body: str
    attempts: int


class RunPings:
    """Tells when a schedule's run starts, succeeds and fails, from a thread of its own.

    ``template`` holds ``{slug}`` where the schedule's name goes. ``patterns`` name the schedules
    that are told of (``*`` and ``?`` as in a shell); none: all.
    """

    def __init__(self, template: str, patterns: tuple[str, ...] = ()) -> None:
        self._template = template
        self._patterns = patterns
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._waiting: SimpleQueue[_Ping | threading.Event] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._told_at: dict[str, float] = {}
        self._untold: set[str] = set()

    def begun(self, task: Any = None, task_id: str | None = None, **_: Any) -> None:
        """Signal ``task_prerun``; a retry goes on with what has started already."""
        schedule = self._schedule(task)
        if schedule is None or task_id is None or task.request.retries:
            return
        now = time.monotonic()
        if now - self._told_at.get(schedule, -math.inf) < LEAST_SECONDS_BETWEEN:
            self._untold.add(task_id)
            return
        self._told_at[schedule] = now
        self._put(schedule, "start", task_id, task.name, attempts=1)

    def ended(
        self, task: Any = None, task_id: str | None = None, state: str | None = None, **_: Any
    ) -> None:
        """Signal ``task_postrun``; a run that will be retried has not ended."""
        schedule = self._schedule(task)
        if schedule is None or task_id is None:
            return
        if state == "FAILURE":
            self._untold.discard(task_id)
            self._put(schedule, "fail", task_id, f"{task.name} failed: run {task_id}")
        elif state == "SUCCESS":
            if task_id in self._untold:
                self._untold.discard(task_id)
                return
            self._put(schedule, "", task_id, task.name)

    def drain(self, **_: Any) -> None:
        """Give what waits a moment to go out: the process is about to end."""
        if self._thread is not None:
            sent = threading.Event()
            self._waiting.put(sent)
            sent.wait(DRAIN_SECONDS)

    def _schedule(self, task: Any) -> str | None:
        schedule = schedule_of(task)
        if schedule is None or not self._patterns:
            return schedule
        return schedule if any(fnmatchcase(schedule, each) for each in self._patterns) else None

    def _put(
        self, schedule: str, what: What, run_id: str, body: str, *, attempts: int = ATTEMPTS
    ) -> None:
        if self._waiting.qsize() >= WAITING_AT_MOST:
            return
        url = re.sub(r"\{slug\}", quote(slug(schedule)), self._template)
        self._waiting.put(_Ping(address(url, what, run_id), body, attempts))
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._send_all, name="heartbeats", daemon=True
                    )
                    self._thread.start()

    def _send_all(self) -> None:
        while True:
            item = self._waiting.get()
            if isinstance(item, threading.Event):
                item.set()
            else:
                self._send(item)

    def _send(self, item: _Ping) -> None:
        for left in reversed(range(item.attempts)):
            try:
                ping(item.url, item.body)
                return
            except PingRefused as error:
                if not left:
                    logger.warning("heartbeat of a schedule not taken: %s", error)
                    return
            time.sleep(PAUSE_SECONDS)
