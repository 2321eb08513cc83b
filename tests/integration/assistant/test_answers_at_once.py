"""Sync mode: the answer stands in the webhook's response."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.assistant import Assistant, until

from ironbeat.workloads.assistant import tools
from ironbeat.workloads.assistant.trial.senders import App


def test_the_answer_stands_in_the_response(assistant: Assistant, app: App) -> None:
    answer = assistant.say(app, "/stock TPE-1")
    assert answer is not None and "TPE-1" in answer and "BOLT" in answer
    assert assistant.stored() == (1, 1, 1)
    assert assistant.states() == {"returned": 1}
    assert assistant.apis.texts() == []
    assert assistant.rows("SELECT tool, state FROM assistant.tool_runs") == [
        ("check_inventory_stock", "succeeded")
    ]


def test_a_question_in_chinese_finds_its_tool(assistant: Assistant, apps: dict[str, App]) -> None:
    answer = assistant.say(apps["wechat"], "請問高雄倉還有庫存嗎？")
    assert answer is not None and answer.startswith("高雄倉（KHH-1）")


def test_a_message_delivered_twice_is_answered_once(assistant: Assistant, app: App) -> None:
    webhook = app.message("/help")
    answers = [app.read(assistant.post(webhook).content) for _ in range(3)]
    assert answers[0] and answers[1:] == [None, None]
    assert assistant.stored() == (1, 1, 1)


def test_five_deliveries_at_once_are_answered_once(assistant: Assistant, app: App) -> None:
    webhook = app.message("/help")
    with ThreadPoolExecutor(5) as threads:
        responses = list(threads.map(assistant.post, [webhook] * 5))
    assert [each.status_code for each in responses] == [200] * 5
    assert len([each for each in responses if app.read(each.content)]) == 1
    assert assistant.stored() == (1, 1, 1)
    assert sum(assistant.states().values()) == 1


def test_what_takes_longer_than_the_channel_waits_is_sent(
    assistant: Assistant, apps: dict[str, App], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = apps["wechat"]
    monkeypatch.setattr("ironbeat.workloads.assistant.channels.wechat.WeChat.response_seconds", 0.2)
    _slow_tool(monkeypatch, 1.0)
    assert assistant.say(app, "/run slow_test") is None
    until(lambda: assistant.apis.texts() == ["slept"])
    until(lambda: assistant.states() == {"confirmed": 1})


def test_messages_of_one_chat_are_handled_in_order(
    assistant: Assistant, apps: dict[str, App], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = apps["telegram"]
    _slow_tool(monkeypatch, 0.3)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(assistant.say, app, "/run slow_test")
        until(lambda: assistant.stored()[2] == 1)
        second = threads.submit(assistant.say, app, "/help")
        assert first.result() == "slept"
        assert str(second.result()).startswith("I answer questions")
    handled = assistant.rows("SELECT seq, handled_at FROM assistant.messages ORDER BY seq")
    assert handled[0][1] < handled[1][1]


def test_what_is_not_text_is_answered_with_what_can_be_read(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    fields = {"text": None, "photo": [{"file_id": "x"}]}
    answer = assistant.say(apps["telegram"], "", **fields)
    assert answer == "I can read text only. Send /help to see what I can do."


def test_events_are_taken_and_not_answered(assistant: Assistant, apps: dict[str, App]) -> None:
    event = {"MsgType": "event", "Event": "unsubscribe", "MsgId": None, "Content": None}
    assert assistant.say(apps["wechat"], "", **event) is None
    assert assistant.stored() == (0, 0, 0)
    event["Event"] = "subscribe"
    assert "/stock" in str(assistant.say(apps["wechat"], "", **event))


def test_a_failing_handler_apologises(
    assistant: Assistant, apps: dict[str, App], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("the inside story")

    monkeypatch.setattr("ironbeat.workloads.assistant.responder.Automatic.respond", broken)
    answer = assistant.say(apps["telegram"], "hello there")
    assert answer == "Sorry, something went wrong with your message. Please try again later."
    assert assistant.rows("SELECT state, error FROM assistant.messages") == [
        ("failed", "RuntimeError: the inside story")
    ]


def _slow_tool(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    def slow_test() -> str:
        time.sleep(seconds)
        return "slept"

    registry = dict(tools.registered())
    monkeypatch.setattr(tools, "_registry", registry)
    tools.tool("slow_test", description="Sleeps.", permission=None)(slow_test)
