"""Telegram: a bot's webhook, its secret-token header, ``sendMessage`` and chat actions.

The header is all that proves an update; Telegram keeps updates for at most 24 hours, so an older
one is a replay.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

import httpx
import orjson

from ironbeat.workloads.assistant.accounts import Account
from ironbeat.workloads.assistant.channels import calls, reading
from ironbeat.workloads.assistant.channels.contract import (
    CREDENTIALS_SECONDS,
    Rejected,
    Reply,
    Sent,
    Token,
    TryLater,
    UnknownFate,
)
from ironbeat.workloads.assistant.incoming import Incoming, Refusal, Request, forged, instant

SECRET_HEADER = "x-telegram-bot-api-secret-token"  # noqa: S105 (a header)
KEPT_SECONDS = 24 * 3600
SKEW_SECONDS = 300

_KINDS = ("photo", "video", "voice", "audio", "document", "sticker", "location", "contact")


class Telegram:
    """The channel ``telegram``."""

    name = "telegram"
    required: Mapping[str, str] = {
        "bot_token": "what @BotFather gave you",
        "webhook_secret": "the secret_token that you call setWebhook with",
    }
    optional: Mapping[str, str] = {}
    required_options: Mapping[str, str] = {}
    # 4096 UTF-16 units; no character takes fewer bytes than it takes of those.
    longest_bytes = 4096
    response_seconds = 50.0
    unknown_fate: UnknownFate = "resend"
    api_base = "https://api.telegram.org"
    default_language = "en"

    def challenge(self, account: Account, request: Request) -> Reply:
        """Telegram asks for none."""
        raise Refusal(405, "Telegram posts its updates")

    def read(self, account: Account, request: Request) -> Incoming | None:
        """The message of an update."""
        given = request.headers.get(SECRET_HEADER, "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, account.secret("webhook_secret").encode()):
            raise forged("the secret token is missing or wrong")
        update = reading.json_object(request.body)
        reading.integer(update, "update_id")
        if "message" not in update:
            return None
        message = reading.mapping(update, "message")
        sender, chat = message.get("from"), reading.mapping(message, "chat")
        if not isinstance(sender, dict) or sender.get("is_bot") is True:
            return None
        date = reading.integer(message, "date")
        if not -SKEW_SECONDS <= request.now - date <= KEPT_SECONDS + SKEW_SECONDS:
            raise forged("the update is older than Telegram keeps any, or from the future")
        chat_id = reading.integer(chat, "id")
        content = message.get("text")
        if content is not None and not isinstance(content, str):
            raise Refusal(400, "text must be a text")
        kind = "text" if content else next((k for k in _KINDS if k in message), "other")
        reply_to: dict[str, Any] = {"chat_id": chat_id}
        thread = message.get("message_thread_id")
        if message.get("is_topic_message") is True and isinstance(thread, int):
            reply_to["message_thread_id"] = thread
        return Incoming(
            message_id=f"{chat_id}:{reading.integer(message, 'message_id')}",
            conversation_id=str(chat_id),
            user_id=str(reading.integer(sender, "id")),
            content=content or "",
            message_type=kind,
            sent_at=instant(date),
            reply_to=reply_to,
            raw_data=update,
            user_name=str(sender.get("first_name") or "")[:100],
            language_hint=str(sender.get("language_code") or "")[:16],
        )

    def respond(self, account: Account, reply_to: Mapping[str, Any], text: str | None) -> Reply:
        """A method call in the response, or nothing."""
        if text is None:
            return Reply(b"{}", "application/json")
        body = {"method": "sendMessage", **reply_to, "text": text}
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
        """``sendMessage``."""
        result = self._call(client, account, "sendMessage", {**reply_to, "text": text})
        message = result.get("result")
        return Sent(str(message.get("message_id", "")) if isinstance(message, dict) else "")

    def busy(
        self, client: httpx.Client, account: Account, token: str | None, reply_to: Mapping[str, Any]
    ) -> None:
        """``sendChatAction``: typing, for five seconds."""
        self._call(client, account, "sendChatAction", {**reply_to, "action": "typing"})

    def needs_token(self, account: Account, reply_to: Mapping[str, Any] | None) -> bool:
        """Never: a bot's token does not expire."""
        return False

    def fetch_token(self, client: httpx.Client, account: Account) -> Token:
        """There is none to fetch."""
        raise Rejected("a bot's token does not expire")

    def _call(
        self, client: httpx.Client, account: Account, method: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        base = account.option("api_base", self.api_base).rstrip("/")
        url = f"{base}/bot{account.secret('bot_token')}/{method}"
        status, answer = calls.call(client, "POST", url, json=dict(body))
        if answer.get("ok") is True:
            return answer
        told = str(answer.get("description", ""))[:200]
        if answer.get("error_code") == 429:
            wait = (answer.get("parameters") or {}).get("retry_after")
            raise TryLater(told, float(wait) if isinstance(wait, int | float) else None)
        if status == 401:
            raise TryLater(f"HTTP {status}: {told}", CREDENTIALS_SECONDS)
        raise Rejected(f"HTTP {status}: {told}")
