"""Beat schedulers under measurement, one module each.

Every module offers ``command()``, the program; ``fill(count, per_second)``, which makes ``count``
schedules of one period, of which ``per_second`` come due each second, in the order of their
numbers, and returns when the first one does (seconds since the epoch, a little ahead); and
``edit()``, which changes a further schedule, not due for days, so that it is due as soon as the
program learns of it, and returns when that was committed. Each schedule sends the task
``bench.fire`` with its number; the edited one's is ``EDITED``.
"""

from __future__ import annotations

import os
import time

TASK = "bench.fire"
QUEUE = "default"
EDITED = -1
EDITED_NAME = "bench-edited"
#: The period of the schedule to be edited, before: twelve days.
IDLE_SECONDS = 1_000_000


def broker() -> str:
    """The Redis that messages are sent to."""
    return os.environ["BENCH_BROKER"]


def database() -> str:
    """The PostgreSQL database that schedules lie in."""
    return os.environ["IRONBEAT_DATABASE_URL"]


def period(count: int, per_second: float) -> int:
    """How often each of ``count`` schedules fires, in seconds, for ``per_second`` together."""
    return max(1, round(count / per_second))


def soon(count: int, *, seconds_each: float) -> float:
    """When so many schedules will have been made, if each takes so long."""
    return time.time() + 3.0 + count * seconds_each
