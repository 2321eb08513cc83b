"""``ironbeat assistant …`` as an operator types it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.assistant import Assistant
from typer.testing import CliRunner

from ironbeat.cli.root import app as ironbeat
from ironbeat.workloads.assistant import accounts
from ironbeat.workloads.assistant.trial.senders import App

NEW = ("--channel", "telegram", "--app-id", "new_bot")


def run(*arguments: str, input: str | None = None, exit_status: int = 0) -> Any:
    result = CliRunner().invoke(ironbeat, ["assistant", *arguments], input=input)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == exit_status, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.output


def test_an_account_comes_and_goes(assistant: Assistant) -> None:
    secrets = {"bot_token": "123:abc", "webhook_secret": "hush-hush"}
    added = run(
        "account", "add", *NEW, "--grant", "inventory.read", "--option", "unknown_fate=leave",
        input=json.dumps(secrets),
    )  # fmt: skip
    assert "/api/assistant/webhook/telegram/new_bot" in added
    found = accounts.find("telegram", "new_bot")
    assert found is not None and dict(found.secrets) == secrets
    assert found.default_permissions == ["inventory.read"]
    listed = run("account", "list", "--json")
    assert "hush-hush" not in json.dumps(listed) + run("account", "list")
    (row,) = [each for each in listed if each["app_id"] == "new_bot"]
    assert row["enabled"] and row["secrets"] == "bot_token, webhook_secret"
    run("account", "disable", *NEW)
    assert accounts.find("telegram", "new_bot") is None
    run("account", "enable", *NEW)
    run("account", "remove", *NEW, input="n\n", exit_status=6)
    assert "is removed" in run("account", "remove", *NEW, "--yes")
    run("account", "remove", *NEW, "--yes", exit_status=3)


@pytest.mark.parametrize(
    ("arguments", "input", "told"),
    [
        (NEW, "{}", "bot_token is missing"),
        (NEW, "not json", "no JSON"),
        (NEW, "[1]", "no object"),
        ((*NEW, "--option", "nonsense=1"), "{}", "no option nonsense"),
        ((*NEW, "--option", "api_base=http://example.org"), "{}", "https"),
        ((*NEW, "--option", "llm_url=https://example.org/v1"), "{}", "llm_model"),
        (("--channel", "signal", "--app-id", "x"), "{}", "no channel 'signal'"),
        (("--channel", "wecom", "--app-id", "x"), '{"aes_key": "short"}', "43 letters"),
        (("--channel", "telegram", "--app-id", "a/b"), "{}", "letters, digits"),
    ],
)
def test_a_wrong_account_is_refused_and_nothing_stored(
    assistant: Assistant, arguments: tuple[str, ...], input: str, told: str
) -> None:
    before = assistant.value("SELECT count(*) FROM assistant.accounts")
    assert told in run("account", "add", *arguments, input=input, exit_status=2)
    assert assistant.value("SELECT count(*) FROM assistant.accounts") == before


def test_what_was_said_and_by_whom(assistant: Assistant, apps: dict[str, App]) -> None:
    assistant.say(apps["telegram"], "/help")
    (user,) = run("users", "--json")
    assert user["name"] == "Mei" and user["permissions"] == ["inventory.read"]
    assert "orders.read" in run("grant", str(user["id"]), "orders.read")
    assert "orders.read" not in run("grant", str(user["id"]), "orders.read", "--revoke")
    run("grant", "999999", "x", exit_status=3)
    (answer,) = run("answers", "--state", "returned", "--json")
    assert answer["attempts"] == 1 and "content" not in answer
    assert "check_inventory_stock" in run("tools")
    assert "bot_token" in run("account", "options", "--channel", "telegram")


@pytest.mark.parametrize("channel", ["telegram", "dingtalk", "wechat", "wecom"])
def test_a_chat_in_the_terminal(assistant: Assistant, channel: str) -> None:
    said = run("try", "--channel", channel, input="/stock TPE-1\n\n/nothing\n/quit\n")
    assert f"You are {channel} user 1001" in said
    assert "[response]" in said and "TPE-1" in said and "/nothing" in said
    assert accounts.find(channel, f"trial-{channel}") is None
