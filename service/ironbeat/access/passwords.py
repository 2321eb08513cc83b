"""Passwords at rest: salted scrypt, in a text that names its own parameters. Pure but for salt."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

# About 50 ms and 16 MB a try on one core; the work is in the memory.
COST, BLOCK, PARALLEL = 2**14, 8, 1
SHORTEST = 10
LONGEST = 500


class WeakPassword(ValueError):
    """The password is too short or too long."""


def digest(password: str) -> str:
    """``password`` as it is kept. Raises :class:`WeakPassword`."""
    if len(password) < SHORTEST:
        raise WeakPassword(f"the password has fewer than {SHORTEST} characters; choose a longer")
    if len(password) > LONGEST:
        raise WeakPassword(f"the password has more than {LONGEST} characters")
    salt = secrets.token_bytes(16)
    key = _derive(password, salt, COST, BLOCK, PARALLEL)
    return "$".join(("scrypt", str(COST), str(BLOCK), str(PARALLEL), _text(salt), _text(key)))


def matches(password: str, kept: str) -> bool:
    """Whether ``password`` is the one of ``kept``, in a time that does not tell how nearly."""
    try:
        kind, cost, block, parallel, salt, key = kept.split("$")
        if kind != "scrypt":
            return False
        wanted = base64.b64decode(key)
        found = _derive(
            password, base64.b64decode(salt), int(cost), int(block), int(parallel), len(wanted)
        )
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(found, wanted)


def _derive(
    password: str, salt: bytes, cost: int, block: int, parallel: int, length: int = 32
) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass")[: 4 * LONGEST],
        salt=salt,
        n=cost,
        r=block,
        p=parallel,
        maxmem=256 * cost * block,
        dklen=length,
    )


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
