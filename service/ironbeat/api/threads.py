"""Blocking calls beside the event loop, each with an end.

A call to a server that hangs cannot be ended from outside; its thread is left behind, and counted.
When too many are left behind, requests are refused at once instead of piling up. The threads are
daemons, so that none keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ironbeat.api.problems import Problem

MOST_THREADS = 32
SECONDS = 10.0

Result = TypeVar("Result")


class Threads:
    """Runs blocking calls, at most so many at a time, each waited for at most so long."""

    def __init__(self, most: int = MOST_THREADS, seconds: float = SECONDS):
        self._most = most
        self._seconds = seconds
        self._busy = 0
        self._lock = threading.Lock()

    @property
    def busy(self) -> int:
        """How many threads are at work or left behind."""
        return self._busy

    async def run(self, call: Callable[[], Result], seconds: float | None = None) -> Result:
        """What ``call`` returns or raises.

        Raises :class:`Problem` (503) when it takes too long or all threads are busy.
        """
        limit = self._seconds if seconds is None else seconds
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        while not self._take():
            if loop.time() >= deadline:
                raise Problem(503, "Too many requests wait for the database; try again later.")
            await asyncio.sleep(0.02)
        answer: asyncio.Future[Result] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            outcome: Any = None
            error: BaseException | None = None
            try:
                outcome = context.run(call)
            except BaseException as raised:
                error = raised
            finally:
                self._give()
            # The loop may be gone by then.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, answer, outcome, error)

        threading.Thread(target=work, name="ironbeat-request", daemon=True).start()
        try:
            return await asyncio.wait_for(answer, max(0.05, deadline - loop.time()))
        except TimeoutError:
            if answer.done() and not answer.cancelled():
                raise
            raise Problem(503, f"No answer within {limit:g} s; a server hangs.") from None

    def _take(self) -> bool:
        with self._lock:
            if self._busy >= self._most:
                return False
            self._busy += 1
            return True

    def _give(self) -> None:
        with self._lock:
            self._busy -= 1


def _settle(answer: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is not None:
        # A coroutine cannot be ended by these; asyncio refuses the first outright.
        if isinstance(error, StopIteration | SystemExit | KeyboardInterrupt):
            error = RuntimeError(f"{type(error).__name__} in a request")
        answer.set_exception(error)
    else:
        answer.set_result(outcome)
