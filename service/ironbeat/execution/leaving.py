"""How a worker process ends when it cannot end by itself, and what its exit status says.

supervisord starts it again after any of these.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from enum import IntEnum

from ironbeat.execution.custody import Custody, custodies
from ironbeat.execution.ledger_transport import Holdings, holdings

logger = logging.getLogger(__name__)

COURTESY_SECONDS = 10.0


class ExitStatus(IntEnum):
    """Exit statuses of a worker beside 0 (stopped) and 1 (failed)."""

    HARD_LIMIT = 70
    TERMINATED = 71
    STALLED = 72
    RECYCLED = 75


#: Called before the process leaves, after its messages were given back.
farewells: list[Callable[[], None]] = []

_leaving = threading.Lock()


def leave(status: ExitStatus, why: str) -> None:
    """End this process from any thread, whatever its other threads are doing.

    What is done is acknowledged, what is not is given back, as far as that takes no longer than
    ``COURTESY_SECONDS``. The rest is taken over when the lease has lapsed. Does not return.
    """
    # The first thread that gets here ends the process; others wait for that.
    _leaving.acquire()
    logger.critical("worker leaves: %s", why)
    courtesies = threading.Thread(target=_take_leave, name="leaving", daemon=True)
    courtesies.start()
    courtesies.join(COURTESY_SECONDS)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(status)


def _take_leave() -> None:
    holders: tuple[Custody | Holdings, ...] = (*custodies(), holdings)
    for custody in holders:
        try:
            returned = custody.abandon()
            logger.warning("%d messages given back", returned)
        except Exception:
            logger.exception("while giving messages back")
    for farewell in tuple(farewells):
        try:
            farewell()
        except Exception:
            logger.exception("while leaving")
