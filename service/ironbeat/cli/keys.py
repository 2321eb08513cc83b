"""Bytes of a keyboard made into keys. Pure: whoever reads the terminal feeds it.

A key is a character, or one of the names below, each longer than a character.
"""

from __future__ import annotations

import codecs
import re

UP, DOWN, LEFT, RIGHT = "up", "down", "left", "right"
PAGE_UP, PAGE_DOWN, HOME, END = "page up", "page down", "home", "end"
ENTER, ESCAPE, TAB, BACK_TAB = "enter", "escape", "tab", "back tab"
BACKSPACE, CLEAR = "backspace", "clear"

_CONTROL = {
    "\r": ENTER,
    "\n": ENTER,
    "\t": TAB,
    "\x7f": BACKSPACE,
    "\x08": BACKSPACE,
    "\x15": CLEAR,
}
# What follows ESC, as xterm, VT220, the Linux console and rxvt send it.
_SEQUENCES = {
    **dict.fromkeys(("[A", "OA"), UP),
    **dict.fromkeys(("[B", "OB"), DOWN),
    **dict.fromkeys(("[C", "OC"), RIGHT),
    **dict.fromkeys(("[D", "OD"), LEFT),
    **dict.fromkeys(("[H", "OH", "[1~", "[7~"), HOME),
    **dict.fromkeys(("[F", "OF", "[4~", "[8~"), END),
    "[5~": PAGE_UP,
    "[6~": PAGE_DOWN,
    "[Z": BACK_TAB,
    "OM": ENTER,
}
# ECMA-48: ESC [ parameters, intermediates, a final byte; or ESC O and one character.
_WHOLE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O[ -~])")
_BEGUN = re.compile(r"\x1b(\[[0-?]*[ -/]*|O)?\Z")


class Decoder:
    """Keys out of bytes that may arrive in pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._rest = ""

    @property
    def undecided(self) -> bool:
        """Whether what came may be the Escape key or the beginning of another key."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """The keys that ``data`` completes; sequences that are no key here are dropped."""
        text = self._rest + self._decoder.decode(data)
        keys: list[str] = []
        at = 0
        while at < len(text):
            if whole := _WHOLE.match(text, at):
                keys += [_SEQUENCES[whole[1]]] if whole[1] in _SEQUENCES else []
                at = whole.end()
            elif _BEGUN.match(text, at):
                break
            else:
                keys += _single(text[at])
                at += 1
        self._rest = text[at:]
        return keys

    def settle(self) -> list[str]:
        """What came last, as nothing has followed: a lone ESC is the Escape key."""
        rest, self._rest = self._rest, ""
        return [ESCAPE] if rest == "\x1b" else []


def _single(character: str) -> list[str]:
    if character == "\x1b":
        return [ESCAPE]
    if character in _CONTROL:
        return [_CONTROL[character]]
    return [character] if character.isprintable() else []
