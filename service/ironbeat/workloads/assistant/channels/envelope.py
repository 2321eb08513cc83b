"""Signature and envelope of WeChat and WeCom.

A signature is the SHA-1 of its sorted parts. An envelope is AES-256-CBC with the key's first half
as the vector: 16 random bytes, the length of the message (32 bits, big endian), the message, the id
of the receiver, padded to a multiple of 32.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import struct

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

BLOCK = 32
_RANDOM = 16


class BadEnvelope(ValueError):
    """An envelope that was not sealed with this key, or is meant for another app."""


def signature(*parts: str) -> str:
    """The signature of ``parts`` in whatever order."""
    return hashlib.sha1(
        "".join(sorted(parts)).encode("utf-8", "replace"), usedforsecurity=False
    ).hexdigest()


def signed(given: str, *parts: str) -> bool:
    """Whether ``given`` is the signature of ``parts``; takes the same time either way."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), signature(*parts).encode())


def key_of(encoding_aes_key: str) -> bytes:
    """The 32 bytes of an ``EncodingAESKey``. Raises :class:`ValueError`."""
    try:
        key = base64.b64decode(encoding_aes_key + "=", validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32:
        raise ValueError("an EncodingAESKey has 43 letters and digits")
    return key


def seal(key: bytes, receiver: str, message: bytes) -> str:
    """``message`` in an envelope, in Base64."""
    plain = (
        secrets.token_bytes(_RANDOM) + struct.pack(">I", len(message)) + message + receiver.encode()
    )
    padding = BLOCK - len(plain) % BLOCK
    encryptor = Cipher(AES(key), CBC(key[:16])).encryptor()
    sealed = encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()
    return base64.b64encode(sealed).decode()


def unseal(key: bytes, receiver: str, envelope: str) -> bytes:
    """The message in an envelope for ``receiver``. Raises :class:`BadEnvelope`.

    Call it only after the signature over the envelope has been found right.
    """
    try:
        sealed = base64.b64decode(envelope, validate=True)
        decryptor = Cipher(AES(key), CBC(key[:16])).decryptor()
        plain = decryptor.update(sealed) + decryptor.finalize()
    except (binascii.Error, ValueError):
        raise BadEnvelope("no envelope of this key") from None
    if len(plain) < _RANDOM + 4 or not 1 <= plain[-1] <= BLOCK:
        raise BadEnvelope("no envelope of this key")
    plain = plain[_RANDOM : -plain[-1]]
    if len(plain) < 4:
        raise BadEnvelope("no envelope of this key")
    (length,) = struct.unpack(">I", plain[:4])
    message, meant_for = plain[4 : 4 + length], plain[4 + length :]
    if len(message) != length or not hmac.compare_digest(meant_for, receiver.encode()):
        raise BadEnvelope("the envelope is meant for another app")
    return message
