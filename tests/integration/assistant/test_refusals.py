"""What is not the channel's is refused, with the right status, and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Callable

import orjson
import pytest
from tests.assistant import Assistant

from ironbeat.workloads.assistant import accounts
from ironbeat.workloads.assistant.channels import envelope
from ironbeat.workloads.assistant.channels.dingtalk import sign
from ironbeat.workloads.assistant.trial.senders import App, Webhook

BOMB = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><xml><MsgType>&b;</MsgType></xml>"""
OUTSIDE = (
    b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]><xml><MsgType>&f;</MsgType></xml>'
)


@pytest.fixture(autouse=True)
def nothing_is_stored(assistant: Assistant) -> object:
    yield
    assert assistant.stored() == (0, 0, 0)
    assert assistant.value("SELECT count(*) FROM assistant.used_nonces") == 0
    assert assistant.value("SELECT count(*) FROM ironbeat.runs") == 0


def refused(assistant: Assistant, webhook: Webhook, status: int) -> str:
    response = assistant.post(webhook)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()["detail"]


@pytest.mark.parametrize("mode", ["at once", "in tasks"])
def test_a_wrong_signature(
    assistant: Assistant, app: App, mode: str, request: pytest.FixtureRequest
) -> None:
    if mode == "in tasks":
        request.getfixturevalue("in_tasks")
    stranger = App(
        app.channel,
        app.app_id,
        {name: "A" * len(value) for name, value in app.secrets.items()},
        app.api,
        app.options,
    )
    refused(assistant, stranger.message("/help"), 403)
    refused(assistant, Webhook(app.channel, app.app_id, app.message("/help").body), 403)


@pytest.mark.parametrize("skew", [-1, 1])
def test_a_request_of_another_time(assistant: Assistant, app: App, skew: int) -> None:
    days = 2 if app.channel == "telegram" else 0
    shift = skew * (days * 86_400 + 3_700)
    refused(assistant, app.message("/help", now=time.time() + shift), 403)


def test_a_replay_with_another_body(assistant: Assistant, apps: dict[str, App]) -> None:
    app = apps["wechat-plain"]
    webhook = app.message("/help")
    assert assistant.post(webhook).status_code == 200
    stored = assistant.stored()
    other = webhook.with_body(app.message("/tools").body)
    refused(assistant, other, 403)
    assert assistant.stored() == stored
    assistant.empty()


@pytest.mark.parametrize("kind", ["wechat", "wecom"])
def test_an_envelope_changed_or_meant_for_another_app(
    assistant: Assistant, apps: dict[str, App], kind: str
) -> None:
    app = apps[kind]
    webhook = app.message("/help")
    refused(assistant, webhook.with_body(app.message("/tools").body), 403)
    token, key = app.secrets["token"], envelope.key_of(app.secrets["aes_key"])
    for sealed in (
        envelope.seal(key, "another-app", b"<xml/>"),
        "AAAA",
        "no base64!",
        envelope.seal(b"x" * 32, app.app_id, b"<xml/>"),
    ):
        stamp = str(int(time.time()))
        query = {
            "msg_signature": envelope.signature(token, stamp, "n", sealed),
            "timestamp": stamp,
            "nonce": "n",
            "encrypt_type": "aes",
        }
        body = f"<xml><Encrypt>{sealed}</Encrypt></xml>".encode()
        refused(assistant, Webhook(app.channel, app.app_id, body, query), 403)


def test_a_plain_request_to_an_encrypted_account(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    app = apps["wechat"]
    plain = App("wechat", app.app_id, {"token": app.secrets["token"]}, app.api)
    refused(assistant, plain.message("/help"), 403)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/robot",
        "https://oapi.dingtalk.com.evil.example/",
        "https://oapi.dingtalk.com@evil.example/",
        "https://evil.example\\.dingtalk.com/",
        "http://oapi.dingtalk.com/",
        "https://oapi.dingtalk.com:8443/",
        "http://127.0.0.1:1/robot/sendBySession",
        "file:///etc/passwd",
    ],
)
def test_a_session_webhook_that_is_elsewhere(
    assistant: Assistant, apps: dict[str, App], url: str
) -> None:
    webhook = apps["dingtalk"].message("/help", sessionWebhook=url)
    assert "DingTalk" in refused(assistant, webhook, 403)


def _json_body(app: App, body: bytes) -> Webhook:
    if app.channel == "telegram":
        headers = {"X-Telegram-Bot-Api-Secret-Token": app.secrets["webhook_secret"]}
    else:
        stamp = str(int(time.time() * 1000))
        headers = {"timestamp": stamp, "sign": sign(stamp, app.secrets["app_secret"])}
    return Webhook(app.channel, app.app_id, body, headers=headers)


def _deep(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


JSON_BODIES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "no object inside": b'{"update_id": 1, "message": [], "msgtype": "text", "text": 1}',
    "NaN": b'{"update_id": NaN}',
    "infinite": b'{"update_id": 1e999, "msgtype": 1e999}',
    "a huge number": b'{"update_id": ' + b"9" * 5000 + b"}",
    "no UTF-8": b'{"update_id": "\xff\xfe"}',
    "deep": _deep(60),
    "very deep": _deep(20_000),
    "a deep list": b"[" * 50_000 + b"]" * 50_000,
}


@pytest.mark.parametrize("what", JSON_BODIES)
@pytest.mark.parametrize("kind", ["telegram", "dingtalk"])
def test_a_malformed_json_body(
    assistant: Assistant, apps: dict[str, App], kind: str, what: str
) -> None:
    refused(assistant, _json_body(apps[kind], JSON_BODIES[what]), 400)


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "a key twice": lambda body: body[:-1] + b"," + body[1:],
    "a NUL": lambda body: body.replace(b"/help", b"/help\\u0000"),
    "a number beyond 64 bits": lambda body: body[:-1] + b',"x":[-9223372036854775809]}',
    "half a surrogate": lambda body: body.replace(b"/help", b"/help\\ud800"),
    "a wrong type": lambda body: body.replace(b'"/help"', b"{}").replace(b'" /help"', b"{}"),
    "no sender": lambda body: body.replace(b'"id":1001', b'"id":"x"').replace(b"senderId", b"x"),
    "a number too large": lambda body: body.replace(b'"date":', b'"date":99').replace(
        b'"createAt":', b'"createAt":999999'
    ),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("kind", ["telegram", "dingtalk"])
def test_a_message_with_something_wrong_inside(
    assistant: Assistant, apps: dict[str, App], kind: str, what: str
) -> None:
    app = apps[kind]
    body = CHANGES[what](app.message("/help").body)
    response = assistant.post(_json_body(app, body))
    assert response.status_code in (400, 403), response.text


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<", b"<xml>", b"not xml", b"<other/>", b"<xml/>", BOMB, OUTSIDE),
        b"<xml><MsgType>text</MsgType><MsgType>text</MsgType></xml>",
        b'<?xml version="1.0" encoding="no-such-encoding"?><xml/>',
        b"<xml>" + b"<a>" * 20_000 + b"</a>" * 20_000 + b"</xml>",
        b"<xml><MsgType>text</MsgType><FromUserName>u</FromUserName><CreateTime>x</CreateTime></xml>",
    ],
)
def test_a_malformed_xml_body(assistant: Assistant, apps: dict[str, App], body: bytes) -> None:
    webhook = apps["wechat-plain"].message("/help")
    refused(assistant, webhook.with_body(body), 400)


@pytest.mark.parametrize("size", [300_000, 10 * 1024 * 1024])
def test_a_body_that_is_too_large(assistant: Assistant, app: App, size: int) -> None:
    webhook = app.message("/help")
    refused(assistant, webhook.with_body(webhook.body + b" " * size), 413)


def test_an_app_that_is_not_there_or_switched_off(assistant: Assistant, app: App) -> None:
    webhook = app.message("/help")
    refused(assistant, Webhook(app.channel, "nobody", webhook.body), 404)
    assert assistant.client.post("/api/assistant/webhook/signal/x").status_code == 422
    accounts.set_enabled(app.channel, app.app_id, False)
    try:
        refused(assistant, webhook, 404)
    finally:
        accounts.set_enabled(app.channel, app.app_id, True)


def test_the_check_of_an_address(assistant: Assistant, apps: dict[str, App]) -> None:
    def get(app: App, query: dict[str, str]) -> tuple[int, str]:
        path = Webhook(app.channel, app.app_id, b"").path
        response = assistant.client.get(path, params=query)
        return response.status_code, response.text

    stamp = str(int(time.time()))
    wechat = apps["wechat"]
    query = {
        "signature": envelope.signature(wechat.secrets["token"], stamp, "n"),
        "timestamp": stamp,
        "nonce": "n",
        "echostr": "42<b>",
    }
    assert get(wechat, query) == (200, "42<b>")
    assert get(wechat, {**query, "nonce": "m"})[0] == 403
    assert get(wechat, {})[0] == 403
    wecom = apps["wecom"]
    sealed = envelope.seal(envelope.key_of(wecom.secrets["aes_key"]), wecom.app_id, b"echo 7")
    query = {
        "msg_signature": envelope.signature(wecom.secrets["token"], stamp, "n", sealed),
        "timestamp": stamp,
        "nonce": "n",
        "echostr": sealed,
    }
    assert get(wecom, query) == (200, "echo 7")
    assert get(wecom, {**query, "echostr": sealed[:-4] + "AAA="})[0] == 403
    assert get(apps["telegram"], query)[0] == 405


def test_the_operators_routes_want_the_token(assistant: Assistant) -> None:
    for path in ("/api/assistant/tools", "/api/assistant/answers"):
        assert assistant.client.get(path).status_code == 401
        headers = {"Authorization": "Bearer t0ken-of-the-api"}
        assert assistant.client.get(path, headers=headers).status_code == 200


def test_secrets_are_encrypted_at_rest(assistant: Assistant, app: App) -> None:
    stored = orjson.dumps(
        assistant.rows("SELECT to_jsonb(a)::text FROM assistant.accounts AS a")
    ).decode()
    assert not [each for each in app.secrets.values() if each in stored]
    account = accounts.find(app.channel, app.app_id)
    assert account is not None and dict(account.secrets) == app.secrets
    assert not [each for each in app.secrets.values() if each in repr(account)]
