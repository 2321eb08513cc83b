"""DingTalk robots: HMAC-SHA256 over the time, answers by session webhook or robot send.

The signature covers a timestamp and nothing of the body, so what the body says is believed with
care: a session webhook is called only where DingTalk's (or the account's own) API is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from time import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from ironbeat.workloads.assistant.accounts import Account
from ironbeat.workloads.assistant.channels import calls, reading
from ironbeat.workloads.assistant.channels.contract import (
    Rejected,
    Reply,
    Sent,
    Token,
    TokenRejected,
    TryLater,
    UnknownFate,
)
from ironbeat.workloads.assistant.incoming import Incoming, Refusal, Request, forged, instant

WINDOW_SECONDS = 3600
# A session webhook that ends within this is as good as over.
SESSION_MARGIN_SECONDS = 10

_TOKEN_HEADER = "x-acs-dingtalk-access-token"  # noqa: S105 (a header)
_TOO_FAST = (130101, 130102, 410100, 90018)
_TOO_FAST_SECONDS = 60.0


def sign(timestamp: str, secret: str) -> str:
    """The signature of a timestamp (milliseconds, as text)."""
    mac = hmac.new(secret.encode(), f"{timestamp}\n{secret}".encode(), hashlib.sha256)
    return base64.b64encode(mac.digest()).decode()


class DingTalk:
    """The channel ``dingtalk``."""

    name = "dingtalk"
    required: Mapping[str, str] = {"app_secret": "the robot's AppSecret, which signs its requests"}
    optional: Mapping[str, str] = {
        "robot_token": "the access_token of a group's own robot, to answer by robot/send",
        "robot_secret": "what that robot's calls are signed with",
    }
    required_options: Mapping[str, str] = {}
    longest_bytes = 15_000
    response_seconds = 8.0
    unknown_fate: UnknownFate = "resend"
    api_base = "https://api.dingtalk.com"
    default_language = "zh-Hans"

    def challenge(self, account: Account, request: Request) -> Reply:
        """DingTalk asks for none."""
        raise Refusal(405, "DingTalk posts its messages")

    def read(self, account: Account, request: Request) -> Incoming | None:
        """The message that a robot was sent."""
        self._verify(account, request)
        body = reading.json_object(request.body)
        kind = reading.string(body, "msgtype", longest=32)
        content = ""
        if kind == "text":
            content = reading.text(reading.mapping(body, "text").get("content", ""))
        sender = reading.string(body, "senderId")
        conversation = reading.string(body, "conversationId")
        return Incoming(
            message_id=reading.string(body, "msgId"),
            # In a group everybody talks to the robot in one conversation.
            conversation_id=conversation,
            user_id=str(body.get("senderStaffId") or sender)[:256],
            content=content.strip(),
            message_type=kind,
            sent_at=instant(_milliseconds(body, "createAt", request.now)),
            reply_to=self._reply_to(account, body, request.now),
            raw_data=body,
            user_name=str(body.get("senderNick") or "")[:100],
        )

    def _verify(self, account: Account, request: Request) -> None:
        timestamp = request.headers.get("timestamp", "")
        given = request.headers.get("sign", "").encode("utf-8", "replace")
        expected = sign(timestamp, account.secret("app_secret")).encode()
        if not hmac.compare_digest(given, expected):
            raise forged("the signature is missing or wrong")
        sent = reading.digits(timestamp, "timestamp") / 1000
        if abs(request.now - sent) > WINDOW_SECONDS:
            raise forged("the request was signed more than an hour ago, or ahead")

    def _reply_to(self, account: Account, body: Mapping[str, Any], now: float) -> dict[str, Any]:
        reply_to: dict[str, Any] = {
            "conversation": body["conversationId"],
            "group": str(body.get("conversationType")) == "2",
            "staff": str(body.get("senderStaffId") or ""),
            "robot": str(body.get("robotCode") or account.app_id)[:256],
        }
        session = body.get("sessionWebhook")
        if isinstance(session, str) and session:
            if not self._is_own(account, session):
                raise forged("the session webhook is not at DingTalk's address")
            reply_to["session"] = session
            reply_to["session_until"] = _milliseconds(body, "sessionWebhookExpiredTime", now)
        return reply_to

    def _is_own(self, account: Account, url: str) -> bool:
        # Readers of addresses disagree about these; an honest one has none of them.
        if not url.isascii() or any(each in url for each in "\\@ \t\r\n"):
            return False
        try:
            parts, base = urlsplit(url), urlsplit(account.option("api_base", self.api_base))
            own = parts[:2] == base[:2]
            host = parts.hostname or ""
            at_dingtalk = parts.scheme == "https" and parts.port in (None, 443)
        except ValueError:
            return False
        return own or (at_dingtalk and host.endswith(".dingtalk.com"))

    def respond(self, account: Account, reply_to: Mapping[str, Any], text: str | None) -> Reply:
        """The message as the response's JSON, or an empty object."""
        body = {} if text is None else _text_message(text)
        return Reply(orjson.dumps(body), "application/json")

    def send(
        self,
        client: httpx.Client,
        account: Account,
        token: str | None,
        reply_to: Mapping[str, Any],
        text: str,
        *,
        repeated: bool = False,
    ) -> Sent:
        """By the session webhook while it holds, else by the group's robot or the app's API."""
        if _session_holds(reply_to):
            return self._send_simple(client, reply_to["session"], None, text)
        if account.secret("robot_token"):
            base = account.option("api_base", "https://oapi.dingtalk.com").rstrip("/")
            return self._send_simple(client, f"{base}/robot/send", _robot_parameters(account), text)
        return self._send_by_app(client, account, token or "", reply_to, text)

    def _send_simple(
        self, client: httpx.Client, url: str, parameters: Mapping[str, str] | None, text: str
    ) -> Sent:
        _, answer = calls.call(client, "POST", url, params=parameters, json=_text_message(text))
        code = answer.get("errcode")
        if code == 0:
            return Sent(str(answer.get("messageId", "")))
        told = f"{code}: {str(answer.get('errmsg', ''))[:200]}"
        if code in _TOO_FAST:
            raise TryLater(told, _TOO_FAST_SECONDS)
        if code == -1:
            raise TryLater(told)
        raise Rejected(told)

    def _send_by_app(
        self,
        client: httpx.Client,
        account: Account,
        token: str,
        reply_to: Mapping[str, Any],
        text: str,
        *,
        repeated: bool = False,
    ) -> Sent:
        base = account.option("api_base", self.api_base).rstrip("/")
        body: dict[str, Any] = {
            "robotCode": reply_to.get("robot"),
            "msgKey": "sampleText",
            "msgParam": orjson.dumps({"content": text}).decode(),
        }
        if reply_to.get("group"):
            url = f"{base}/v1.0/robot/groupMessages/send"
            body["openConversationId"] = reply_to.get("conversation")
        elif reply_to.get("staff"):
            url = f"{base}/v1.0/robot/oToMessages/batchSend"
            body["userIds"] = [reply_to["staff"]]
        else:
            raise Rejected("the session webhook is over, and the sender has no staff id")
        status, answer = calls.call(client, "POST", url, json=body, headers={_TOKEN_HEADER: token})
        if status == 200 and "processQueryKey" in answer:
            return Sent(str(answer["processQueryKey"]))
        code = str(answer.get("code", ""))
        told = f"{code}: {str(answer.get('message', ''))[:200]}"
        if status == 401 or "InvalidAuthentication" in code or "invalidAccessToken" in code:
            raise TokenRejected(told)
        if "QpsLimit" in code or "Throttling" in code:
            raise TryLater(told, 1.0)
        raise Rejected(told)

    def busy(
        self, client: httpx.Client, account: Account, token: str | None, reply_to: Mapping[str, Any]
    ) -> None:
        """Robots have no such sign."""

    def needs_token(self, account: Account, reply_to: Mapping[str, Any] | None) -> bool:
        """Only where neither a session webhook nor a group's robot serves."""
        if account.secret("robot_token"):
            return False
        return reply_to is None or not _session_holds(reply_to)

    def fetch_token(self, client: httpx.Client, account: Account) -> Token:
        """The app's access token."""
        base = account.option("api_base", self.api_base).rstrip("/")
        body = {"appKey": account.app_id, "appSecret": account.secret("app_secret")}
        status, answer = calls.call(client, "POST", f"{base}/v1.0/oauth2/accessToken", json=body)
        token, seconds = answer.get("accessToken"), answer.get("expireIn")
        if status != 200 or not isinstance(token, str) or not isinstance(seconds, int):
            raise Rejected(f"{answer.get('code')}: {str(answer.get('message', ''))[:200]}")
        return Token(token, max(seconds, 1))


def _text_message(text: str) -> dict[str, Any]:
    return {"msgtype": "text", "text": {"content": text}}


def _milliseconds(body: Mapping[str, Any], name: str, default: float) -> float:
    value = body.get(name)
    if isinstance(value, str):
        return reading.digits(value, name) / 1000
    return reading.integer(body, name) / 1000 if value is not None else default


def _session_holds(reply_to: Mapping[str, Any]) -> bool:
    until = reply_to.get("session_until") or 0
    return bool(reply_to.get("session")) and until > time() + SESSION_MARGIN_SECONDS


def _robot_parameters(account: Account) -> dict[str, str]:
    parameters = {"access_token": account.secret("robot_token")}
    if secret := account.secret("robot_secret"):
        parameters["timestamp"] = str(round(time() * 1000))
        parameters["sign"] = sign(parameters["timestamp"], secret)
    return parameters
