"""sqlalchemy-celery-beat, its tables in the same PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import celery
import sqlalchemy
from sqlalchemy.orm import Session

from benchmarks.programs import BINARIES
from benchmarks.schedulers import (
    EDITED,
    EDITED_NAME,
    IDLE_SECONDS,
    QUEUE,
    TASK,
    broker,
    database,
    period,
    soon,
)

_URL = database().replace("postgresql://", "postgresql+psycopg://", 1)

app = celery.Celery("bench", broker=broker())
app.conf.update(task_default_queue=QUEUE, timezone="UTC", beat_dburi=_URL, beat_schema="bench")


def command() -> Sequence[str]:
    """The program."""
    scheduler = "sqlalchemy_celery_beat.schedulers:DatabaseScheduler"
    return (str(BINARIES / "celery"), "-A", __name__, "beat", "--scheduler", scheduler)


def _engine() -> sqlalchemy.Engine:
    from sqlalchemy_celery_beat.session import SessionManager

    engine = sqlalchemy.create_engine(_URL)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE SCHEMA IF NOT EXISTS bench"))
    engine, _ = SessionManager().create_session(_URL, schema="bench")
    SessionManager().prepare_models(engine, "bench")
    return engine


def fill(count: int, per_second: float) -> float:
    """Make the schedules."""
    from sqlalchemy_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTaskChanged

    engine = _engine()
    start = soon(count, seconds_each=0.001)
    seconds = period(count, per_second)
    due = datetime.fromtimestamp(start, UTC) - timedelta(seconds=seconds)
    with Session(engine) as session:
        every = IntervalSchedule(every=seconds, period="seconds")
        rarely = IntervalSchedule(every=IDLE_SECONDS, period="seconds")
        session.add_all([every, rarely])
        session.flush()
        rows = [
            {
                "name": f"bench-{number}",
                "task": TASK,
                "args": f"[{number}]",
                "discriminator": every.discriminator,
                "schedule_id": every.id,
                "last_run_at": due + timedelta(seconds=number / per_second),
            }
            for number in range(count)
        ]
        rows.append(
            {
                "name": EDITED_NAME,
                "task": TASK,
                "args": f"[{EDITED}]",
                "discriminator": rarely.discriminator,
                "schedule_id": rarely.id,
                "last_run_at": datetime.now(UTC),
            }
        )
        session.execute(sqlalchemy.insert(PeriodicTask), rows)
        PeriodicTaskChanged.update_from_session(session, commit=False)
        session.commit()
    return start


def edit() -> float:
    """Make it due at once: each second instead of never."""
    from sqlalchemy_celery_beat.models import IntervalSchedule, PeriodicTask

    with Session(_engine()) as session:
        task = session.scalars(sqlalchemy.select(PeriodicTask).filter_by(name=EDITED_NAME)).one()
        each_second = IntervalSchedule(every=1, period="seconds")
        session.add(each_second)
        session.flush()
        task.schedule_model = each_second
        session.commit()
        return time.time()
