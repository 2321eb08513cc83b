"""Waiting customers meet free agents: in order, once each, and never too many for an agent."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import psycopg
import pytest
from tests.marketplace import Market, at_once

from ironbeat.workloads.marketplace import batches, tasks

serve = tasks.process_customer_service_queue


def assert_counts_are_true(market: Market) -> None:
    """Each agent's count is that of their open chats, and within their capacity."""
    wrong = market.run(
        "SELECT a.id, a.capacity, a.active_chats, count(c.id) FROM marketplace.agents AS a"
        " LEFT JOIN marketplace.chats AS c ON c.agent_id = a.id AND c.status = 'open'"
        " GROUP BY a.id HAVING a.active_chats <> count(c.id) OR a.active_chats > a.capacity"
    )
    assert wrong == []


def served(market: Market) -> list[Any]:
    """The queue entries that have a chat, in the order of their chats."""
    return market.run(
        "SELECT queue_entry_id FROM marketplace.chats WHERE queue_entry_id IS NOT NULL ORDER BY id"
    )


def test_customers_are_served_in_order_of_arrival(market: Market) -> None:
    market.agent(capacity=3)
    third = market.queue(queued_at="-1 minute")
    first = market.queue(queued_at="-3 minutes")
    market.queue(queued_at="-30 seconds")
    second = market.queue(queued_at="-2 minutes")

    assert serve() == {"assigned": 3, "more": True, "elsewhere": False}

    assert served(market) == [first, second, third]
    assert market.run(
        "SELECT status, assigned_at IS NOT NULL FROM marketplace.customer_queue ORDER BY queued_at"
    ) == [("assigned", True)] * 3 + [("waiting", False)]
    assert_counts_are_true(market)


def test_who_came_at_the_same_moment_is_served_by_number(market: Market) -> None:
    market.agent(capacity=1)
    customers = market.users(3)
    market.run(
        "INSERT INTO marketplace.customer_queue (customer_id, queued_at)"
        " SELECT unnest(%s::bigint[]), now() - interval '1 minute'",
        customers,
    )
    serve()
    assert market.run("SELECT customer_id FROM marketplace.chats") == customers[:1]


def test_the_least_busy_agent_comes_first_and_everybody_in_turn(market: Market) -> None:
    busy, idle = market.agent(capacity=5), market.agent(capacity=5)
    for _ in range(2):
        market.chat(agent_id=busy)
    for minute in range(6):
        market.queue(queued_at=f"-{minute + 1} minutes")
    serve()
    assert market.run(
        "SELECT agent_id FROM marketplace.chats WHERE queue_entry_id IS NOT NULL ORDER BY id"
    ) == [idle, idle, idle, busy, idle, busy]
    assert_counts_are_true(market)


def test_only_agents_that_are_there_and_have_a_place_are_given_customers(market: Market) -> None:
    market.agent(status="away")
    market.agent(status="offline")
    market.agent(capacity=0)
    full = market.agent(capacity=1)
    market.chat(agent_id=full)
    market.queue()
    assert serve() == {"assigned": 0, "more": True, "elsewhere": False}


def test_a_customer_who_left_or_is_to_be_called_back_later_is_not_served(market: Market) -> None:
    market.agent()
    left = market.queue()
    market.run("UPDATE marketplace.customer_queue SET status = 'left' WHERE id = %s", left)
    market.queue(queued_at="10 minutes")
    assert serve() == {"assigned": 0, "more": False, "elsewhere": False}


def test_who_is_being_served_waits_until_that_chat_has_ended(market: Market) -> None:
    market.agent(capacity=5)
    customer = market.user()
    chat = market.chat(customer_id=customer)
    market.queue(customer)
    assert serve()["assigned"] == 0
    market.run(
        "UPDATE marketplace.chats SET status = 'ended', ended_at = now(), end_reason = 'closed'"
        " WHERE id = %s",
        chat,
    )
    assert serve()["assigned"] == 1


def test_a_rerun_and_an_empty_marketplace_change_nothing(market: Market) -> None:
    assert serve() == {"assigned": 0, "more": False, "elsewhere": False}
    market.agent()
    market.queue()
    serve()
    before = market.fingerprint("agents", "chats", "customer_queue")
    assert serve()["assigned"] == 0
    assert market.fingerprint("agents", "chats", "customer_queue") == before


def test_a_place_that_becomes_free_is_filled(market: Market) -> None:
    agent = market.agent(capacity=1)
    market.queue(queued_at="-2 minutes")
    market.queue(queued_at="-1 minute")
    assert serve()["assigned"] == 1
    market.run("UPDATE marketplace.chats SET last_activity_at = now() - interval '1 hour'")
    assert tasks.auto_end_timeout_chats()["ended"] == 1
    assert market.value("SELECT active_chats FROM marketplace.agents WHERE id = %s", agent) == 0
    assert serve() == {"assigned": 1, "more": False, "elsewhere": False}
    assert_counts_are_true(market)


def test_two_schedulers_at_once_give_nobody_twice_and_no_agent_too_many(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "CUSTOMERS_BATCH", 10)
    for capacity in (1, 2, 3, 4, 5, 6, 7):
        market.agent(capacity=capacity)
    customers = market.users(200)
    market.run(
        "INSERT INTO marketplace.customer_queue (customer_id) SELECT unnest(%s::bigint[])",
        customers,
    )
    results = at_once(*[serve] * 6)
    results.append(serve())
    assert sum(each["assigned"] for each in results) == 28
    assert market.run("SELECT customer_id FROM marketplace.chats ORDER BY id") == customers[:28]
    assert_counts_are_true(market)


def test_two_schedulers_keep_the_order_between_them(market: Market) -> None:
    """While one run is at it, another leaves the queue to it instead of overtaking."""
    market.agent(capacity=1)
    market.queue()
    with batches.transaction() as cursor:
        assert batches.exclusively(cursor, "customer_queue")
        assert at_once(serve) == [{"assigned": 0, "more": True, "elsewhere": True}]
    assert serve()["assigned"] == 1


def test_counts_stay_true_while_chats_begin_and_end_at_once(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "CUSTOMERS_BATCH", 5)
    for _ in range(4):
        market.agent(capacity=3)
    market.run(
        "INSERT INTO marketplace.customer_queue (customer_id) SELECT unnest(%s::bigint[])",
        market.users(150),
    )

    def let_some_time_out(seed: int) -> int:
        ended = 0
        chance = random.Random(seed)
        with psycopg.connect(market.url, autocommit=True) as other:
            for _ in range(20):
                other.execute(
                    "UPDATE marketplace.chats SET last_activity_at = now() - interval '1 hour'"
                    " WHERE id IN (SELECT id FROM marketplace.chats"
                    "  WHERE status = 'open' AND mod(id, 3) = %s FOR UPDATE SKIP LOCKED)",
                    [chance.randrange(3)],
                )
                ended += tasks.auto_end_timeout_chats()["ended"]
        return ended

    def keep_serving() -> int:
        return sum(serve()["assigned"] for _ in range(40))

    results = at_once(
        keep_serving, keep_serving, lambda: let_some_time_out(1), lambda: let_some_time_out(2)
    )
    assert sum(results[2:]) > 0
    states = Counter(market.run("SELECT status FROM marketplace.chats"))
    assert sum(results[:2]) == states.total()
    assert sum(results[2:]) == states["ended"]
    assert_counts_are_true(market)


def test_the_database_refuses_a_chat_too_many(market: Market) -> None:
    agent = market.agent(capacity=1)
    market.chat(agent_id=agent)
    with pytest.raises(psycopg.errors.CheckViolation, match=f"agent {agent} has no free place"):
        market.chat(agent_id=agent)
    assert_counts_are_true(market)


def test_the_database_refuses_a_second_place_and_a_second_chat(market: Market) -> None:
    customer = market.user()
    entry = market.queue(customer)
    with pytest.raises(psycopg.errors.UniqueViolation):
        market.queue(customer)
    market.chat(customer_id=customer, queue_entry_id=entry)
    with pytest.raises(psycopg.errors.UniqueViolation):
        market.chat(queue_entry_id=entry)
    with pytest.raises(psycopg.errors.UniqueViolation):
        market.chat(customer_id=customer)


def test_a_chat_handed_to_another_agent_is_counted_there(market: Market) -> None:
    here, there = market.agent(), market.agent()
    chat = market.chat(agent_id=here)
    market.run("UPDATE marketplace.chats SET agent_id = %s WHERE id = %s", there, chat)
    assert_counts_are_true(market)
    assert market.value("SELECT active_chats FROM marketplace.agents WHERE id = %s", there) == 1


def test_a_lowered_capacity_ends_no_chat_and_takes_no_new_one(market: Market) -> None:
    agent = market.agent(capacity=2)
    market.chat(agent_id=agent)
    market.chat(agent_id=agent)
    market.run("UPDATE marketplace.agents SET capacity = 1 WHERE id = %s", agent)
    market.queue()
    assert serve()["assigned"] == 0
    assert market.value("SELECT active_chats FROM marketplace.agents WHERE id = %s", agent) == 2
