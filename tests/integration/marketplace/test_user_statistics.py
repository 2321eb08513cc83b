"""Every user's statistics follow from their tasks, coupons, codes, points and chats."""

from __future__ import annotations

from decimal import Decimal

import pytest
from tests.marketplace import Market, at_once

from ironbeat.workloads.marketplace import batches, tasks

update = tasks.update_all_users_statistics

COLUMNS = (
    "tasks_posted",
    "tasks_completed",
    "tasks_cancelled",
    "reward_paid",
    "coupons_used",
    "invitations",
    "points_earned",
    "points_spent",
    "points_expired",
    "chats",
)


def figures(market: Market, user: int) -> dict[str, int | Decimal]:
    (row,) = market.run(
        f"SELECT {', '.join(COLUMNS)} FROM marketplace.user_statistics WHERE user_id = %s", user
    )
    return dict(zip(COLUMNS, row, strict=True))


def counts(users: int, changed: int, removed: int = 0) -> dict[str, int | bool]:
    return {
        "users": users,
        "changed": changed,
        "removed": removed,
        "more": False,
        "elsewhere": False,
    }


def test_the_figures_are_those_of_the_users_rows(market: Market) -> None:
    user, quiet = market.user(), market.user()
    expert = market.expert()
    task = {"owner_id": user, "title": "Move a sofa", "deadline_at": "1 day"}
    market.add("tasks", **task)
    market.add("tasks", **task, status="taken", expert_id=expert, reward=99)
    done = {"status": "completed", "completed_at": "-1 day", "expert_id": expert}
    market.add("tasks", **task, **done, reward=Decimal("12.30"))
    market.add("tasks", **task, **done, reward=Decimal("0.75"))
    market.add("tasks", **task, status="cancelled", cancelled_at="0", cancel_reason="owner")
    for number, used in enumerate([True, True, False]):
        market.add(
            "coupons",
            user_id=user,
            code=f"C{number}",
            discount=1,
            expires_at="1 day",
            **({"status": "used", "used_at": "0"} if used else {}),
        )
    market.add("invitation_codes", inviter_id=user, code="a", uses=3, max_uses=5)
    market.add("invitation_codes", inviter_id=user, code="b", uses=1, max_uses=5)
    market.run("SELECT marketplace.grant_points(%s, 100, now() + interval '1 day')", user)
    market.run("SELECT marketplace.grant_points(%s, 20, now() - interval '1 day')", user)
    market.run("SELECT marketplace.spend_points(%s, 30)", user)
    market.run(
        "INSERT INTO marketplace.points_ledger (user_id, lot_id, kind, amount)"
        " SELECT user_id, lot_id, 'refund', 5 FROM marketplace.points_ledger WHERE kind = 'spend'"
    )
    tasks.check_expired_points()
    market.chat(idle="2 days", customer_id=user, expert_id=expert)
    market.chat(idle="1 hour", customer_id=user)

    assert update()["changed"] == market.value("SELECT count(*) FROM marketplace.users")

    assert figures(market, user) == {
        "tasks_posted": 5,
        "tasks_completed": 2,
        "tasks_cancelled": 1,
        "reward_paid": Decimal("13.05"),
        "coupons_used": 2,
        "invitations": 4,
        "points_earned": 120,
        "points_spent": 25,
        "points_expired": 20,
        "chats": 2,
    }
    assert market.value(
        "SELECT last_chat_at = (SELECT max(last_activity_at) FROM marketplace.chats)"
        " FROM marketplace.user_statistics WHERE user_id = %s",
        user,
    )
    assert set(figures(market, quiet).values()) == {0}


def test_only_what_changed_is_written(market: Market) -> None:
    users = market.users(5)
    assert update() == counts(users=5, changed=5)
    before = market.fingerprint("user_statistics")
    assert update() == counts(users=5, changed=0)
    assert market.fingerprint("user_statistics") == before
    market.add("tasks", owner_id=users[2], title="Walk the dog", deadline_at="1 day")
    assert update() == counts(users=5, changed=1)
    assert figures(market, users[2])["tasks_posted"] == 1


def test_no_users_no_statistics(market: Market) -> None:
    assert update() == counts(users=0, changed=0)


@pytest.mark.parametrize("number", [9, 10, 11, 25])
def test_all_users_are_reached_however_many_batches_it_takes(
    market: Market, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(tasks, "STATISTICS_BATCH_USERS", 5)
    market.users(number)
    market.run("DELETE FROM marketplace.users WHERE mod(id, 4) = 0")
    left = market.value("SELECT count(*) FROM marketplace.users")
    assert update() == counts(users=left, changed=left)
    assert update() == counts(users=left, changed=0)


def test_statistics_of_users_who_are_gone_go_too(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "STATISTICS_BATCH_USERS", 4)
    users = market.users(10)
    update()
    gone = [users[0], users[5], users[9]]
    market.run("DELETE FROM marketplace.users WHERE id = ANY(%s)", gone)
    assert update() == counts(users=7, changed=0, removed=3)
    market.run("DELETE FROM marketplace.users")
    assert update() == counts(users=0, changed=0, removed=7)


def test_of_two_runs_at_once_one_reaches_everybody(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "STATISTICS_BATCH_USERS", 3)
    market.users(60)
    results = at_once(update, update, update)
    assert sum(each["changed"] for each in results) == 60
    finished = [each for each in results if not each["elsewhere"]]
    assert [each["users"] for each in finished if not each["more"]].count(60) >= 1


def test_a_run_leaves_the_work_to_one_that_is_at_it(market: Market) -> None:
    market.users(3)
    with batches.transaction() as cursor:
        assert batches.exclusively(cursor, "user_statistics")
        (other,) = at_once(update)
    assert other["elsewhere"]
    assert other["changed"] == 0
