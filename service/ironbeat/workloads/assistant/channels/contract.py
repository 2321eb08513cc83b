"""What a channel is to the rest: it checks and reads webhooks, words responses, and sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import httpx

from ironbeat.workloads.assistant.accounts import Account
from ironbeat.workloads.assistant.incoming import Incoming, Request

# Credentials that a channel does not take are for an operator to correct; answers wait for that.
CREDENTIALS_SECONDS = 60.0

UnknownFate = Literal["resend", "leave"]


@dataclass(frozen=True, slots=True)
class Reply:
    """A webhook's response."""

    body: bytes
    media_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class Sent:
    """The channel confirmed that it has the answer, and calls it so."""

    provider_id: str = ""


class Undelivered(Exception):
    """An answer is not known to be delivered; the subclass says what that means."""


class Rejected(Undelivered):
    """The channel refuses this answer, now and later."""


class TryLater(Undelivered):
    """The channel did not take the answer and says (or we assume) when it will, in seconds."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class FateUnknown(Undelivered):
    """The answer was on its way when the connection broke: it may have been taken, or not."""


class TokenRejected(Undelivered):
    """The access token does not hold any more; nothing was taken."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token of a channel, and how many seconds it holds."""

    value: str
    seconds: int


class Channel(Protocol):
    """One channel. Stateless: everything it knows of an app comes with the account."""

    name: str
    #: Secrets that an account must have, and those it may have, with what they are for.
    required: Mapping[str, str]
    optional: Mapping[str, str]
    #: Options an account must have.
    required_options: Mapping[str, str]
    #: The largest answer in UTF-8 bytes; what is longer goes out in parts.
    longest_bytes: int
    #: How long the channel waits for a webhook's response, less a margin.
    response_seconds: float
    #: What becomes of an answer whose fate is unknown, unless the account says otherwise.
    unknown_fate: UnknownFate
    #: Where the channel's API is, unless the account says otherwise.
    api_base: str
    default_language: str

    def challenge(self, account: Account, request: Request) -> Reply:
        """Answer the check by which a channel confirms a webhook's address."""
        ...

    def read(self, account: Account, request: Request) -> Incoming | None:
        """The message in a request that is proved to be the channel's.

        ``None``: an event that nobody needs to answer. Raises :class:`Refusal`.
        """
        ...

    def respond(self, account: Account, reply_to: Mapping[str, Any], text: str | None) -> Reply:
        """The response that says ``text`` to the chat, or only that the request was taken."""
        ...

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
        """Say ``text`` to a chat over the channel's API. Raises :class:`Undelivered`.

        ``repeated``: an earlier call with this text may have been taken.
        """
        ...

    def busy(
        self, client: httpx.Client, account: Account, token: str | None, reply_to: Mapping[str, Any]
    ) -> None:
        """Show the user that an answer is being worked on, where the channel can."""
        ...

    def needs_token(self, account: Account, reply_to: Mapping[str, Any] | None) -> bool:
        """Whether sending takes an access token; without ``reply_to``: whether it may."""
        ...

    def fetch_token(self, client: httpx.Client, account: Account) -> Token:
        """A fresh access token from the channel. Raises :class:`Undelivered`."""
        ...
