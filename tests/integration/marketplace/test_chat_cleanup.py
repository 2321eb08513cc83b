"""Chats long inactive are removed with everything in them."""

from __future__ import annotations

import pytest
from tests.marketplace import Market, at_once

from ironbeat.workloads.marketplace import batches, tasks

cleanup = tasks.cleanup_long_inactive_chats


def old_chat(market: Market, idle: str = "31 days") -> int:
    chat = market.chat(idle=idle)
    market.say(chat, "customer", "-90 days")
    market.say(chat, "agent", "-90 days")
    return chat


def test_old_chats_go_with_their_messages_and_recent_ones_stay(market: Market) -> None:
    old_chat(market)
    recent = old_chat(market, idle="29 days")
    market.run(
        "INSERT INTO marketplace.notifications (kind, user_id, chat_id, occasion, body)"
        " SELECT 'chat_timeout_warning', customer_id, id, now(), '…' FROM marketplace.chats"
    )
    assert cleanup() == {"chats": 1, "messages": 2, "more": False}
    for query in (
        "SELECT id FROM marketplace.chats",
        "SELECT DISTINCT chat_id FROM marketplace.chat_messages",
        "SELECT chat_id FROM marketplace.notifications",
    ):
        assert market.run(query) == [recent]


def test_ended_chats_go_too_and_their_place_in_the_queue_stays_as_history(market: Market) -> None:
    market.agent()
    market.queue()
    tasks.process_customer_service_queue()
    market.run("UPDATE marketplace.chats SET last_activity_at = now() - interval '31 days'")
    tasks.auto_end_timeout_chats()
    assert cleanup()["chats"] == 1
    assert market.run("SELECT status FROM marketplace.customer_queue") == ["assigned"]


def test_an_open_chat_that_goes_gives_its_agents_place_back(market: Market) -> None:
    chat = old_chat(market)
    agent = market.value("SELECT agent_id FROM marketplace.chats WHERE id = %s", chat)
    cleanup()
    assert market.value("SELECT active_chats FROM marketplace.agents WHERE id = %s", agent) == 0


def test_a_chat_that_may_rest_for_longer_is_kept(market: Market) -> None:
    market.chat(idle="31 days", expert_id=market.expert(), idle_limit="60 days")
    assert cleanup() == {"chats": 0, "messages": 0, "more": False}


def test_a_rerun_and_an_empty_marketplace_change_nothing(market: Market) -> None:
    assert cleanup() == {"chats": 0, "messages": 0, "more": False}
    old_chat(market)
    market.chat()
    cleanup()
    before = market.fingerprint("chats", "chat_messages", "agents")
    assert cleanup() == {"chats": 0, "messages": 0, "more": False}
    assert market.fingerprint("chats", "chat_messages", "agents") == before


@pytest.mark.parametrize(
    ("idle", "removed"), [("719:59:59.999999", 0), ("720:00:00", 1), ("31 days", 1)]
)
def test_thirty_days_exactly_are_long_enough(market: Market, idle: str, removed: int) -> None:
    market.chat()
    with batches.transaction() as cursor:
        cursor.execute(
            "UPDATE marketplace.chats SET last_activity_at = now() - %s::interval", [idle]
        )
        counts = batches.one(
            cursor,
            "remove_chats",
            batch=10,
            after_time="-infinity",
            after_id=0,
            inactive_days=tasks.INACTIVE_DAYS,
        )
    assert counts["chats"] == removed


def test_the_number_of_days_can_be_given(market: Market) -> None:
    market.chat(idle="8 days")
    assert cleanup()["chats"] == 0
    assert cleanup(inactive_days=7)["chats"] == 1


@pytest.mark.parametrize("days", [0, -1])
def test_no_days_at_all_are_refused_and_remove_nothing(market: Market, days: int) -> None:
    market.chat()
    with pytest.raises(ValueError, match="at least 1"):
        cleanup(inactive_days=days)
    assert market.value("SELECT count(*) FROM marketplace.chats") == 1


def test_two_runs_at_once_share_the_work(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        batches.drain, "__kwdefaults__", {"batch": 3, "budget_seconds": batches.BUDGET_SECONDS}
    )
    for _ in range(30):
        old_chat(market)
    results = [*at_once(cleanup, cleanup), cleanup()]
    assert sum(each["chats"] for each in results) == 30
    assert sum(each["messages"] for each in results) == 60
    assert market.value("SELECT sum(active_chats) FROM marketplace.agents") == 0
