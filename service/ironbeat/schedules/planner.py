"""From due schedules to committed runs.

The planner reads what is due without a lock, computes fires and next times with the pure cadence
and policies, and hands all of it to one statement that makes fires, runs and the schedules' next
times together. The statement takes only rows that are still as they were read, so any number of
planners may do this at once: each slot is fired by exactly one. The clock is the database's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid5

import orjson
import psycopg
from psycopg.rows import namedtuple_row

from ironbeat import queries
from ironbeat.runs.model import Message
from ironbeat.schedules import cadence, message, policies
from ironbeat.schedules.store import ScheduleNotFound

logger = logging.getLogger(__name__)

SQL = queries.load("ironbeat.schedules", "planner.sql")

# Run ids are uuid5 of the slot, so that whoever fires a slot names its run alike.
NAMESPACE = UUID("7c0f4d9e-31c5-5d0b-9f5e-6a2f6f0a9b11")

# The submitter publishes at once; only if it dies does the outbox, after this long.
GRACE_SECONDS = 3.0
# Another beat's schedules are fired by this one when they are late by this much.
PATIENCE_SECONDS = 0.75
LIMIT = 1000

Connection = psycopg.Connection[Any]
Route = Callable[[str], str]


@dataclass(slots=True)
class Fired:
    """What one pass did.

    ``publish``: runs to hand to the broker now, with their messages. ``cancel`` and ``stop``: older
    runs of the same schedules that overlap policy ``cancel_other`` ends, waiting and running ones.
    ``lateness``: seconds between due time and this pass, per fire. ``taken`` is how many schedules
    were read as due.
    """

    publish: list[tuple[str, Message]] = field(default_factory=list)
    cancel: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    taken: int = 0


def run_id(schedule_id: int, scheduled_for: datetime) -> str:
    """The id of the run that a schedule's slot makes."""
    return str(uuid5(NAMESPACE, f"{schedule_id}:{scheduled_for.isoformat()}"))


@lru_cache(maxsize=65536)
def _cadence(kind: str, expression: str, timezone: str, anchor: datetime) -> cadence.Cadence:
    return cadence.parse(kind, expression, timezone, anchor=anchor)


def plan_new(connection: Connection, *, limit: int = LIMIT) -> int:
    """Give schedules that are new, edited or resumed their first fire; returns how many."""
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        rows: list[Any] = cursor.execute(SQL["unplanned"], {"limit": limit}).fetchall()
    if not rows:
        return 0
    plans = []
    for row in rows:
        first = None
        try:
            first = policies.first(
                _cadence(row.kind, row.expression, row.timezone, row.anchor_at),
                now=row.now,
                starts_at=row.starts_at,
                ends_at=row.ends_at,
                jitter_seconds=row.jitter_seconds,
                key=row.name,
            )
        except cadence.CadenceError as error:
            logger.error("schedule %s never fires until it is mended: %s", row.name, error)
        plans.append(
            {
                "id": row.id,
                "updated_at": row.updated_at,
                "next_scheduled_for": first[0] if first else None,
                "next_fire_at": first[1] if first else None,
            }
        )
    connection.execute(SQL["plan_first"], {"plans": orjson.dumps(plans).decode()})
    return len(rows)


def fire_due(
    connection: Connection,
    route: Route,
    *,
    place: int = 0,
    beats: int = 1,
    patience: float = PATIENCE_SECONDS,
    limit: int = LIMIT,
    grace: float = GRACE_SECONDS,
) -> Fired:
    """Fire what is due, up to ``limit`` schedules, and commit.

    ``route`` gives the queue of a task whose schedule names none. ``place`` of ``beats`` is this
    planner's share: it leaves other planners' schedules alone until they are ``patience`` seconds
    late, which saves double work and is never needed for correctness. The outbox leaves the runs to
    the caller, who publishes them, for ``grace`` seconds.
    """
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        rows: list[Any] = cursor.execute(
            SQL["due"], {"place": place, "beats": beats, "patience": patience, "limit": limit}
        ).fetchall()
    fired = Fired(taken=len(rows))
    if not rows:
        return fired
    plans: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    messages: dict[str, Message] = {}
    for row in rows:
        plan = _plan(row)
        plans.append(
            {
                "id": row.id,
                "expected": row.next_fire_at,
                "next_scheduled_for": plan.next_scheduled_for,
                "next_fire_at": plan.next_fire_at,
                "last_scheduled_for": plan.fires[-1].scheduled_for if plan.fires else None,
                "overlap": row.overlap,
            }
        )
        runs.extend(_skipped(row, span, route) for span in plan.skipped)
        for fire in plan.fires:
            run, body = _run(row, fire.scheduled_for, route)
            runs.append(run)
            messages[run["id"]] = body
            fired.lateness.append((row.now - fire.due_at).total_seconds())
    parameters = {
        "plans": orjson.dumps(plans).decode(),
        "runs": orjson.dumps(runs).decode(),
        "grace": grace,
    }
    for id, what in connection.execute(SQL["fire"], parameters).fetchall():
        if what == "go":
            fired.publish.append((id, messages[id]))
        elif what == "cancel":
            fired.cancel.append(id)
        elif what == "stop":
            fired.stop.append(id)
    return fired


def _plan(row: Any) -> policies.Plan:
    try:
        return policies.plan(
            _cadence(row.kind, row.expression, row.timezone, row.anchor_at),
            scheduled_for=row.next_scheduled_for,
            now=row.now,
            catch_up=row.catch_up,
            catch_up_max=row.catch_up_max,
            catch_up_window=_seconds(row.catch_up_window_seconds),
            ends_at=row.ends_at,
            jitter_seconds=row.jitter_seconds,
            key=row.name,
        )
    except cadence.CadenceError as error:
        logger.error("schedule %s never fires until it is mended: %s", row.name, error)
        return policies.Plan((), (), None, None)


def _seconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _run(row: Any, scheduled_for: datetime, route: Route) -> tuple[dict[str, Any], Message]:
    """The run of one slot as the statement takes it, and its message."""
    id = run_id(row.id, scheduled_for)
    expires_at = row.now + timedelta(seconds=row.expires_seconds) if row.expires_seconds else None
    queue = row.queue or route(row.task)
    argsrepr, kwargsrepr = message.shortened(tuple(row.args)), message.shortened(row.kwargs)
    body = message.build(
        id=id,
        task=row.task,
        args=row.args,
        kwargs=row.kwargs,
        headers=row.headers,
        queue=queue,
        priority=row.priority,
        expires_at=expires_at,
        header={
            "created_at": row.now.isoformat(),
            "durable": True,
            "workload": row.workload,
            "schedule": row.name,
            "scheduled_for": scheduled_for.isoformat(),
        },
        argsrepr=argsrepr,
        kwargsrepr=kwargsrepr,
    )
    run = {
        "id": id,
        "schedule_id": row.id,
        "schedule_name": row.name,
        "scheduled_for": scheduled_for,
        "state": "pending",
        "reason": None,
        "created_at": row.now,
        "task": row.task,
        "workload": row.workload,
        "queue": queue,
        "priority": row.priority,
        "expires_at": expires_at,
        "argsrepr": argsrepr,
        "kwargsrepr": kwargsrepr,
        "message": message.text(body),
    }
    return run, body


def _skipped(row: Any, span: policies.Skipped, route: Route) -> dict[str, Any]:
    """A run that stands for missed fires: one row, however many they were."""
    reason = span.reason
    if span.count > 1:
        reason = f"{reason}: {span.count} fires from {span.first} to {span.last}"
    return {
        "id": run_id(row.id, span.first),
        "schedule_id": row.id,
        "schedule_name": row.name,
        "scheduled_for": span.first,
        "state": "skipped",
        "reason": reason,
        "created_at": row.now,
        "task": row.task,
        "workload": row.workload,
        "queue": row.queue or route(row.task),
        "priority": row.priority,
    }


def seconds_to_next(connection: Connection) -> float | None:
    """How long until the next fire is due, in seconds; ``None`` when none will come."""
    row = connection.execute(SQL["next"]).fetchone()
    return None if row is None else row[0]


def place_among_beats(connection: Connection, lease: str) -> tuple[int, int]:
    """This beat's place among the live ones, and how many they are."""
    ids = [row[0] for row in connection.execute(SQL["beats"]).fetchall()]
    return (ids.index(lease), len(ids)) if lease in ids else (0, 1)


def trouble(connection: Connection, overdue_seconds: float) -> str:
    """What keeps due work from being done, in words; the empty text where nothing does."""
    row = connection.execute(SQL["around"]).fetchone()
    assert row is not None
    workers, overdue = row
    if not workers:
        return "no active workers"
    if overdue is not None and overdue > overdue_seconds:
        return f"a schedule has been due for {overdue:.0f} s"
    return ""


def fire_now(connection: Connection, name: str, route: Route) -> list[tuple[str, Message]]:
    """Run a schedule's task now, whatever its policies; its next fires stay as they are.

    Returns the run to publish. Raises :class:`ScheduleNotFound`.
    """
    row = _by_name(connection, name)
    return _fire_by_hand(connection, row, [row.now], route)


def backfill(
    connection: Connection,
    name: str,
    since: datetime,
    until: datetime,
    route: Route,
    *,
    limit: int = LIMIT,
) -> list[tuple[str, Message]]:
    """Make the runs of all slots in ``[since, until)`` that never had one, at most ``limit``.

    Returns the runs to publish. Raises :class:`ScheduleNotFound`, and :class:`ValueError` when the
    range holds more slots than ``limit`` or reaches into the future.
    """
    row = _by_name(connection, name)
    if until > row.now:
        raise ValueError(f"the range ends at {until}, in the future; it may end at {row.now}")
    slots = slots_between(
        _cadence(row.kind, row.expression, row.timezone, row.anchor_at), since, until, limit
    )
    return _fire_by_hand(connection, row, slots, route)


def slots_between(
    times: cadence.Cadence, since: datetime, until: datetime, limit: int
) -> list[datetime]:
    """The nominal times in ``[since, until)``; raises :class:`ValueError` beyond ``limit``."""
    found: list[datetime] = []
    slot = times.after(since - timedelta(microseconds=1))
    while slot is not None and slot < until:
        found.append(slot)
        if len(found) > limit:
            raise ValueError(f"more than {limit} fires lie in this range; choose a shorter one")
        slot = times.after(slot)
    return found


def _by_name(connection: Connection, name: str) -> Any:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        row = cursor.execute(SQL["by_name"], {"name": name}).fetchone()
    if row is None:
        raise ScheduleNotFound(name)
    return row


def _fire_by_hand(
    connection: Connection, row: Any, slots: Sequence[datetime], route: Route
) -> list[tuple[str, Message]]:
    made = [_run(row, slot, route) for slot in slots]
    rows = connection.execute(
        SQL["fire_by_hand"],
        {"runs": orjson.dumps([run for run, _ in made]).decode(), "grace": GRACE_SECONDS},
    ).fetchall()
    created = {found[0] for found in rows}
    return [(run["id"], body) for run, body in made if run["id"] in created]
