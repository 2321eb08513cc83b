"""Webhooks as the channels send them, and their responses as the channels read them."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.sax.saxutils import escape

import orjson

from ironbeat.workloads.assistant.channels import envelope, reading
from ironbeat.workloads.assistant.channels.dingtalk import sign
from ironbeat.workloads.assistant.incoming import Request

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A request to a webhook's address."""

    channel: str
    app_id: str
    body: bytes
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where it is posted, below the API's address."""
        return f"/api/assistant/webhook/{self.channel}/{self.app_id}"

    def request(self, now: float | None = None) -> Request:
        """The same as the pipeline sees it."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(dict(self.query), headers, self.body, now or time.time())

    def with_body(self, body: bytes) -> Webhook:
        """The same with another body, and the signature of the first."""
        return replace(self, body=body)


@dataclass(frozen=True, slots=True)
class App:
    """An app of a channel as the channel knows it; ``api`` is where its API is played."""

    channel: str
    app_id: str
    secrets: Mapping[str, str]
    api: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def message(
        self,
        text: str,
        /,
        *,
        user: str = "1001",
        chat: str | None = None,
        number: int | None = None,
        now: float | None = None,
        **fields: Any,
    ) -> Webhook:
        """The webhook of a text message; ``number`` is the message's own, ``chat`` a group."""
        number = next(_numbers) if number is None else number
        now = time.time() if now is None else now
        make = {
            "telegram": self._telegram,
            "dingtalk": self._dingtalk,
            "wechat": self._wechat,
            "wecom": self._wecom,
        }[self.channel]
        return make(text, user, chat, number, now, fields)

    def chat_of(self, user: str = "1001", chat: str | None = None) -> str:
        """The name under which the played API files what is said to that user or group."""
        return f"session-{chat or user}" if self.channel == "dingtalk" else (chat or user)

    def read(self, response: bytes) -> str | None:
        """The text that a webhook's response says to the chat."""
        if self.channel == "telegram":
            return orjson.loads(response).get("text")
        if self.channel == "dingtalk":
            return orjson.loads(response).get("text", {}).get("content")
        if response in (b"", b"success"):
            return None
        fields = reading.xml_fields(response)
        if "Encrypt" in fields:
            covered = (fields["TimeStamp"], fields["Nonce"], fields["Encrypt"])
            if not envelope.signed(fields["MsgSignature"], self.secrets["token"], *covered):
                raise ValueError("the response is not signed")
            key = envelope.key_of(self.secrets["aes_key"])
            fields = reading.xml_fields(envelope.unseal(key, self.app_id, fields["Encrypt"]))
        return fields["Content"]

    # -- each channel's own ------------------------------------------------------------------------

    def _telegram(
        self, text: str, user: str, chat: str | None, number: int, now: float, fields: Any
    ) -> Webhook:
        sender = {"id": int(user), "is_bot": False, "first_name": "Mei", "language_code": "en"}
        place = {"id": int(chat), "type": "group"} if chat else {"id": int(user), "type": "private"}
        message = {
            "message_id": number,
            "from": sender,
            "chat": place,
            "date": int(now),
            "text": text,
            **fields,
        }
        headers = {"X-Telegram-Bot-Api-Secret-Token": self.secrets["webhook_secret"]}
        body = orjson.dumps({"update_id": 9_000_000 + number, "message": message})
        return Webhook(self.channel, self.app_id, body, headers=_json(headers))

    def _dingtalk(
        self, text: str, user: str, chat: str | None, number: int, now: float, fields: Any
    ) -> Webhook:
        milliseconds = int(now * 1000)
        body = {
            "conversationId": f"cid-{chat or user}",
            "msgId": f"msg-{number}",
            "senderNick": "小美",
            "isAdmin": False,
            "senderStaffId": user,
            "sessionWebhookExpiredTime": milliseconds + 5_400_000,
            "createAt": milliseconds,
            "conversationType": "2" if chat else "1",
            "senderId": f"$:LWCP_v1:${user}",
            "sessionWebhook": f"{self.api}/robot/sendBySession?session=session-{chat or user}",
            "text": {"content": f" {text}"},
            "robotCode": self.app_id,
            "msgtype": "text",
            **fields,
        }
        headers = {
            "timestamp": str(milliseconds),
            "sign": sign(str(milliseconds), self.secrets["app_secret"]),
        }
        return Webhook(self.channel, self.app_id, orjson.dumps(body), headers=_json(headers))

    def _wechat(
        self, text: str, user: str, chat: str | None, number: int, now: float, fields: Any
    ) -> Webhook:
        message = _xml(
            {
                "ToUserName": "gh_9b21c0",
                "FromUserName": user,
                "CreateTime": str(int(now)),
                "MsgType": "text",
                "Content": text,
                "MsgId": str(23_000_000_000_000_000 + number),
                **fields,
            }
        )
        if self.secrets.get("aes_key"):
            return self._sealed(message, now, {"encrypt_type": "aes"})
        timestamp, nonce = str(int(now)), secrets.token_hex(8)
        query = {
            "signature": envelope.signature(self.secrets["token"], timestamp, nonce),
            "timestamp": timestamp,
            "nonce": nonce,
            "openid": user,
        }
        return Webhook(self.channel, self.app_id, message, query, {"Content-Type": "text/xml"})

    def _wecom(
        self, text: str, user: str, chat: str | None, number: int, now: float, fields: Any
    ) -> Webhook:
        message = {
            "ToUserName": self.app_id,
            "FromUserName": user,
            "CreateTime": str(int(now)),
            "MsgType": "text",
            "Content": text,
            "MsgId": str(7_000_000_000_000_000 + number),
            "AgentID": str(self.options.get("agent_id", "")),
            **fields,
        }
        return self._sealed(_xml(message), now, {})

    def _sealed(self, message: bytes, now: float, query: dict[str, str]) -> Webhook:
        token, key = self.secrets["token"], envelope.key_of(self.secrets["aes_key"])
        timestamp, nonce = str(int(now)), secrets.token_hex(8)
        sealed = envelope.seal(key, self.app_id, message)
        query |= {
            "msg_signature": envelope.signature(token, timestamp, nonce, sealed),
            "timestamp": timestamp,
            "nonce": nonce,
        }
        body = f"<xml><ToUserName>x</ToUserName><Encrypt>{sealed}</Encrypt></xml>".encode()
        return Webhook(self.channel, self.app_id, body, query, {"Content-Type": "text/xml"})


def trial_app(channel: str, api: str, *, plain: bool = False) -> App:
    """An app with fresh secrets, whose API is played at ``api``; ``plain``: WeChat's plain mode."""
    options: dict[str, Any] = {"api_base": api}
    aes_key = (secrets.token_urlsafe(64).replace("-", "").replace("_", "") * 2)[:42] + "A"
    made: dict[str, dict[str, str]] = {
        "telegram": {
            "bot_token": f"{secrets.randbelow(10**9)}:{secrets.token_urlsafe(26)}",
            "webhook_secret": secrets.token_urlsafe(32),
        },
        "dingtalk": {"app_secret": secrets.token_urlsafe(32)},
        "wechat": {"token": secrets.token_hex(16), "app_secret": secrets.token_hex(16)},
        "wecom": {
            "token": secrets.token_hex(16),
            "aes_key": aes_key,
            "corp_secret": secrets.token_hex(16),
        },
    }
    if channel == "wecom":
        options["agent_id"] = "1000002"
    if channel == "wechat" and not plain:
        made["wechat"]["aes_key"] = aes_key
    return App(channel, f"trial-{channel}", made[channel], api, options)


def _json(headers: dict[str, str]) -> dict[str, str]:
    return {"Content-Type": "application/json", **headers}


def _xml(fields: Mapping[str, str]) -> bytes:
    inner = "".join(
        f"<{name}>{escape(str(value))}</{name}>"
        for name, value in fields.items()
        if value is not None
    )
    return f"<xml>{inner}</xml>".encode()
