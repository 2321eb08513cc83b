"""RedBeat, its schedules in the same Redis; it looks for edits every five seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import celery
from celery.schedules import schedule

from benchmarks.programs import BINARIES
from benchmarks.schedulers import (
    EDITED,
    EDITED_NAME,
    IDLE_SECONDS,
    QUEUE,
    TASK,
    broker,
    period,
    soon,
)

app = celery.Celery("bench", broker=broker())
app.conf.update(
    task_default_queue=QUEUE,
    timezone="UTC",
    redbeat_redis_url=os.environ["BENCH_RESULTS"],
    beat_max_loop_interval=5,
)


def command() -> Sequence[str]:
    """The program."""
    return (
        *(str(BINARIES / "celery"), "-A", __name__, "beat"),
        *("--scheduler", "redbeat.RedBeatScheduler"),
    )


def fill(count: int, per_second: float) -> float:
    """Make the schedules."""
    from redbeat import RedBeatSchedulerEntry

    start = soon(count, seconds_each=0.004)
    seconds = period(count, per_second)
    due = datetime.fromtimestamp(start, UTC) - timedelta(seconds=seconds)
    every = schedule(timedelta(seconds=seconds), app=app)
    for number in range(count):
        RedBeatSchedulerEntry(
            f"bench-{number}",
            TASK,
            every,
            args=[number],
            app=app,
            last_run_at=due + timedelta(seconds=number / per_second),
        ).save()
    rarely = schedule(timedelta(seconds=IDLE_SECONDS), app=app)
    RedBeatSchedulerEntry(
        EDITED_NAME, TASK, rarely, args=[EDITED], app=app, last_run_at=datetime.now(UTC)
    ).save()
    return start


def edit() -> float:
    """Make it due at once: each second instead of never."""
    from redbeat import RedBeatSchedulerEntry

    entry = RedBeatSchedulerEntry.from_key(f"redbeat:{EDITED_NAME}", app=app)
    entry.schedule = schedule(timedelta(seconds=1), app=app)
    entry.save()
    return time.time()
