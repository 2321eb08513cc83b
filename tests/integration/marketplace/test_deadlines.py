"""Tasks, coupons, invitation codes and activities whose time is over; the four work alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from tests.marketplace import Market, at_once

from ironbeat.workloads.marketplace import batches, tasks


@dataclass(frozen=True)
class Deadline:
    """One of the four, as the tests below see it."""

    task: Callable[[], dict[str, Any]]
    query: str
    table: str
    column: str
    counter: str
    over: str
    # Rows in these states stay as they are, however late it is.
    untouched: tuple[dict[str, Any], ...]

    def add(self, market: Market, due: str, **columns: Any) -> int:
        owner = market.user()
        return market.add(self.table, **self._required(owner), **{self.column: due}, **columns)

    def _required(self, owner: int) -> dict[str, Any]:
        return {
            "tasks": {"owner_id": owner, "title": "Walk the dog"},
            "coupons": {"user_id": owner, "code": f"C{owner}", "discount": 5},
            "invitation_codes": {"inviter_id": owner, "code": f"I{owner}"},
            "activities": {"title": "Market day", "starts_at": "-10 days"},
        }[self.table]

    def state(self, market: Market, row: int) -> Any:
        return market.value(f"SELECT status FROM marketplace.{self.table} WHERE id = %s", row)


DEADLINES = [
    Deadline(
        tasks.cancel_expired_tasks,
        "cancel_tasks",
        "tasks",
        "deadline_at",
        "cancelled",
        "cancelled",
        (
            {"status": "cancelled", "cancelled_at": "-2 days", "cancel_reason": "owner"},
            {"status": "completed", "completed_at": "-2 days", "expert_id": ...},
            {"status": "taken", "expert_id": ...},
        ),
    ),
    Deadline(
        tasks.check_expired_coupons,
        "expire_coupons",
        "coupons",
        "expires_at",
        "expired",
        "expired",
        ({"status": "used", "used_at": "-2 days"},),
    ),
    Deadline(
        tasks.check_expired_invitation_codes,
        "expire_invitation_codes",
        "invitation_codes",
        "expires_at",
        "expired",
        "expired",
        ({"status": "used_up", "uses": 1},),
    ),
    Deadline(
        tasks.check_and_end_activities,
        "end_activities",
        "activities",
        "ends_at",
        "ended",
        "ended",
        ({"status": "cancelled"},),
    ),
]
each_deadline = pytest.mark.parametrize("deadline", DEADLINES, ids=lambda each: each.table)


@each_deadline
def test_what_is_over_ends_and_the_rest_stays(market: Market, deadline: Deadline) -> None:
    late = [deadline.add(market, due) for due in ("-9 days", "-1 second")]
    early = [deadline.add(market, due) for due in ("1 minute", "9 days")]

    assert deadline.task() == {deadline.counter: 2, "more": False}

    assert {deadline.state(market, row) for row in late} == {deadline.over}
    assert deadline.over not in {deadline.state(market, row) for row in early}


@each_deadline
def test_a_rerun_changes_nothing(market: Market, deadline: Deadline) -> None:
    deadline.add(market, "-1 minute")
    deadline.task()
    before = market.fingerprint(deadline.table)
    assert deadline.task() == {deadline.counter: 0, "more": False}
    assert market.fingerprint(deadline.table) == before


@each_deadline
def test_nothing_there_is_nothing_to_do(market: Market, deadline: Deadline) -> None:
    assert deadline.task() == {deadline.counter: 0, "more": False}


@each_deadline
def test_other_states_are_left_alone(market: Market, deadline: Deadline) -> None:
    for columns in deadline.untouched:
        if "expert_id" in columns:
            columns = {**columns, "expert_id": market.expert()}
        deadline.add(market, "-1 day", **columns)
    before = market.fingerprint(deadline.table)
    deadline.task()
    assert market.fingerprint(deadline.table) == before


@each_deadline
def test_the_deadline_itself_is_too_late_and_a_moment_before_is_not(
    market: Market, deadline: Deadline
) -> None:
    exactly = deadline.add(market, "1 hour")
    after = deadline.add(market, "1 hour")
    set_due = (
        f"UPDATE marketplace.{deadline.table} SET {deadline.column} = now() + %s WHERE id = %s"
    )
    # In one transaction the database's clock stands still.
    with batches.transaction() as cursor:
        cursor.execute(set_due, ("0", exactly))  # type: ignore[arg-type]
        cursor.execute(set_due, ("1 microsecond", after))  # type: ignore[arg-type]
        counts = batches.one(cursor, deadline.query, batch=10, after_time="-infinity", after_id=0)
    assert counts[deadline.counter] == 1
    assert deadline.state(market, exactly) == deadline.over
    assert deadline.state(market, after) != deadline.over


@each_deadline
def test_two_runs_at_once_share_the_work(
    market: Market, deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches.drain, "__kwdefaults__", {"batch": 7, "budget_seconds": 30.0})
    for _ in range(100):
        deadline.add(market, "-1 minute")
    # A batch that both wanted at the same moment is one's alone; nothing is left or counted twice.
    results = at_once(*[deadline.task] * 4)
    rest = deadline.task()
    assert sum(each[deadline.counter] for each in [*results, rest]) == 100
    assert (
        market.value(
            f"SELECT count(*) FROM marketplace.{deadline.table} WHERE status = %s", deadline.over
        )
        == 100
    )


@each_deadline
def test_a_row_in_somebody_elses_hands_is_left_to_the_next_run(
    market: Market, deadline: Deadline
) -> None:
    held, free = deadline.add(market, "-2 minutes"), deadline.add(market, "-1 minute")
    with market.connect() as other:
        other.execute(
            f"UPDATE marketplace.{deadline.table} SET {deadline.column} = now() + interval '1 day'"  # type: ignore[arg-type]
            " WHERE id = %s",
            [held],
        )
        assert deadline.task()[deadline.counter] == 1
    assert deadline.state(market, free) == deadline.over
    # What the other one wrote counts.
    assert deadline.task()[deadline.counter] == 0
    assert deadline.state(market, held) != deadline.over


@each_deadline
def test_work_goes_in_batches_until_its_time_is_spent(market: Market, deadline: Deadline) -> None:
    for _ in range(10):
        deadline.add(market, "-1 minute")
    some = batches.drain(deadline.query, batch=4, budget_seconds=0)
    assert some == {deadline.counter: 4, "more": True}
    assert batches.drain(deadline.query, batch=4) == {deadline.counter: 6, "more": False}


def test_a_code_without_a_time_never_expires(market: Market) -> None:
    owner = market.user()
    market.add("invitation_codes", inviter_id=owner, code="for ever")
    assert tasks.check_expired_invitation_codes() == {"expired": 0, "more": False}


def test_a_cancelled_task_says_why_and_when(market: Market) -> None:
    market.add("tasks", owner_id=market.user(), title="Move a sofa", deadline_at="-1 day")
    tasks.cancel_expired_tasks()
    assert market.value(
        "SELECT cancel_reason = 'deadline' AND cancelled_at > now() - interval '1 minute'"
        " FROM marketplace.tasks"
    )
