"""Rows as the other parts of the suite write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest


class Ledger:
    """Puts rows into the platform's tables; times are seconds before now."""

    def __init__(self, connection: psycopg.Connection[Any]):
        self.connection = connection

    def lease(
        self,
        id: str,
        kind: str = "worker",
        queues: tuple[str, ...] = (),
        lapsed: float = -60.0,
        renewed: float = 0.0,
        info: dict[str, Any] | None = None,
        ticked: float | None = None,
    ) -> None:
        self.connection.execute(
            """INSERT INTO ironbeat.leases (id, kind, name, host, pid, queues, renewed_at,
                                            expires_at, info)
               SELECT %s, %s, %s || '@here', 'here', 4711, %s,
                   clock_timestamp() - make_interval(secs => %s),
                   clock_timestamp() - make_interval(secs => %s),
                   %s::jsonb || CASE WHEN %s::float8 IS NULL THEN '{}' ELSE jsonb_build_object(
                       'beat', jsonb_build_object('fired', 7, 'lateness_ms', 1.5, 'last_tick_at',
                           to_char((clock_timestamp() - make_interval(secs => %s))
                               AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'))) END""",
            (
                *(id, kind, id, list(queues), renewed, lapsed),
                *(json.dumps(info or {}), ticked, ticked or 0.0),
            ),
        )

    def schedule(self, name: str, due_in: float | None = 60.0, **columns: Any) -> int:
        values = {"task": "t", "kind": "interval", "expression": "30s", "timezone": "UTC"} | columns
        names = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        row = self.connection.execute(
            f"""INSERT INTO ironbeat.schedules (name, next_fire_at, next_scheduled_for, {names})
                SELECT %s, clock_timestamp() + make_interval(secs => %s),
                       clock_timestamp() + make_interval(secs => %s), {marks} RETURNING id""",
            (name, due_in, due_in, *values.values()),
        ).fetchone()
        return row[0]

    def fire(self, schedule_id: int, ago: float, late: float) -> None:
        self.connection.execute(
            """INSERT INTO ironbeat.fires (schedule_id, scheduled_for, run_id, fired_at)
               SELECT %s, clock_timestamp() - make_interval(secs => %s), 'r',
                      clock_timestamp() - make_interval(secs => %s)""",
            (schedule_id, ago + late, ago),
        )

    def ended(
        self,
        id: str,
        state: str = "succeeded",
        ago: float = 10.0,
        took: float = 1.0,
        waited: float = 0.5,
        **columns: Any,
    ) -> None:
        values = {"task": "t", "attempt": 1} | columns
        names = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        self.connection.execute(
            f"""INSERT INTO ironbeat.run_history (id, state, created_at, started_at, ended_at,
                                                  {names})
                SELECT %s, %s, now() - make_interval(secs => %s),
                       now() - make_interval(secs => %s),
                       now() - make_interval(secs => %s), {marks}""",
            (id, state, ago + took + waited, ago + took, ago, *values.values()),
        )

    def live(self, id: str, state: str = "pending", **columns: Any) -> None:
        ages = {name: columns.pop(name) for name in ("started_at", "publish_at") if name in columns}
        values = {"task": "t"} | columns
        names = ", ".join([*values, *ages])
        marks = ", ".join(
            ["%s"] * len(values) + ["clock_timestamp() - make_interval(secs => %s)"] * len(ages)
        )
        self.connection.execute(
            f"INSERT INTO ironbeat.runs (id, state, {names}) SELECT %s, %s, {marks}",
            (id, state, *values.values(), *ages.values()),
        )


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield Ledger(connection)
