"""Bytes of a keyboard made into keys."""

from __future__ import annotations

import pytest

from ironbeat.cli import keys
from ironbeat.cli.keys import Decoder


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"jk/", ["j", "k", "/"]),
        (b"\x1b[A\x1bOA", [keys.UP, keys.UP]),
        (b"\x1b[B\x1b[C\x1b[D", [keys.DOWN, keys.RIGHT, keys.LEFT]),
        (b"\x1b[5~\x1b[6~", [keys.PAGE_UP, keys.PAGE_DOWN]),
        (b"\x1b[H\x1b[1~\x1b[F\x1bOF", [keys.HOME, keys.HOME, keys.END, keys.END]),
        (b"\t\x1b[Z\r\n", [keys.TAB, keys.BACK_TAB, keys.ENTER, keys.ENTER]),
        (b"\x7f\x08\x15", [keys.BACKSPACE, keys.BACKSPACE, keys.CLEAR]),
        ("佇列é".encode(), ["佇", "列", "é"]),
        (b"\x1b[1;5A\x1b[<0;3;4Mx", ["x"]),
        (b"\x1b\x1b[A", [keys.ESCAPE, keys.UP]),
        (b"\x1bb", [keys.ESCAPE, "b"]),
        (b"\x00\x04\xff", []),
    ],
)
def test_what_a_keyboard_sends_are_keys(data, expected):
    assert Decoder().feed(data) == expected
    # However it is cut into pieces.
    decoder = Decoder()
    assert [key for byte in data for key in decoder.feed(bytes([byte]))] == expected
    assert not decoder.undecided


def test_a_lone_escape_is_a_key_once_nothing_follows():
    decoder = Decoder()
    assert decoder.feed(b"\x1b") == []
    assert decoder.undecided
    assert decoder.settle() == [keys.ESCAPE]
    assert not decoder.undecided
    assert decoder.feed(b"[A") == ["[", "A"]


def test_a_sequence_that_never_ends_is_no_key():
    decoder = Decoder()
    assert decoder.feed(b"\x1b[1;") == []
    assert decoder.settle() == []
    assert decoder.feed(b"q") == ["q"]
