"""WeCom apps: always in envelopes, passive reply, application messages.

Every message names the app's ``agent_id``; the account's app id is the corp id unless the option
``corp_id`` says otherwise, so that several apps of one corp can stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

import httpx

from ironbeat.workloads.assistant.accounts import Account
from ironbeat.workloads.assistant.channels import calls, xml_messages
from ironbeat.workloads.assistant.channels.contract import Reply, Sent, Token, UnknownFate
from ironbeat.workloads.assistant.channels.wechat import token_in
from ironbeat.workloads.assistant.incoming import Incoming, Request

# Within so many seconds WeCom recognises the copy of an answer.
DUPLICATE_SECONDS = 1800


class WeCom:
    """The channel ``wecom``."""

    name = "wecom"
    required: Mapping[str, str] = {
        "token": "the Token of the app's callback configuration",
        "aes_key": "its EncodingAESKey",
        "corp_secret": "the app's Secret, to send messages",
    }
    optional: Mapping[str, str] = {}
    required_options: Mapping[str, str] = {"agent_id": "the app's AgentId"}
    longest_bytes = 2048
    # WeCom drops the connection after five.
    response_seconds = 4.0
    unknown_fate: UnknownFate = "resend"
    api_base = "https://qyapi.weixin.qq.com"
    default_language = "zh-Hans"

    def challenge(self, account: Account, request: Request) -> Reply:
        """The GET check: the echo is an envelope, and what it holds goes back."""
        sealed = xml_messages.parameter(request, "echostr")
        return Reply(self._opened(account, request, sealed))

    def read(self, account: Account, request: Request) -> Incoming | None:
        """The message in an envelope."""
        body = xml_messages.opened(
            request, account.secret("token"), account.secret("aes_key"), _corp(account)
        )
        return xml_messages.incoming(body, {})

    def respond(self, account: Account, reply_to: Mapping[str, Any], text: str | None) -> Reply:
        """A passive reply in an envelope, or an empty response."""
        if text is None:
            return Reply(b"")
        now = time()
        return xml_messages.sealed_reply(
            xml_messages.reply_xml(reply_to, text, now),
            *(account.secret("token"), account.secret("aes_key"), _corp(account), now),
        )

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
        """An application message; of a repeated one WeCom is asked to drop a second copy."""
        base = account.option("api_base", self.api_base).rstrip("/")
        body: dict[str, Any] = {
            "touser": reply_to["user"],
            "msgtype": "text",
            "agentid": int(account.option("agent_id", "0")),
            "text": {"content": text},
        }
        if repeated:
            body |= {"enable_duplicate_check": 1, "duplicate_check_interval": DUPLICATE_SECONDS}
        _, answer = calls.call(
            client,
            "POST",
            f"{base}/cgi-bin/message/send",
            params={"access_token": token or ""},
            json=body,
        )
        xml_messages.check(answer)
        return Sent(str(answer.get("msgid", "")))

    def busy(
        self, client: httpx.Client, account: Account, token: str | None, reply_to: Mapping[str, Any]
    ) -> None:
        """Apps have no such sign."""

    def needs_token(self, account: Account, reply_to: Mapping[str, Any] | None) -> bool:
        """Always."""
        return True

    def fetch_token(self, client: httpx.Client, account: Account) -> Token:
        """The app's access token."""
        base = account.option("api_base", self.api_base).rstrip("/")
        parameters = {"corpid": _corp(account), "corpsecret": account.secret("corp_secret")}
        _, answer = calls.call(client, "GET", f"{base}/cgi-bin/gettoken", params=parameters)
        return token_in(answer)

    def _opened(self, account: Account, request: Request, sealed: str) -> bytes:
        token, aes_key = account.secret("token"), account.secret("aes_key")
        return xml_messages.opened_text(request, sealed, token, aes_key, _corp(account))


def _corp(account: Account) -> str:
    return account.option("corp_id", account.app_id)
