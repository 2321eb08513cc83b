"""Signature and envelope are those of other implementations, and refuse what is not theirs."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ironbeat.workloads.assistant.channels import envelope
from ironbeat.workloads.assistant.channels.dingtalk import sign

KEY = envelope.key_of("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG")

# Made by wechatpy 1.8.18 with the token tok3n and the key above.
SEALED = [
    (
        "wx1234567890abcdef",
        "gCi4psxA9HLlaA1RbEXG9lgCj9CLyTDTKTdtdUSWb83Gt2dwPmWpgQKg1ps8tgAypN2cjrBoGOON+oxPolsXElPl"
        "vGMAWb/daFBBUbf0vnbcqdWSbkQFamgVC7AKee9t",
        ("tok3n", "1711111111", "nonce1"),
        "e84fb91fe9727381e42be436b76880bdad687262",
        "<xml><Content><![CDATA[你好]]></Content></xml>",
    ),
    (
        "ww_corp",
        "ZKfDDtVyxvD0al8Sy+gbcTHGUkwfU7bUXJL2Np8xF4CQqZ3+e+dm8RYx4cBxIBqai+tw87eLTCInJdxPtTYFTPX7"
        "E9d0wWvga1QEYAlT+23A/PP0JJ9Wg3tk5QAQWxBQ",
        ("tok3n", "1711111112", "nonce2"),
        "46a79066b1b38a2354a75b66358872b2e1b438ef",
        "<xml><Content><![CDATA[库存 TPE]]></Content></xml>",
    ),
]


@pytest.mark.parametrize(("receiver", "sealed", "parts", "signature", "message"), SEALED)
def test_what_others_sealed_is_opened(
    receiver: str, sealed: str, parts: tuple[str, ...], signature: str, message: str
) -> None:
    assert envelope.signed(signature, *parts, sealed)
    assert not envelope.signed(signature, *parts, sealed + "A")
    assert not envelope.signed("", *parts, sealed)
    assert envelope.unseal(KEY, receiver, sealed).decode() == message
    with pytest.raises(envelope.BadEnvelope):
        envelope.unseal(KEY, receiver + "x", sealed)


@given(some.binary(max_size=200), some.text("abcdef0123456789", min_size=1, max_size=40))
def test_what_is_sealed_is_opened(message: bytes, receiver: str) -> None:
    sealed = envelope.seal(KEY, receiver, message)
    assert envelope.unseal(KEY, receiver, sealed) == message
    assert len(base64.b64decode(sealed)) % envelope.BLOCK == 0


@given(some.binary(max_size=200))
def test_anything_else_is_refused(rubbish: bytes) -> None:
    with pytest.raises(envelope.BadEnvelope):
        envelope.unseal(KEY, "app", base64.b64encode(rubbish).decode())


@pytest.mark.parametrize("key", ["", "short", "x" * 44, "!" * 43])
def test_a_key_that_is_none(key: str) -> None:
    with pytest.raises(ValueError, match="43 letters"):
        envelope.key_of(key)


def test_the_signature_of_a_robot() -> None:
    # As openssl makes it: dgst -sha256 -hmac "this is secret" of "1577262236757\nthis is secret".
    made = sign("1577262236757", "this is secret")
    assert len(base64.b64decode(made)) == 32
    assert made == "hmPWwU+7lVdm3ZZz0r9tSfx0L4Q26jWOZr9+Gs6EZQM="
