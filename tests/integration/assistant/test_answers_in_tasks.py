"""Async mode: the webhook is acknowledged, and a worker sends the answer over the channel's API."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.assistant import Assistant, until
from tests.processes import Program, worker

from ironbeat import TaskManager
from ironbeat.settings import Settings
from ironbeat.workloads.assistant import reception
from ironbeat.workloads.assistant.trial.apis import Trouble
from ironbeat.workloads.assistant.trial.senders import App

pytestmark = pytest.mark.usefixtures("in_tasks", "running")


@pytest.fixture(scope="module")
def running(
    module_settings: Settings, apps: dict[str, App], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    log = tmp_path_factory.mktemp("worker") / "log"
    with worker("ironbeat", log, IRONBEAT_WORKLOADS="assistant", CELERY_LOG_LEVEL="INFO") as found:
        yield found


def test_the_answer_comes_over_the_channels_api(assistant: Assistant, app: App) -> None:
    assert assistant.say(app, "/stock TPE-1") in (
        "Received, working on it.",
        "收到，处理中。",
    )
    until(lambda: assistant.states() == {"confirmed": 1})
    (answer,) = assistant.apis.texts(app.chat_of())
    assert "TPE-1" in answer and "BOLT" in answer


def test_five_deliveries_at_once_are_answered_once(assistant: Assistant, app: App) -> None:
    webhook = app.message("/help")
    with ThreadPoolExecutor(5) as threads:
        responses = list(threads.map(assistant.post, [webhook] * 5))
    assert [each.status_code for each in responses] == [200] * 5
    assert len([each for each in responses if app.read(each.content)]) == 1
    assert assistant.say(app, "/tools")
    until(lambda: assistant.states() == {"confirmed": 2})
    assert len(assistant.apis.texts()) == 2
    assert assistant.stored() == (1, 1, 2)


def test_messages_of_a_chat_are_answered_in_order(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    app = apps["telegram"]
    numbers = range(25)
    for number in numbers:
        assistant.say(app, f"/nothing-{number}")
    until(lambda: assistant.states() == {"confirmed": len(numbers)})
    said = assistant.apis.texts(app.chat_of())
    assert [text.split()[4].rstrip(".") for text in said] == [f"/nothing-{n}" for n in numbers]


def test_a_channel_that_says_when_is_asked_again_then(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    app = apps["telegram"]
    assistant.apis.cause(Trouble("error", seconds=1), Trouble("status", 503, seconds=1))
    assistant.say(app, "/help")
    assistant.say(app, "/nothing")
    until(lambda: assistant.states() == {"confirmed": 2})
    assert [text[:9] for text in assistant.apis.texts()] == ["I answer ", "There is "]
    assert assistant.rows("SELECT attempts FROM assistant.answers ORDER BY id") == [3, 1]


def test_an_answer_of_unknown_fate_follows_the_channels_policy(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    assistant.apis.cause(Trouble("mute"))
    assistant.say(apps["wechat"], "/help")
    until(lambda: assistant.states() == {"unknown": 1})
    # WeCom is asked to drop the copy, and does.
    assistant.apis.cause(Trouble("mute"))
    assistant.say(apps["wecom"], "/help")
    until(lambda: assistant.states() == {"unknown": 1, "confirmed": 1})
    assert assistant.rows(
        "SELECT state, attempts, unknown_fates FROM assistant.answers ORDER BY id"
    ) == [("unknown", 1, 1), ("confirmed", 2, 1)]
    assert len(assistant.apis.texts()) == 2


def test_an_access_token_that_ended_is_replaced(assistant: Assistant, apps: dict[str, App]) -> None:
    assistant.say(apps["wechat"], "/help")
    until(lambda: assistant.states() == {"confirmed": 1})
    assistant.apis.end_tokens()
    assistant.say(apps["wechat"], "/help")
    until(lambda: assistant.states() == {"confirmed": 2})
    assert assistant.apis.tokens_issued["wechat"] == 2


def test_an_answer_that_is_too_long_goes_out_in_parts(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    app = apps["wechat"]
    assistant.rows(
        "INSERT INTO assistant.warehouses (code, name) SELECT 'LONG-' || i, 'x'"
        " FROM generate_series(1, 400) AS i ON CONFLICT DO NOTHING"
    )
    assistant.say(app, "/stock nowhere")
    until(lambda: assistant.states().get("confirmed", 0) >= 2 and len(assistant.states()) == 1)
    parts = assistant.apis.texts(app.chat_of())
    assert all(len(part.encode()) <= 2048 for part in parts)
    assert ", ".join(parts).replace(",,", ",").count("LONG-") == 400
    assistant.rows("DELETE FROM assistant.warehouses WHERE code LIKE 'LONG-%%'")


def test_a_long_tool_tells_its_result_in_the_chat(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    app = apps["dingtalk"]
    assistant.say(app, "/run report_low_stock")
    until(lambda: assistant.states() == {"confirmed": 2})
    begun, told = assistant.apis.texts(app.chat_of())
    assert begun == "report_low_stock 已开始，完成后通知你。"
    assert told.startswith("4 个仓库中有")
    assert assistant.rows("SELECT tool, state FROM assistant.tool_runs") == [
        ("report_low_stock", "succeeded")
    ]


def test_a_message_may_be_submitted_by_name(assistant: Assistant, apps: dict[str, App]) -> None:
    app = apps["telegram"]
    assistant.say(app, "/help")
    until(lambda: assistant.states() == {"confirmed": 1})
    user_id, conversation_id = assistant.rows(
        "SELECT user_id, conversation_id FROM assistant.messages"
    )[0]
    data = {
        "message_id": "by-hand",
        "channel": "telegram",
        "external_user_id": "1001",
        "content": "/tools",
        "timestamp": "2026-11-27T08:00:00+00:00",
        "message_type": "text",
        "conversation_id": conversation_id,
        "raw_data": {},
    }
    manager = TaskManager()
    for _ in range(2):
        id = manager.submit("process_message_async", [data, user_id])
        manager.result(id, timeout=60)
    until(lambda: assistant.states() == {"confirmed": 2})
    assert "check_inventory_stock" in assistant.apis.texts()[-1]


def test_without_a_broker_it_answers_at_once(
    assistant: Assistant, apps: dict[str, App], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = reception.get_settings()
    monkeypatch.setattr(settings, "use_redis", False)
    assert "/stock" in str(assistant.say(apps["telegram"], "/help"))
    assert assistant.states() == {"returned": 1}
