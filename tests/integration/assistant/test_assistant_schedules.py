"""Access tokens in time and by one refresher; what is old goes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.assistant import Assistant
from tests.integration.assistant.test_turns import store

from ironbeat.workloads.assistant import accounts, tasks, tokens
from ironbeat.workloads.assistant.channels.contract import Undelivered
from ironbeat.workloads.assistant.trial.apis import ChannelApis
from ironbeat.workloads.assistant.trial.senders import App


def account_of(app: App) -> accounts.Account:
    found = accounts.find(app.channel, app.app_id)
    assert found is not None
    return found


def test_a_token_is_fetched_before_it_ends(assistant: Assistant, apps: dict[str, App]) -> None:
    issued = assistant.apis.tokens_issued
    # Of every app that can send by token; a bot's does not end.
    expected = {f"{apps[kind].channel} {kind}-app" for kind in apps if kind != "telegram"}
    assert tasks.refresh_access_token() == {"refreshed": sorted(expected), "failed": {}}
    before = dict(issued)
    assert tasks.refresh_access_token()["refreshed"] == []
    assistant.rows("UPDATE assistant.access_tokens SET expires_at = now() + interval '9 minutes'")
    assert tasks.refresh_access_token("wecom", "wecom-app")["refreshed"] == ["wecom wecom-app"]
    assert issued["wecom"] == before["wecom"] + 1


def test_a_short_lived_token_holds_for_half_its_life(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    assistant.apis.token_seconds = 60
    tokens.current(account_of(apps["wecom"]))
    tokens.current(account_of(apps["wecom"]))
    assert assistant.apis.tokens_issued["wecom"] == 1
    assistant.rows("UPDATE assistant.access_tokens SET expires_at = now() + interval '29 s'")
    tokens.current(account_of(apps["wecom"]))
    assert assistant.apis.tokens_issued["wecom"] == 2


def test_ten_who_need_a_token_fetch_one(assistant: Assistant, apps: dict[str, App]) -> None:
    account = account_of(apps["wechat"])
    with ThreadPoolExecutor(10) as threads:
        found = set(threads.map(lambda _: tokens.current(account), range(10)))
    assert assistant.apis.tokens_issued["wechat"] == 1
    assert len(found) == 1
    stored = assistant.value("SELECT token FROM assistant.access_tokens")
    assert next(iter(found))[0] not in stored


def test_a_channel_that_gives_no_token(assistant: Assistant, apps: dict[str, App]) -> None:
    account, apis = account_of(apps["wecom"]), assistant.apis
    apis.secrets["wecom"] = "another"
    try:
        with pytest.raises(Undelivered, match="40001"):
            tokens.current(account)
        with pytest.raises(RuntimeError, match="invalid credential"):
            tasks.refresh_access_token("wecom")
    finally:
        del apis.secrets["wecom"]
    assert assistant.rows("SELECT failures, last_error FROM assistant.access_tokens") == [
        (2, "40001: invalid credential")
    ]
    tokens.current(account)
    assert assistant.rows("SELECT failures, last_error FROM assistant.access_tokens") == [(0, None)]
    # One that is about to end serves as long as it holds.
    apis.secrets["wecom"] = "another"
    assistant.rows("UPDATE assistant.access_tokens SET expires_at = now() + interval '2 minutes'")
    try:
        assert tokens.current(account)[0] == f"wecom-{apis.tokens_issued['wecom']}"
    finally:
        del apis.secrets["wecom"]


def test_a_refresher_that_died_is_replaced(assistant: Assistant, apps: dict[str, App]) -> None:
    account = account_of(apps["wecom"])
    tokens.current(account)
    assistant.rows(
        "UPDATE assistant.access_tokens SET expires_at = now(), refreshing_by = 'dead',"
        " refreshing_until = now() + interval '1 second'"
    )
    tokens.current(account)
    assert assistant.apis.tokens_issued["wecom"] == 2


def test_an_app_that_is_not_there() -> None:
    with pytest.raises(LookupError):
        tasks.refresh_access_token("wechat", "nobody")


def test_conversations_inactive_for_thirty_days_go(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    for user, days in (("1", 29), ("2", 31), ("3", 400)):
        store(apps["telegram"], "hello", user=user)
        assistant.rows(
            "UPDATE assistant.conversations"
            " SET last_activity_at = now() - make_interval(days => %s) WHERE external_id = %s",
            days,
            user,
        )
    assistant.say(apps["wechat-plain"], "/help")
    assistant.rows("UPDATE assistant.used_nonces SET seen_at = now() - interval '1 hour'")
    assert tasks.cleanup_expired_conversations() == {
        "conversations": 2,
        "messages": 2,
        "more": False,
    }
    assert assistant.stored() == (4, 2, 2)
    assert assistant.value("SELECT count(*) FROM assistant.used_nonces") == 0
    assert tasks.cleanup_expired_conversations()["conversations"] == 0


def test_tool_runs_older_than_ninety_days_go(assistant: Assistant) -> None:
    assistant.rows(
        "INSERT INTO assistant.tool_runs (tool, user_id, input, started_at)"
        " SELECT 'x', 1, '{}', now() - make_interval(days => d) FROM generate_series(80, 100) AS d"
    )
    assert tasks.cleanup_old_logs() == {"tool_runs": 11, "more": False}
    assert assistant.value("SELECT count(*) FROM assistant.tool_runs") == 10


def test_a_played_api_issues_tokens_that_end(apis: ChannelApis) -> None:
    apis.token_seconds = 0
    assert not apis._holds(apis._issue("wechat"))
    apis.token_seconds = 7200
