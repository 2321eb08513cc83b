"""Secrets stay out of logs and error reports.

Three nets: values under a name that says secret; passwords in URLs and in ``name=value`` text; and
the very values of this installation's own secret settings, wherever they turn up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from ironbeat.settings import Settings

MASK = "***"
# A shorter value may well be an ordinary word.
SHORTEST_SECRET = 6

# One of these stands in every text that the slower searches could find something in.
_SIGNS = (
    *("pass", "secret", "token", "key", "authorization", "credential", "dsn", "cookie"),
    *("bearer ", "basic "),
)
_WORDS = r"password|passwd|passphrase|secret|token|api_?key|authorization|credentials?|dsn|cookie"
_NAME = re.compile(rf"(?:^|[_\-.])(?:{_WORDS})$", re.IGNORECASE)
_URL = re.compile(r"(?P<before>://[^\s/@:\"']*:)[^\s/@\"']+(?P<after>@)")
_BEARER = re.compile(r"(?P<before>\b(?:Bearer|Basic) +)[A-Za-z0-9._~+/=\-]{6,}", re.IGNORECASE)
# As `password=x`, `'token': 'x'` or, inside JSON text, `\"token\": \"x\"`.
_ASSIGNED = re.compile(
    rf"(?P<before>(?:\b|_)(?:{_WORDS})\\?[\"']?\s*[=:]\s*(?:(?:Bearer|Basic)\s+)?\\?[\"']?)"
    r"[^\s\"'\\,;&)}\]]+",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a value under this name must not be shown."""
    return _NAME.search(name) is not None


def masked(value: Any, depth: int = 6) -> Any:
    """``value`` with everything under a secret name replaced, to a bounded depth."""
    if depth <= 0:
        return value
    if isinstance(value, Mapping):
        return {
            key: MASK
            if isinstance(key, str) and is_secret_name(key) and inner is not None
            else masked(inner, depth - 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked(inner, depth - 1) for inner in value]
    return value


class Masker:
    """Replaces secrets in finished text."""

    def __init__(self, secrets: Iterable[str] = ()):
        spellings: set[str] = set()
        for secret in secrets:
            if len(secret) >= SHORTEST_SECRET:
                # As it stands, and as JSON spells it.
                spellings |= {secret, json.dumps(secret)[1:-1]}
        ordered = sorted(spellings, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def within(self, value: Any, depth: int = 6) -> Any:
        """``value`` as :func:`masked` has it, and each text in it without secrets."""
        return self._texts(masked(value, depth), depth)

    def _texts(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self(value)
        if depth > 0 and isinstance(value, Mapping):
            return {key: self._texts(inner, depth - 1) for key, inner in value.items()}
        if depth > 0 and isinstance(value, list | tuple):
            return [self._texts(inner, depth - 1) for inner in value]
        return value

    def __call__(self, text: str) -> str:
        """``text`` without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        text = _URL.sub(rf"\g<before>{MASK}\g<after>", text)
        lower = text.lower()
        if not any(sign in lower for sign in _SIGNS):
            return text
        text = _BEARER.sub(rf"\g<before>{MASK}", text)
        return _ASSIGNED.sub(rf"\g<before>{MASK}", text)


def secrets_of(settings: Settings) -> set[str]:
    """The secret values in ``settings``: of a URL its password, as given and decoded."""
    found: set[str] = set()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if not isinstance(value, SecretStr):
            continue
        text = value.get_secret_value()
        if "://" in text:
            for part in text.split(";"):
                password = _password(part)
                if password:
                    found |= {password, unquote(password)}
        elif text:
            found.add(text)
            # Of `user:password` pairs and lists of keys, each by itself.
            for part in text.split(","):
                found |= {part, part.partition(":")[2]}
    return {secret for secret in found if len(secret) >= SHORTEST_SECRET}


def _password(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        # A Sentry address carries its key as the user name.
        return parts.password or (parts.username if parts.scheme.startswith("http") else None)
    except ValueError:
        return None
