"""Calls of a channel's API: what came back, or what became of the call.

The difference that matters is whether the channel may have taken what was sent. A connection that
was never made, a 429 and a 503 say no; a connection that broke while waiting, a 502 and a 504 say
nothing at all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import time
from typing import Any

import httpx
import orjson

from ironbeat.workloads.assistant.channels.contract import (
    FateUnknown,
    Rejected,
    TryLater,
)

CONNECT_SECONDS = 3.0
# No call is under way longer than this; see `delivery.SENDING_SECONDS`.
CALL_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 3600.0

# It writes the address of every call, and with it the token of a Telegram bot.
logging.getLogger("httpx").setLevel(logging.WARNING)


@lru_cache(maxsize=1)
def client() -> httpx.Client:
    """The connections of this process to the channels."""
    return httpx.Client(
        timeout=httpx.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=15),
        headers={"User-Agent": "ironbeat-assistant"},
    )


def call(
    client: httpx.Client,
    method: str,
    url: str,
    *,
    json: Any = None,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of an API's answer below 429.

    Raises :class:`TryLater`, :class:`FateUnknown`, or :class:`Rejected` when the answer is no JSON.
    The messages name no address: one may hold a token.
    """
    # WeChat shows an escaped character as it stands, so JSON goes out as UTF-8.
    content = None if json is None else orjson.dumps(json)
    sent = {**(headers or {}), **({"Content-Type": "application/json"} if content else {})}
    try:
        answer = client.request(method, url, content=content, params=params, headers=sent)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise TryLater(f"no connection: {type(error).__name__}") from None
    except httpx.TransportError as error:
        raise FateUnknown(f"the connection broke: {type(error).__name__}") from None
    except (httpx.InvalidURL, httpx.HTTPError, ValueError) as error:
        raise Rejected(f"the call cannot be made: {type(error).__name__}") from None
    body = _object(answer.content)
    status = answer.status_code
    if status in (502, 504):
        raise FateUnknown(f"HTTP {status}")
    if status == 429 or status >= 500:
        wait = _retry_after(answer.headers.get("retry-after")) or _told(body)
        raise TryLater(f"HTTP {status}", wait)
    if body is None:
        raise Rejected(f"HTTP {status} without JSON")
    return status, body


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _told(body: dict[str, Any] | None) -> float | None:
    """Telegram says in the body how long to wait."""
    parameters = (body or {}).get("parameters")
    wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
    return _bounded(float(wait)) if isinstance(wait, int | float) else None


def _retry_after(value: str | None) -> float | None:
    """The seconds in a ``Retry-After`` header, which has a number or a date."""
    if not value:
        return None
    if value.strip().isdigit():
        return _bounded(float(value))
    try:
        return _bounded(parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, TypeError):
        return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_RETRY_SECONDS)
