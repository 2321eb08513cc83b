"""Sample rows: the same each time, added to politely, and something to do for every schedule."""

from __future__ import annotations

from typing import Any

import pytest
from tests.marketplace import Market

from ironbeat.workloads.marketplace import sample, tasks

USERS = 1200


def load(users: int) -> dict[str, int]:
    return sample.load(scale=users, progress=lambda done, total: None)


def contents(market: Market) -> list[Any]:
    """What does not count from the moment of loading."""
    return [
        market.run(query)
        for query in (
            "SELECT id, username, status FROM marketplace.users ORDER BY id",
            "SELECT name, capacity, status, active_chats FROM marketplace.agents ORDER BY id",
            "SELECT owner_id, expert_id, title, reward, status FROM marketplace.tasks ORDER BY id",
            "SELECT customer_id, agent_id, expert_id, status FROM marketplace.chats ORDER BY id",
            "SELECT code, status FROM marketplace.coupons ORDER BY id",
            "SELECT user_id, kind, amount FROM marketplace.points_ledger ORDER BY id",
            "SELECT user_id, balance FROM marketplace.points_accounts ORDER BY user_id",
        )
    ]


def test_the_same_command_makes_the_same_rows(market: Market) -> None:
    first = load(USERS), contents(market)
    market.empty()
    assert (load(USERS), contents(market)) == first


def test_the_numbers_are_those_of_the_rows(market: Market) -> None:
    added = load(USERS)
    assert added["users"] == USERS
    assert added == {
        table: market.value(f"SELECT count(*) FROM marketplace.{table}") for table in added
    }


def test_loading_again_adds_nothing_and_loading_more_adds_what_is_missing(market: Market) -> None:
    load(500)
    before = market.fingerprint("users", "tasks", "chats", "points_ledger")
    assert set(load(500).values()) == {0}
    assert set(load(100).values()) == {0}
    assert market.fingerprint("users", "tasks", "chats", "points_ledger") == before
    assert load(800)["users"] == 300
    assert market.value("SELECT count(*) FROM marketplace.coupons") == 800


def test_a_marketplace_in_use_is_refused_and_left_alone(market: Market) -> None:
    market.user()
    with pytest.raises(sample.SampleRefused, match="1 users of its own"):
        load(10)
    assert market.value("SELECT count(*) FROM marketplace.users") == 1


def test_no_users_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        load(0)


def test_a_load_that_is_stopped_leaves_nothing(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "CHUNK_USERS", 100)

    def stop(done: int, total: int) -> None:
        if done > 250:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample.load(scale=400, progress=stop)
    assert market.value("SELECT count(*) FROM marketplace.users") == 0
    assert load(400)["users"] == 400


def test_progress_rises_to_the_end(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "CHUNK_USERS", 100)
    reports: list[tuple[int, int]] = []
    sample.load(scale=250, progress=lambda done, total: reports.append((done, total)))
    assert reports == sorted(reports)
    assert {total for _, total in reports} == {250}
    assert reports[-1] == (250, 250)


def test_new_users_come_after_the_sample(market: Market) -> None:
    load(50)
    assert market.user() == 51


def test_every_schedule_finds_work_at_once_and_again_later(market: Market) -> None:
    load(USERS)
    done = {
        "assigned": tasks.process_customer_service_queue(),
        "ended": tasks.auto_end_timeout_chats(),
        "warned": tasks.send_timeout_warnings(),
        "cancelled": tasks.cancel_expired_tasks(),
        "expired": tasks.check_expired_coupons(),
        "lots": tasks.check_expired_points(),
        "changed": tasks.update_all_users_statistics(),
        "chats": tasks.cleanup_long_inactive_chats(),
        "updated": tasks.update_featured_task_experts_response_time(),
    }
    assert all(counts[name] > 0 for name, counts in done.items()), done
    assert tasks.check_expired_invitation_codes()["expired"] > 0
    assert tasks.check_and_end_activities()["ended"] > 0
    soon = "BETWEEN now() AND now() + interval '15 minutes'"
    for table, condition in {
        "tasks": f"status = 'open' AND deadline_at {soon}",
        "coupons": f"status = 'active' AND expires_at {soon}",
        "invitation_codes": f"status = 'active' AND expires_at {soon}",
        "points_lots": f"remaining > 0 AND expires_at {soon}",
        "customer_queue": f"status = 'waiting' AND queued_at {soon}",
        "chats": f"status = 'open' AND times_out_at {soon}",
    }.items():
        assert market.value(f"SELECT count(*) FROM marketplace.{table} WHERE {condition}") > 0, (
            table
        )


def test_the_books_of_the_sample_balance(market: Market) -> None:
    load(USERS)
    assert market.value(
        "SELECT (SELECT sum(balance) FROM marketplace.points_accounts)"
        " = (SELECT sum(amount) FROM marketplace.points_ledger)"
        " AND (SELECT sum(remaining) FROM marketplace.points_lots)"
        " = (SELECT sum(amount) FROM marketplace.points_ledger)"
    )
