"""Sending one answer, and what becomes of it.

An answer is ``sending`` in the database before the channel's API is called, so that a process that
dies in between leaves a trace: the answer's fate is unknown then, and whoever finds it decides by
the account's policy. ``resend`` sends again and counts the doubt; ``leave`` ends it as ``unknown``.
Either way no answer is *confirmed* twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ironbeat.workloads.assistant import tokens
from ironbeat.workloads.assistant.accounts import Account
from ironbeat.workloads.assistant.channels import CHANNELS, calls
from ironbeat.workloads.assistant.channels.contract import (
    CREDENTIALS_SECONDS,
    FateUnknown,
    Rejected,
    Sent,
    TokenRejected,
    TryLater,
    Undelivered,
)

logger = logging.getLogger(__name__)

# A call takes at most connecting plus one read time-out for each of a few pieces; who has not come
# back after this is not there any more.
SENDING_SECONDS = 30.0
# Waits between attempts where the channel names none.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 2.0, 300.0
# An answer that could not be delivered for so long helps nobody.
GIVE_UP_SECONDS = 24 * 3600.0
MOST_ATTEMPTS = 50

State = Literal["pending", "confirmed", "unknown", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt: the answer's next state, and the parameters of ``settle``."""

    state: State
    wait: float = 0.0
    unknown: int = 0
    provider_id: str | None = None
    error: str | None = None

    def parameters(self) -> dict[str, Any]:
        """For the query."""
        return {
            "state": self.state,
            "wait": self.wait,
            "unknown": self.unknown,
            "provider_id": self.provider_id,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to send: its number, the answer's age in seconds, and past doubts."""

    content: str
    number: int = 1
    age: float = 0.0
    unknown_fates: int = 0


def send(account: Account, reply_to: Mapping[str, Any], attempt: Attempt) -> Outcome:
    """Send an answer that is marked as ``sending``."""
    try:
        sent = _send(account, reply_to, attempt)
    except FateUnknown as error:
        return doubtful(account, str(error), attempt)
    except TryLater as error:
        if attempt.age > GIVE_UP_SECONDS or attempt.number >= MOST_ATTEMPTS:
            return Outcome("failed", error=f"given up after {attempt.number} attempts: {error}")
        wait = error.seconds if error.seconds is not None else backoff(attempt.number)
        return Outcome("pending", wait=wait, error=str(error))
    except Undelivered as error:
        logger.warning("%s %s refused an answer: %s", account.channel, account.app_id, error)
        return Outcome("failed", error=str(error))
    return Outcome("confirmed", provider_id=sent.provider_id or None)


def doubtful(account: Account, reason: str, attempt: Attempt) -> Outcome:
    """The outcome of an attempt that may or may not have been heard."""
    if policy(account) == "leave" or attempt.number >= MOST_ATTEMPTS:
        return Outcome("unknown", unknown=1, error=reason)
    return Outcome("pending", wait=backoff(attempt.number), unknown=1, error=reason)


def policy(account: Account) -> str:
    """``resend`` or ``leave``: what becomes of an answer whose fate is unknown."""
    return account.option("unknown_fate", CHANNELS[account.channel].unknown_fate)


def backoff(number: int) -> float:
    """Seconds to wait after so many attempts."""
    return min(FIRST_WAIT_SECONDS * 2.0 ** min(number - 1, 16), LONGEST_WAIT_SECONDS)


def busy(account: Account, reply_to: Mapping[str, Any]) -> None:
    """Show that an answer is being worked on; that this fails is nobody's concern."""
    channel = CHANNELS[account.channel]
    try:
        token = tokens.current(account)[0] if channel.needs_token(account, reply_to) else None
        channel.busy(calls.client(), account, token, reply_to)
    except Undelivered as error:
        logger.info("%s %s: no sign of work: %s", account.channel, account.app_id, error)


def _send(account: Account, reply_to: Mapping[str, Any], attempt: Attempt) -> Sent:
    channel, client = CHANNELS[account.channel], calls.client()
    repeated = attempt.unknown_fates > 0
    if not channel.needs_token(account, reply_to):
        return channel.send(client, account, None, reply_to, attempt.content, repeated=repeated)
    token, version = _token(account)
    try:
        return channel.send(client, account, token, reply_to, attempt.content, repeated=repeated)
    except TokenRejected:
        token, _ = _token(account, not_version=version)
    try:
        return channel.send(client, account, token, reply_to, attempt.content, repeated=repeated)
    except TokenRejected as error:
        raise TryLater(f"a fresh access token was rejected: {error}") from None


def _token(account: Account, *, not_version: int | None = None) -> tuple[str, int]:
    try:
        return tokens.current(account, not_version=not_version)
    except (Rejected, TokenRejected) as error:
        raise TryLater(str(error), CREDENTIALS_SECONDS) from None


def parts_of(text: str, longest_bytes: int) -> list[str]:
    """``text`` in parts of at most so many UTF-8 bytes, cut at line ends or spaces if there are."""
    parts: list[str] = []
    # No store and no channel takes a NUL character or half a surrogate pair.
    rest = text.replace("\x00", "").encode("utf-8", "replace").decode().strip()
    while len(rest.encode()) > longest_bytes:
        fitting = rest.encode()[:longest_bytes].decode(errors="ignore")
        cut = max(fitting.rfind("\n"), fitting.rfind(" "))
        # A cut far from the end would make many short parts.
        if cut < len(fitting) // 2:
            cut = len(fitting)
        parts.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [part for part in (*parts, rest) if part]
