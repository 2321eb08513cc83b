"""A worker's side of throttles: which one an execution is under, entering it, leaving it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ironbeat.execution.custody import consumption
from ironbeat.runs.model import LedgerUnavailable
from ironbeat.runs.throttles import Throttles
from ironbeat.throttle import Throttle, ThrottleError

logger = logging.getLogger(__name__)

# Hands messages to the broker, in front of all that waits in their queues.
PublishFirst = Callable[[Sequence[tuple[str, Any]]], None]


class Turns:
    """Lets executions of this process begin when it is their turn.

    ``settings`` are throttles by task, which win over what tasks declare. ``publish_first`` is
    ``None`` where there is no broker: then whoever draws from the ledger finds what is due.
    """

    def __init__(
        self,
        throttles: Throttles,
        lease: str,
        settings: Mapping[str, Throttle],
        publish_first: PublishFirst | None,
    ) -> None:
        self._throttles = throttles
        self._lease = lease
        self._settings = settings
        self._publish_first = publish_first

    def throttle_of(self, task: Any) -> Throttle | None:
        """The throttle of a task, if it has one."""
        found = self._settings.get(task.name) or getattr(task, "throttle", None)
        return found if isinstance(found, Throttle) else None

    def name(
        self, throttle: Throttle, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> str:
        """The name under which a call counts; of a key that is not there, the task's own."""
        try:
            return throttle.of(task, args, kwargs)
        except (ThrottleError, TypeError) as error:
            logger.error("%s; all its runs share one limit", error)
            return str(task.name)

    def enter(
        self,
        throttle: Throttle,
        name: str,
        run: str,
        attempt: int,
        message: Callable[[], str],
        give_up: Callable[[], bool],
    ) -> bool:
        """Whether the attempt may begin now; if not, its run has gone back to the ledger.

        Waits while PostgreSQL is away, as claiming does; raises :class:`LedgerUnavailable` once
        ``give_up`` says so.
        """
        pause = 0.2
        while True:
            try:
                return self._throttles.enter(throttle, name, run, attempt, self._lease, message())
            except LedgerUnavailable as error:
                if give_up():
                    raise
                logger.warning("waiting for the ledger before %s: %s", run, error)
                time.sleep(pause)
                pause = min(2.0, pause * 2)

    def leave(self, name: str, run: str) -> None:
        """The attempt is over: call who waits for its place, and put it first in its queue.

        It has waited long enough. Whatever fails here, a beat's sweep does.
        """
        try:
            called = self._throttles.leave(name, run)
            if called and self._publish_first is not None and not consumption.broker_lost():
                self._publish_first(self._throttles.take(called))
        except Exception as error:
            logger.warning("place of run %s under %s is given on later: %s", run, name, error)
