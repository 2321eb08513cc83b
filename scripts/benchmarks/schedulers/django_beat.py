"""django-celery-beat, its tables in the same PostgreSQL."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import celery

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

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.schedulers.django_settings")


def command() -> Sequence[str]:
    """The program."""
    scheduler = "django_celery_beat.schedulers:DatabaseScheduler"
    return (str(BINARIES / "celery"), "-A", __name__, "beat", "--scheduler", scheduler)


def _application() -> celery.Celery:
    import django

    django.setup()
    made = celery.Celery("bench", broker=broker())
    made.conf.update(task_default_queue=QUEUE, timezone="UTC")
    return made


def fill(count: int, per_second: float) -> float:
    """Make the schedules."""
    from django.core.management import call_command
    from django.db import connection
    from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks

    call_command("migrate", verbosity=0)
    start = soon(count, seconds_each=0.001)
    seconds = period(count, per_second)
    every = IntervalSchedule.objects.create(every=seconds, period="seconds")
    rarely = IntervalSchedule.objects.create(every=IDLE_SECONDS, period="seconds")
    due = datetime.fromtimestamp(start, UTC) - timedelta(seconds=seconds)
    PeriodicTask.objects.bulk_create(
        [
            PeriodicTask(
                name=f"bench-{number}",
                task=TASK,
                args=f"[{number}]",
                interval=every,
                last_run_at=due + timedelta(seconds=number / per_second),
            )
            for number in range(count)
        ],
        batch_size=2000,
    )
    PeriodicTask.objects.create(
        name=EDITED_NAME,
        task=TASK,
        args=f"[{EDITED}]",
        interval=rarely,
        last_run_at=datetime.now(UTC),
    )
    PeriodicTasks.update_changed()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE django_celery_beat_periodictask")
    return start


def edit() -> float:
    """Make it due at once: each second instead of never."""
    from django_celery_beat.models import IntervalSchedule, PeriodicTask

    task = PeriodicTask.objects.get(name=EDITED_NAME)
    task.interval = IntervalSchedule.objects.create(every=1, period="seconds")
    task.save()
    return time.time()


app = _application()
