"""WeChat official accounts: plain and encrypted mode, passive reply, customer-service message.

In plain mode the signature covers a time and a nonce and nothing of the body. Such a nonce vouches
for the first body it came with; with another body it is a replay (see ``reception``).
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

import httpx

from ironbeat.workloads.assistant.accounts import Account
from ironbeat.workloads.assistant.channels import calls, xml_messages
from ironbeat.workloads.assistant.channels.contract import (
    Rejected,
    Reply,
    Sent,
    Token,
    UnknownFate,
)
from ironbeat.workloads.assistant.incoming import Incoming, Request, forged


class WeChat:
    """The channel ``wechat``."""

    name = "wechat"
    required: Mapping[str, str] = {"token": "the Token of the account's server configuration"}
    optional: Mapping[str, str] = {
        "aes_key": "the EncodingAESKey; with it, plain requests are refused",
        "app_secret": "the AppSecret, to send customer-service messages",
    }
    required_options: Mapping[str, str] = {}
    longest_bytes = 2048
    # WeChat drops the connection after five.
    response_seconds = 4.0
    # Customer-service messages are counted; a second copy may cost the user a later answer.
    unknown_fate: UnknownFate = "leave"
    api_base = "https://api.weixin.qq.com"
    default_language = "zh-Hans"

    def challenge(self, account: Account, request: Request) -> Reply:
        """The GET check: the echo goes back as it came."""
        given = xml_messages.parameter(request, "signature")
        xml_messages.verify(request, given, account.secret("token"))
        return Reply(xml_messages.parameter(request, "echostr").encode())

    def read(self, account: Account, request: Request) -> Incoming | None:
        """A message, in the mode that the account is in."""
        token, aes_key = account.secret("token"), account.secret("aes_key")
        if aes_key:
            if request.query.get("encrypt_type") != "aes":
                raise forged("the account is in encrypted mode, and the request is not encrypted")
            body = xml_messages.opened(request, token, aes_key, account.app_id)
            return xml_messages.incoming(body, {})
        xml_messages.verify(request, xml_messages.parameter(request, "signature"), token)
        nonce = f"{request.query['timestamp']}:{request.query['nonce']}"
        return xml_messages.incoming(request.body, {}, nonce=nonce)

    def respond(self, account: Account, reply_to: Mapping[str, Any], text: str | None) -> Reply:
        """A passive reply, or the word that stands for none."""
        if text is None:
            return Reply(b"success")
        now = time()
        message = xml_messages.reply_xml(reply_to, text, now)
        aes_key = account.secret("aes_key")
        if aes_key:
            return xml_messages.sealed_reply(
                message, account.secret("token"), aes_key, account.app_id, now
            )
        return Reply(message, "application/xml")

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
        """A customer-service message."""
        body = {"touser": reply_to["user"], "msgtype": "text", "text": {"content": text}}
        self._post(client, account, token, "message/custom/send", body)
        return Sent()

    def busy(
        self, client: httpx.Client, account: Account, token: str | None, reply_to: Mapping[str, Any]
    ) -> None:
        """The sign that somebody is typing."""
        body = {"touser": reply_to["user"], "command": "Typing"}
        self._post(client, account, token, "message/custom/typing", body)

    def needs_token(self, account: Account, reply_to: Mapping[str, Any] | None) -> bool:
        """Always, where the account can send at all."""
        return bool(account.secret("app_secret"))

    def fetch_token(self, client: httpx.Client, account: Account) -> Token:
        """The stable access token, which does not end the one before it."""
        if not account.secret("app_secret"):
            raise Rejected("the account has no app_secret, and so cannot call the API")
        base = account.option("api_base", self.api_base).rstrip("/")
        body = {
            "grant_type": "client_credential",
            "appid": account.app_id,
            "secret": account.secret("app_secret"),
        }
        _, answer = calls.call(client, "POST", f"{base}/cgi-bin/stable_token", json=body)
        return token_in(answer)

    def _post(
        self,
        client: httpx.Client,
        account: Account,
        token: str | None,
        path: str,
        body: Mapping[str, Any],
    ) -> dict[str, Any]:
        if not token:
            raise Rejected("the account has no app_secret, and so cannot call the API")
        base = account.option("api_base", self.api_base).rstrip("/")
        _, answer = calls.call(
            client, "POST", f"{base}/cgi-bin/{path}", params={"access_token": token}, json=body
        )
        xml_messages.check(answer)
        return answer


def token_in(answer: Mapping[str, Any]) -> Token:
    """The token in an API's answer. Raises :class:`Undelivered` when there is none."""
    xml_messages.check(answer)
    token, seconds = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(token, str) or not token or not isinstance(seconds, int):
        raise Rejected("the answer holds no access token")
    return Token(token, max(seconds, 1))
