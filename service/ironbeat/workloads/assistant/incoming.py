"""What comes in: a webhook's request as channels see it, and the message that it carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


class Refusal(Exception):
    """A request that is not taken; nothing was stored. ``status`` is that of the response."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def malformed(detail: str) -> Refusal:
    """The request is not what the channel sends."""
    return Refusal(400, detail)


def forged(detail: str) -> Refusal:
    """The request does not prove that it comes from the channel, now."""
    return Refusal(403, detail)


@dataclass(frozen=True, slots=True)
class Request:
    """A webhook's request. Header names are in lower case; ``now`` is this machine's time."""

    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    now: float


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as every channel's is written down.

    ``message_id``, ``conversation_id`` and ``user_id`` are the channel's own. ``reply_to`` holds
    what the channel needs to answer. ``nonce`` is set where the signature does not cover the body.
    """

    message_id: str
    conversation_id: str
    user_id: str
    content: str
    message_type: str
    sent_at: datetime
    reply_to: Mapping[str, Any]
    raw_data: Mapping[str, Any]
    user_name: str = ""
    language_hint: str = ""
    nonce: str | None = field(default=None)


def instant(seconds: float) -> datetime:
    """The time of a Unix timestamp. Raises :class:`Refusal` for one beyond the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise malformed(f"{seconds!r} is no time") from None
