"""What a channel answers to a call, and what becomes of the answer that was sent."""

from __future__ import annotations

import time

import pytest
from tests.assistant import Assistant, install

from ironbeat.workloads.assistant import accounts, delivery
from ironbeat.workloads.assistant.delivery import Attempt, Outcome
from ironbeat.workloads.assistant.trial.apis import Trouble
from ironbeat.workloads.assistant.trial.senders import App


def send(app: App, reply_to: dict[str, object], **attempt: object) -> Outcome:
    account = accounts.find(app.channel, app.app_id)
    assert account is not None
    return delivery.send(account, reply_to, Attempt("hello", **attempt))  # type: ignore[arg-type]


CHAT: dict[str, dict[str, object]] = {
    "telegram": {"chat_id": 5},
    "wechat": {"user": "u", "self": "g"},
    "wecom": {"user": "u", "self": "g"},
    "dingtalk": {"conversation": "c", "staff": "s", "group": False, "robot": "r"},
}


@pytest.mark.parametrize("kind", CHAT)
def test_every_channel_takes_and_refuses(
    assistant: Assistant, apps: dict[str, App], kind: str
) -> None:
    app, chat = apps[kind], CHAT[kind]
    assert send(app, chat).state == "confirmed"
    assistant.apis.cause(Trouble("error", seconds=7))
    later = send(app, chat)
    assert later.state == "pending" and later.wait > 0
    assistant.apis.cause(Trouble("status", 503, seconds=9), Trouble("status", 500))
    assert [send(app, chat).wait, send(app, chat, number=3).wait] == [9, 8]
    assistant.apis.cause(Trouble("status", 502), Trouble("deaf"), Trouble("mute"))
    doubts = [send(app, chat) for _ in range(3)]
    assert {(each.state, each.unknown) for each in doubts} == {
        ("unknown" if kind == "wechat" else "pending", 1)
    }
    assert assistant.apis.texts() == ["hello", "hello"]


def test_an_answer_is_given_up_after_a_day(assistant: Assistant, apps: dict[str, App]) -> None:
    assistant.apis.cause(Trouble("error"), Trouble("error"))
    assert send(apps["telegram"], CHAT["telegram"], age=90_000.0).state == "failed"
    assert send(apps["telegram"], CHAT["telegram"], number=50).state == "failed"


def test_a_channel_that_is_not_there_is_tried_again(assistant: Assistant) -> None:
    app = install("telegram", "http://127.0.0.1:9", name="far")
    outcome = send(app, CHAT["telegram"])
    assert (outcome.state, outcome.unknown) == ("pending", 0)
    assert app.secrets["bot_token"] not in str(outcome.error)


def test_while_credentials_are_wrong_answers_wait(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    for kind in CHAT:
        assistant.apis.secrets[kind] = "another"
    try:
        outcomes = {kind: send(apps[kind], CHAT[kind]) for kind in CHAT}
    finally:
        assistant.apis.secrets.clear()
    assert {(each.state, each.wait, each.unknown) for each in outcomes.values()} == {
        ("pending", 60.0, 0)
    }
    assert outcomes["telegram"].error == "HTTP 401: Unauthorized"
    assert {send(apps[kind], CHAT[kind]).state for kind in CHAT} == {"confirmed"}


def test_an_account_overrules_the_policy(assistant: Assistant) -> None:
    app = install("wechat", assistant.apis.url, name="other", unknown_fate="resend")
    assistant.apis.cause(Trouble("mute"))
    assert send(app, CHAT["wechat"]).state == "pending"


def test_wecom_drops_the_copy_of_an_answer_in_doubt(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    assistant.apis.cause(Trouble("mute"))
    assert send(apps["wecom"], CHAT["wecom"]).unknown == 1
    assert send(apps["wecom"], CHAT["wecom"], unknown_fates=1).state == "confirmed"
    assert assistant.apis.texts() == ["hello"]
    # The same words, said for another reason, are said.
    assert send(apps["wecom"], CHAT["wecom"]).state == "confirmed"
    assert assistant.apis.texts() == ["hello", "hello"]


def test_a_robot_answers_by_the_way_that_is_open(assistant: Assistant) -> None:
    app = install("dingtalk", assistant.apis.url, name="robot")
    session = {"session": f"{app.api}/robot/sendBySession?session=s1"}
    open_one = {**CHAT["dingtalk"], **session, "session_until": time.time() + 60}
    over = {**open_one, "session_until": time.time() + 5}
    assert send(app, open_one).state == "confirmed"
    assert send(app, over).state == "confirmed"
    assert send(app, {**over, "group": True}).state == "confirmed"
    assert send(app, {**over, "staff": ""}).state == "failed"
    secrets = {**app.secrets, "robot_token": "t", "robot_secret": "SEC1"}
    accounts.save(app.channel, app.app_id, secrets, app.options)
    assistant.apis.secrets["dingtalk_robot"] = "SEC1"
    assert send(app, over).state == "confirmed"
    assistant.apis.secrets["dingtalk_robot"] = "SEC2"
    assert send(app, over).state == "failed"
    assistant.apis.secrets.clear()
    assert [(said.way, said.chat) for said in assistant.apis.said] == [
        ("session", "s1"),
        ("app", "s"),
        ("app", "c"),
        ("robot", "robot"),
    ]


def test_limits_of_the_played_channels_are_kept(assistant: Assistant, apps: dict[str, App]) -> None:
    assistant.apis.limits["telegram"] = (2, 30.0)
    states = [send(apps["telegram"], CHAT["telegram"]) for _ in range(3)]
    assert [each.state for each in states] == ["confirmed", "confirmed", "pending"]
    assert 20 < states[2].wait <= 31
