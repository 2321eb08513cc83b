"""Idle chats: both sides are warned once, then the chat ends; whoever writes starts anew."""

from __future__ import annotations

import psycopg
import pytest
from tests.marketplace import Market, at_once

from ironbeat.workloads.marketplace import batches, tasks

warn, end = tasks.send_timeout_warnings, tasks.auto_end_timeout_chats

# The limits of a chat unless it says otherwise: 15 minutes, warned 2 minutes before.
START = {"after_time": "-infinity", "after_id": 0, "batch": 100}


def warnings(market: Market, chat: int) -> list[tuple[int | None, int | None]]:
    """The (user, agent) that were warned."""
    return market.run(
        "SELECT user_id, agent_id FROM marketplace.notifications"
        " WHERE kind = 'chat_timeout_warning' AND chat_id = %s ORDER BY id",
        chat,
    )


def status(market: Market, chat: int) -> str:
    return str(market.value("SELECT status FROM marketplace.chats WHERE id = %s", chat))


def test_an_idle_chat_warns_its_customer_and_its_agent(market: Market) -> None:
    customer, agent = market.user(), market.agent()
    chat = market.chat(idle="14 minutes", customer_id=customer, agent_id=agent)
    market.chat(idle="12 minutes")
    assert warn() == {"warned": 1, "notifications": 2, "more": False}
    assert warnings(market, chat) == [(customer, None), (None, agent)]


def test_an_idle_chat_warns_its_customer_and_its_expert(market: Market) -> None:
    customer, expert = market.user(), market.expert()
    person = market.value("SELECT user_id FROM marketplace.task_experts WHERE id = %s", expert)
    chat = market.chat(
        idle="50 minutes",
        customer_id=customer,
        expert_id=expert,
        idle_limit="1 hour",
        warn_before="15 minutes",
    )
    assert warn()["notifications"] == 2
    assert warnings(market, chat) == [(customer, None), (person, None)]


def test_a_warning_says_when_the_chat_ends(market: Market) -> None:
    market.chat(idle="14 minutes")
    warn()
    stated, due = market.run(
        "SELECT body, to_char(times_out_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
        " FROM marketplace.notifications JOIN marketplace.chats AS c ON c.id = chat_id LIMIT 1"
    )[0]
    assert due in stated


def test_nobody_is_warned_twice_of_the_same_silence(market: Market) -> None:
    market.chat(idle="14 minutes")
    warn()
    before = market.fingerprint("chats", "notifications")
    assert warn() == {"warned": 0, "notifications": 0, "more": False}
    assert market.fingerprint("chats", "notifications") == before


def test_a_new_silence_is_warned_of_again(market: Market) -> None:
    chat = market.chat(idle="14 minutes")
    warn()
    market.say(chat, "customer", "-13 minutes")
    assert warn()["warned"] == 1
    assert len(warnings(market, chat)) == 4


def test_a_message_of_the_system_is_no_activity(market: Market) -> None:
    chat = market.chat(idle="16 minutes")
    market.say(chat, "system")
    assert end()["ended"] == 1


@pytest.mark.parametrize("sender", ["customer", "agent"])
def test_a_message_of_either_side_keeps_the_chat_open(market: Market, sender: str) -> None:
    chat = market.chat(idle="16 minutes")
    market.say(chat, sender)
    assert warn()["warned"] == 0
    assert end()["ended"] == 0
    assert status(market, chat) == "open"


def test_an_older_message_that_arrives_late_does_not_turn_the_clock_back(market: Market) -> None:
    chat = market.chat(idle="1 minute")
    market.say(chat, "customer", "-1 hour")
    assert end()["ended"] == 0


def test_four_workers_at_once_warn_once(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches.drain, "__kwdefaults__", {"batch": 3, "budget_seconds": 30.0})
    for _ in range(30):
        market.chat(idle="14 minutes")
    results = [*at_once(*[warn] * 4), warn()]
    assert sum(each["warned"] for each in results) == 30
    assert sum(each["notifications"] for each in results) == 60
    assert market.value("SELECT count(*) FROM marketplace.notifications") == 60


def test_the_database_refuses_a_second_warning_of_the_same_silence(market: Market) -> None:
    market.chat(idle="14 minutes")
    warn()
    with pytest.raises(psycopg.errors.UniqueViolation):
        market.run(
            "INSERT INTO marketplace.notifications (kind, user_id, chat_id, occasion, body)"
            " SELECT kind, user_id, chat_id, occasion, body FROM marketplace.notifications"
            " WHERE user_id IS NOT NULL"
        )


def test_what_is_over_is_not_warned_of_any_more(market: Market) -> None:
    market.chat(idle="15 minutes 1 second")
    assert warn()["warned"] == 0


def test_an_idle_chat_ends_and_its_agent_gets_the_place_back(market: Market) -> None:
    agent = market.agent()
    idle = market.chat(idle="16 minutes", agent_id=agent)
    lively = market.chat(idle="14 minutes", agent_id=agent)
    patient = market.chat(idle="16 minutes", agent_id=market.agent(), idle_limit="1 hour")
    assert end() == {"ended": 1, "more": False}
    assert [status(market, each) for each in (idle, lively, patient)] == ["ended", "open", "open"]
    assert market.value("SELECT end_reason FROM marketplace.chats WHERE id = %s", idle) == "timeout"
    assert market.value("SELECT active_chats FROM marketplace.agents WHERE id = %s", agent) == 1


def test_ending_again_changes_nothing(market: Market) -> None:
    assert end() == {"ended": 0, "more": False}
    market.chat(idle="16 minutes")
    end()
    before = market.fingerprint("chats", "agents")
    assert end() == {"ended": 0, "more": False}
    assert warn()["warned"] == 0
    assert market.fingerprint("chats", "agents") == before


@pytest.mark.parametrize(
    ("idle", "warned", "ended"),
    [
        ("12 minutes 59.999999 seconds", 0, 0),
        ("13 minutes", 1, 0),
        ("14 minutes 59.999999 seconds", 1, 0),
        ("15 minutes", 0, 1),
    ],
)
def test_the_limits_themselves(market: Market, idle: str, warned: int, ended: int) -> None:
    market.chat()
    # In one transaction the database's clock stands still.
    with batches.transaction() as cursor:
        cursor.execute(
            "UPDATE marketplace.chats SET last_activity_at = now() - %s::interval", [idle]
        )
        assert batches.one(cursor, "warn_chats", **START)["warned"] == warned
        assert batches.one(cursor, "end_chats", **START)["ended"] == ended


def test_a_chat_that_somebody_is_writing_in_does_not_end(market: Market) -> None:
    chat = market.chat(idle="16 minutes")
    with market.connect() as writer:
        writer.execute(
            "INSERT INTO marketplace.chat_messages (chat_id, sender, body)"
            " VALUES (%s, 'customer', 'Wait!')",
            [chat],
        )
        assert end()["ended"] == 0
    assert end()["ended"] == 0
    assert status(market, chat) == "open"


def test_an_ended_chat_takes_no_more_messages(market: Market) -> None:
    chat = market.chat(idle="16 minutes")
    end()
    with pytest.raises(psycopg.errors.CheckViolation, match=f"chat {chat} has ended"):
        market.say(chat, "customer", "1 second")


def test_times_are_right_across_a_change_of_the_clocks(market: Market) -> None:
    """A day's limit is 24 hours, whatever the session's time zone does that night."""
    expert, customer = market.expert(), market.user()
    market.run("SET timezone = 'Europe/Berlin'")
    market.run(
        "INSERT INTO marketplace.chats (customer_id, expert_id, last_activity_at, idle_limit)"
        " VALUES (%s, %s, '2026-03-28 12:00+01', '1 day')",
        customer,
        expert,
    )
    assert market.value(
        "SELECT times_out_at = '2026-03-29 13:00+02' AND warns_at = '2026-03-29 12:58+02'"
        " FROM marketplace.chats"
    )
