"""Accounts: the apps of the channels, with their secrets encrypted at rest.

A webhook names its account by channel and app id. Accounts are remembered for a few seconds, so
that a busy webhook does not read and decrypt the same row each time; a change is effective after
:data:`REMEMBERED_SECONDS` everywhere.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import orjson
import psycopg

from ironbeat import connection, decrypt, encrypt
from ironbeat.workloads.assistant.store import fetch, fetch_all

REMEMBERED_SECONDS = 5.0
APP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}")

#: Options that every channel knows, with what they are for.
OPTIONS: Mapping[str, str] = {
    "corp_id": "WeCom: the corp id, where the app id is another name",
    "api_base": "where the channel's API is, if not at its usual address",
    "default_permissions": "what every new user of the app may do",
    "default_language": "zh-Hant, zh-Hans or en, where a message does not tell",
    "unknown_fate": "resend or leave an answer whose fate is unknown",
    "llm_url": "an OpenAI-compatible endpoint that words the answers",
    "llm_model": "the model to ask there",
    "llm_prompt": "what the model is told of its part",
}
#: A secret that every channel's account may have.
LLM_KEY = "llm_key"


class AccountError(ValueError):
    """An account cannot be stored as asked; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Account:
    """An app of a channel. ``secrets`` never appear in its representation."""

    id: int
    channel: str
    app_id: str
    enabled: bool
    secrets: Mapping[str, str] = field(repr=False)
    options: Mapping[str, Any]

    def secret(self, name: str) -> str:
        """A secret; the empty text where the account has none of that name."""
        return self.secrets.get(name, "")

    def option(self, name: str, default: str = "") -> str:
        """An option as text."""
        return str(self.options.get(name) or default)

    @property
    def default_permissions(self) -> list[str]:
        """What every new user may do."""
        found = self.options.get("default_permissions")
        return [str(each) for each in found] if isinstance(found, list) else []


_lock = threading.Lock()
_remembered: dict[tuple[str, str], tuple[float, Account | None]] = {}


def find(channel: str, app_id: str) -> Account | None:
    """The enabled account that a webhook names."""
    key = (channel, app_id)
    now = time.monotonic()
    with _lock:
        known = _remembered.get(key)
    if known is not None and known[0] > now:
        return known[1]
    with connection() as opened:
        row = fetch(opened, "account_named", channel=channel, app_id=app_id)
    found = _account(row) if row is not None and row["enabled"] else None
    with _lock:
        # A stranger who asks for ever new names must not fill the memory.
        if len(_remembered) >= 1000:
            _remembered.clear()
        _remembered[key] = (now + REMEMBERED_SECONDS, found)
    return found


def forget() -> None:
    """Read accounts anew from now on in this process."""
    with _lock:
        _remembered.clear()


def get(account_id: int) -> Account:
    """The account of a conversation, enabled or not. Raises :class:`LookupError`."""
    now = time.monotonic()
    with _lock:
        for until, account in _remembered.values():
            if account is not None and account.id == account_id and until > now:
                return account
    with connection() as opened:
        row = fetch(opened, "account_by_id", id=account_id)
    if row is None:
        raise LookupError(f"there is no account {account_id}")
    account = _account(row)
    if account.enabled:
        with _lock:
            _remembered[account.channel, account.app_id] = (now + REMEMBERED_SECONDS, account)
    return account


def every() -> list[Account]:
    """All accounts, by channel and app id."""
    with connection() as opened:
        return [_account(row) for row in fetch_all(opened, "accounts")]


def save(
    channel: str, app_id: str, secrets: Mapping[str, str], options: Mapping[str, Any]
) -> Account:
    """Store an account, or replace the secrets and options of one that is there.

    Raises :class:`AccountError` naming everything that is missing or wrong.
    """
    problems = list(_problems(channel, app_id, secrets, options))
    if problems:
        raise AccountError("; ".join(problems))
    with connection() as opened, opened.transaction():
        row = fetch(
            opened,
            "save_account",
            channel=channel,
            app_id=app_id,
            secrets=encrypt(orjson.dumps(dict(secrets)).decode()),
            options=orjson.dumps(dict(options)).decode(),
        )
        assert row is not None
        # A token of the former secrets is not the new ones'.
        fetch_all(opened, "forget_token", account_id=row["id"])
    forget()
    return _account(row)


def set_enabled(channel: str, app_id: str, enabled: bool) -> bool:
    """Switch an account on or off; whether there is one of that name."""
    with connection() as opened:
        row = fetch(opened, "set_enabled", channel=channel, app_id=app_id, enabled=enabled)
    forget()
    return row is not None


def remove(channel: str, app_id: str) -> bool:
    """Remove an account with its users, conversations and messages; whether there was one."""
    with connection() as opened:
        row = fetch(opened, "remove_account", channel=channel, app_id=app_id)
    forget()
    return row is not None


def _account(row: psycopg.rows.DictRow) -> Account:
    secrets = cast("dict[str, str]", orjson.loads(decrypt(row["secrets"])))
    return Account(
        row["id"], row["channel"], row["app_id"], row["enabled"], secrets, row["options"]
    )


def _problems(
    channel: str, app_id: str, secrets: Mapping[str, str], options: Mapping[str, Any]
) -> Any:
    from ironbeat.workloads.assistant.channels import CHANNELS
    from ironbeat.workloads.assistant.channels.envelope import key_of

    if channel not in CHANNELS:
        yield f"there is no channel {channel!r}; there are: {', '.join(CHANNELS)}"
        return
    known = CHANNELS[channel]
    if not APP_ID.fullmatch(app_id):
        yield "an app id has up to 128 letters, digits and _ . @ -"
    for name in known.required:
        if not secrets.get(name):
            yield f"the secret {name} is missing ({known.required[name]})"
    for name in sorted(set(secrets) - {*known.required, *known.optional, LLM_KEY}):
        yield f"{channel} has no secret {name}"
    for name in known.required_options:
        if not options.get(name):
            yield f"the option {name} is missing ({known.required_options[name]})"
    for name in sorted(set(options) - {*known.required_options, *OPTIONS}):
        yield f"{channel} has no option {name}"
    for name in ("api_base", "llm_url"):
        if options.get(name) and not _acceptable_url(str(options[name])):
            yield f"{name} must be an https address, or http on this machine"
    if options.get("unknown_fate", "resend") not in ("resend", "leave"):
        yield "unknown_fate is resend or leave"
    if options.get("default_language", "en") not in ("zh-Hant", "zh-Hans", "en"):
        yield "default_language is zh-Hant, zh-Hans or en"
    if options.get("llm_url") and not options.get("llm_model"):
        yield "llm_url needs llm_model beside it"
    if "agent_id" in options and not str(options["agent_id"]).isdecimal():
        yield "agent_id is a number"
    if secrets.get("aes_key"):
        try:
            key_of(secrets["aes_key"])
        except ValueError as error:
            yield f"aes_key: {error}"


def _acceptable_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    return parts.scheme == "http" and host in ("127.0.0.1", "localhost", "::1")
