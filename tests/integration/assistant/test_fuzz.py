"""Whatever is posted: an answer below 500, a problem that tells what is wrong, and no traceback.

Some of the requests are rubbish from the first byte; the others carry a true signature, so that
what lies behind it (reading, storing, commands, tools) meets rubbish too. A few hundred by default,
ten thousand in the long tier.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from tests.assistant import Assistant

from ironbeat.workloads.assistant.channels import envelope
from ironbeat.workloads.assistant.channels.dingtalk import sign
from ironbeat.workloads.assistant.trial.senders import App, Webhook

#: What a request may be answered with; 503 would say that a server is down.
EXPECTED = {200, 400, 401, 403, 404, 405, 413, 415, 422}

texts = some.text(max_size=30) | some.sampled_from(
    ["", "\x00", "\ud800", "‮abc", "'; DROP TABLE assistant.messages; --", "%s %(id)s {0}", "𝕏" * 20]
)
scalars = (
    some.none()
    | some.booleans()
    | some.integers()
    | some.integers(-(2**70), 2**70)
    | some.floats()
    | texts
)
values = some.recursive(
    scalars,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
sentences = (
    texts
    | some.builds("/{} {}".format, some.sampled_from(["help", "stock", "run", "tools", "x"]), texts)
    | some.builds(
        "/run {} {}".format,
        some.sampled_from(["check_inventory_stock", "nothing"]),
        values.map(lambda value: json.dumps(value)),
    )
    | some.builds(
        lambda value: "/run check_inventory_stock " + json.dumps({"warehouse": value}), values
    )
)


@some.composite
def webhooks(draw: Any, apps: dict[str, App]) -> Webhook:
    """A request to one of the apps: rubbish, or rubbish with a true signature."""
    app = draw(some.sampled_from(list(apps.values())))
    how = draw(some.sampled_from(["rubbish", "message", "message", "changed", "raw"]))
    if how == "rubbish":
        names = some.sampled_from(
            ["signature", "timestamp", "nonce", "msg_signature", "encrypt_type", "echostr", "x"]
        )
        return Webhook(
            draw(some.sampled_from(["telegram", "dingtalk", "wechat", "wecom", "signal"])),
            draw(some.sampled_from([app.app_id, "nobody", "%00", "a b", "..%2f"])),
            draw(some.binary(max_size=300)),
            draw(some.dictionaries(names, some.text(max_size=20), max_size=5)),
            draw(
                some.dictionaries(
                    some.sampled_from(["sign", "timestamp", "content-type", "x-telegram"]),
                    some.text("abc0123456789=/;+", max_size=20),
                    max_size=3,
                )
            ),
        )
    if how == "message" and app.channel in ("telegram", "dingtalk"):
        return _signed(app, _message(app, draw(sentences)))
    if how == "raw":
        return _signed(app, draw(some.binary(max_size=200)))
    changes = draw(some.dictionaries(some.sampled_from(_FIELDS[app.channel]), values, max_size=3))
    if app.channel in ("telegram", "dingtalk"):
        body = json.loads(_message(app, "/help"))
        _change(body, changes)
        return _signed(app, json.dumps(body).encode("utf-8", "replace"))
    text = draw(sentences)
    fields = {name: _xml_text(value) for name, value in changes.items()}
    inner = {"FromUserName": "u", "ToUserName": "g", "MsgType": "text", "CreateTime": "1",
             "MsgId": "7", "Content": _xml_text(text), **fields}  # fmt: skip
    xml = "".join(f"<{name}>{value}</{name}>" for name, value in inner.items())
    return _signed(app, f"<xml>{xml}</xml>".encode("utf-8", "replace"))


_FIELDS = {
    "telegram": ["update_id", "message", "from", "chat", "date", "text", "message_id",
                 "message_thread_id", "is_topic_message", "photo"],
    "dingtalk": ["msgtype", "text", "senderId", "senderStaffId", "conversationId", "msgId",
                 "createAt", "sessionWebhook", "sessionWebhookExpiredTime", "robotCode",
                 "senderNick", "conversationType"],
    "wechat": ["MsgType", "FromUserName", "ToUserName", "CreateTime", "MsgId", "Event"],
    "wecom": ["MsgType", "FromUserName", "ToUserName", "CreateTime", "MsgId", "AgentID"],
}  # fmt: skip


def _message(app: App, text: str) -> bytes:
    """A message's body, with whatever text as JSON can spell it."""
    body = json.loads(app.message("/help").body)
    if app.channel == "telegram":
        body["message"]["text"] = text
    else:
        body["text"]["content"] = text
    return json.dumps(body).encode()


def _change(body: dict[str, Any], changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        inside = body.get("message")
        if isinstance(inside, dict) and name not in body:
            inside[name] = value
        else:
            body[name] = value


def _xml_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _signed(app: App, body: bytes) -> Webhook:
    if app.channel == "telegram":
        headers = {"X-Telegram-Bot-Api-Secret-Token": app.secrets["webhook_secret"]}
        return Webhook(app.channel, app.app_id, body, headers=headers)
    now = time.time()
    if app.channel == "dingtalk":
        stamp = str(int(now * 1000))
        headers = {"timestamp": stamp, "sign": sign(stamp, app.secrets["app_secret"])}
        return Webhook(app.channel, app.app_id, body, headers=headers)
    token, key, stamp = app.secrets["token"], app.secrets.get("aes_key"), str(int(now))
    nonce = str(time.monotonic_ns())
    query = {"timestamp": stamp, "nonce": nonce, "encrypt_type": "aes" if key else "raw"}
    if not key:
        query["signature"] = envelope.signature(token, stamp, nonce)
        return Webhook(app.channel, app.app_id, body, query)
    sealed = envelope.seal(envelope.key_of(key), app.app_id, body)
    query["msg_signature"] = envelope.signature(token, stamp, nonce, sealed)
    return Webhook(
        app.channel, app.app_id, f"<xml><Encrypt>{sealed}</Encrypt></xml>".encode(), query
    )


def _fuzz(
    assistant: Assistant, apps: dict[str, App], examples: int, caplog: pytest.LogCaptureFixture
) -> Counter[int]:
    seen: Counter[int] = Counter()
    caplog.set_level(logging.ERROR)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(webhooks(apps), some.sampled_from(["POST", "POST", "POST", "POST", "GET", "PUT"]))
    def one(webhook: Webhook, method: str) -> None:
        response = assistant.client.request(
            method,
            webhook.path,
            params=dict(webhook.query),
            headers=dict(webhook.headers),
            content=webhook.body,
        )
        seen[response.status_code] += 1
        assert response.status_code in EXPECTED, (webhook, response.text)
        assert "Traceback" not in response.text
        if response.status_code >= 400:
            assert response.json()["detail"]
        assert not [each for each in caplog.records if each.exc_info], webhook

    one()
    return seen


def test_a_few_hundred_requests(
    assistant: Assistant, apps: dict[str, App], caplog: pytest.LogCaptureFixture
) -> None:
    seen = _fuzz(assistant, apps, 300, caplog)
    # It came as far as an answer, and was refused for more than one reason.
    assert seen[200] > 20 and seen[400] > 20 and seen[403] > 10


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_requests(
    assistant: Assistant, apps: dict[str, App], caplog: pytest.LogCaptureFixture
) -> None:
    seen = _fuzz(assistant, apps, 10_000, caplog)
    print(f"answered with: {dict(sorted(seen.items()))}")
    assert sum(seen.values()) >= 10_000
