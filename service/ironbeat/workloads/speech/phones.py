"""Speech sounds: which there are, what they are made of, and how near two of them are.

The recogniser knows 191 symbols, many of them spellings of the same sound. They are folded into
the sounds listed here, each described by articulatory features (International Phonetic
Association, *Handbook*, 1999): consonants by place, manner and voice, vowels by height, backness
and rounding. A pair's likeness follows from the features, so that "w" for "r" costs less than
"s" for "r", and so that feedback can say what is different about a sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

# From the lips backwards; places next to each other sound alike.
PLACES = ("labial", "dental", "alveolar", "postalveolar", "palatal", "velar", "glottal")
MANNERS = ("stop", "affricate", "fricative", "nasal", "liquid", "glide")


@dataclass(frozen=True, slots=True)
class Consonant:
    """A consonant: where it is made (:data:`PLACES`), how (:data:`MANNERS`), and if with voice."""

    place: str
    manner: str
    voiced: bool


@dataclass(frozen=True, slots=True)
class Vowel:
    """A vowel, or a diphthong by its first part and what it glides to.

    ``height`` 0 is open and 1 close; ``back`` 0 is front and 1 back.
    """

    height: float
    back: float
    rounded: bool = False
    glide: str = ""
    rhotic: bool = False


Sound = Consonant | Vowel

SOUNDS: dict[str, Sound] = {
    "p": Consonant("labial", "stop", False),
    "b": Consonant("labial", "stop", True),
    "t": Consonant("alveolar", "stop", False),
    "d": Consonant("alveolar", "stop", True),
    "k": Consonant("velar", "stop", False),
    "ɡ": Consonant("velar", "stop", True),
    "ʔ": Consonant("glottal", "stop", False),
    "f": Consonant("labial", "fricative", False),
    "v": Consonant("labial", "fricative", True),
    "θ": Consonant("dental", "fricative", False),
    "ð": Consonant("dental", "fricative", True),
    "s": Consonant("alveolar", "fricative", False),
    "z": Consonant("alveolar", "fricative", True),
    "ʃ": Consonant("postalveolar", "fricative", False),
    "ʒ": Consonant("postalveolar", "fricative", True),
    "x": Consonant("velar", "fricative", False),
    "h": Consonant("glottal", "fricative", False),
    "t͡ʃ": Consonant("postalveolar", "affricate", False),
    "d͡ʒ": Consonant("postalveolar", "affricate", True),
    "m": Consonant("labial", "nasal", True),
    "n": Consonant("alveolar", "nasal", True),
    "ŋ": Consonant("velar", "nasal", True),
    "l": Consonant("alveolar", "liquid", True),
    "ɹ": Consonant("postalveolar", "liquid", True),
    "w": Consonant("labial", "glide", True),
    "j": Consonant("palatal", "glide", True),
    "i": Vowel(1.0, 0.0),
    "y": Vowel(1.0, 0.0, True),
    "ɨ": Vowel(1.0, 0.5),
    "ɪ": Vowel(0.85, 0.15),
    "eɪ": Vowel(0.65, 0.0, False, "i"),
    "ɛ": Vowel(0.4, 0.1),
    "æ": Vowel(0.15, 0.1),
    "a": Vowel(0.0, 0.4),
    "ɑ": Vowel(0.0, 0.8),
    "ɔ": Vowel(0.3, 1.0, True),
    "oʊ": Vowel(0.6, 1.0, True, "u"),
    "ʊ": Vowel(0.85, 0.85, True),
    "u": Vowel(1.0, 1.0, True),
    "ɤ": Vowel(0.6, 1.0),
    "ʌ": Vowel(0.35, 0.7),
    "ə": Vowel(0.5, 0.5),
    "ɝ": Vowel(0.5, 0.5, False, "", True),
    "aɪ": Vowel(0.0, 0.4, False, "i"),
    "aʊ": Vowel(0.0, 0.4, False, "u"),
    "ɔɪ": Vowel(0.3, 1.0, True, "i"),
}

# Other spellings of the recogniser and of its dictionary for the same sounds.
SPELLINGS: dict[str, str] = {
    "g": "ɡ", "ɟ": "ɡ", "c": "k", "ɢ": "ɡ", "q": "k", "ʈ": "t", "ɖ": "d", "ɾ": "d", "ɗ": "d",
    "ɓ": "b", "p͈": "p", "t͈": "t", "k͈": "k", "s͈": "s", "ɸ": "f", "β": "v", "ʋ": "w", "ʑ": "ʒ",
    "ç": "h", "ħ": "h", "ɦ": "h", "χ": "x", "ɣ": "ɡ", "ʁ": "ɹ", "ʀ": "ɹ", "r": "ɹ", "ɽ": "ɹ",
    "ɻ": "ɹ", "ɫ": "l", "ʎ": "l", "ɮ": "l", "ɲ": "n", "ɴ": "ŋ", "ɱ": "m", "ʝ": "j", "ɰ": "w",
    "pʰ": "p", "tʰ": "t", "kʰ": "k", "t͡ɕ": "t͡ʃ", "t͡ɕʰ": "t͡ʃ", "t͡ɕ͈": "t͡ʃ", "ʂ": "ʃ",
    "ɕ": "ʃ", "ʐ": "ʒ", "ɥ": "j", "e": "eɪ", "ẽ": "eɪ", "eə": "ɛ", "o": "oʊ", "õ": "oʊ",
    "ø": "ɛ", "œ": "ɛ",
    "ɒ": "ɑ", "ɐ": "ʌ", "ɘ": "ə", "ɵ": "ə", "ɜ": "ɝ", "ɚ": "ɝ", "ʉ": "u", "ũ": "u", "ɯ": "ɨ",
    "ɯi": "i", "ʏ": "y", "ĩ": "i", "ì": "i", "ǐ": "i", "ã": "a", "à": "a", "ä": "a", "å": "ɔ",
    "ɪə": "ɪ", "ᵊ": "ə", "ju": "u", "jo": "oʊ", "ja": "a", "je": "ɛ", "jʌ": "ʌ", "wa": "a",
    "we": "ɛ", "wi": "i", "wʌ": "ʌ",
}  # fmt: skip

# What one symbol writes and English hears as two sounds.
_TWO: dict[str, tuple[str, str]] = {
    symbol: (symbol[0], SPELLINGS[symbol])
    for symbol in ("ju", "jo", "ja", "je", "jʌ", "wa", "we", "wi", "wʌ")
}

# Pairs that speakers of the same language use for one another in the same word: the vowels of
# "cot" and "caught", and all that an unstressed vowel may be.
_INTERCHANGEABLE: dict[frozenset[str], float] = {
    frozenset(pair): likeness
    for pair, likeness in {
        ("ɑ", "ɔ"): 0.95,
        ("ɑ", "a"): 1.0,
        ("ə", "ʌ"): 0.95,
        ("ə", "ɪ"): 0.85,
        ("ə", "ɝ"): 0.6,
        ("ə", "ɛ"): 0.6,
        ("ə", "ʊ"): 0.7,
        ("ə", "æ"): 0.6,
        ("i", "ɪ"): 0.7,
        ("u", "ʊ"): 0.7,
        ("h", "x"): 0.9,
        ("ɨ", "ɤ"): 0.7,
    }.items()
}

# Two different sounds are never more alike than this, unless they are interchangeable.
_NEAREST = 0.6


@cache
def fold(symbol: str) -> tuple[str, ...]:
    """The sounds that a symbol writes; none for tones, lengths and other marks."""
    if symbol in SOUNDS:
        return (symbol,)
    if symbol in _TWO:
        return _TWO[symbol]
    if symbol in SPELLINGS:
        return (SPELLINGS[symbol],)
    return ()


def folded(symbols: Sequence[str]) -> list[str]:
    """The sounds that a sequence of symbols writes."""
    return [sound for symbol in symbols for sound in fold(symbol)]


@cache
def likeness(one: str, other: str) -> float:
    """How near two sounds are: 1 the same, 0 nothing in common."""
    if one == other:
        return 1.0
    known = _INTERCHANGEABLE.get(frozenset((one, other)))
    if known is not None:
        return known
    a, b = SOUNDS[one], SOUNDS[other]
    if isinstance(a, Consonant) and isinstance(b, Consonant):
        return _NEAREST * max(0.0, 1.0 - _between_consonants(a, b))
    if isinstance(a, Vowel) and isinstance(b, Vowel):
        return _NEAREST * max(0.0, 1.0 - _between_vowels(a, b))
    glides = {frozenset(("w", "u")), frozenset(("w", "ʊ")), frozenset(("j", "i")),
              frozenset(("j", "ɪ")), frozenset(("ɹ", "ɝ"))}  # fmt: skip
    return _NEAREST if frozenset((one, other)) in glides else 0.0


def _between_consonants(a: Consonant, b: Consonant) -> float:
    places = abs(PLACES.index(a.place) - PLACES.index(b.place)) / (len(PLACES) - 1)
    manner = 0.0 if a.manner == b.manner else 0.5
    if {a.manner, b.manner} in (
        {"stop", "affricate"},
        {"fricative", "affricate"},
        {"liquid", "glide"},
    ):
        manner = 0.25
    return places + manner + 0.25 * (a.voiced != b.voiced)


def _between_vowels(a: Vowel, b: Vowel) -> float:
    return (
        abs(a.height - b.height)
        + 0.7 * abs(a.back - b.back)
        + 0.15 * (a.rounded != b.rounded)
        + 0.4 * (a.glide != b.glide)
        + 0.4 * (a.rhotic != b.rhotic)
    )


NAMES: tuple[str, ...] = tuple(SOUNDS)
INDEX: dict[str, int] = {name: index for index, name in enumerate(NAMES)}


@cache
def likeness_matrix() -> NDArray[np.float64]:
    """:func:`likeness` of every pair, by the order of :data:`NAMES`."""
    return np.array([[likeness(one, other) for other in NAMES] for one in NAMES])


def difference(wanted: str, heard: str) -> str:
    """What is different about the sound that was heard, in words; empty if nothing is said of it.

    For two consonants: place, manner, voice. For two vowels: tongue and lips.
    """
    a, b = SOUNDS[wanted], SOUNDS[heard]
    found: list[str] = []
    if isinstance(a, Consonant) and isinstance(b, Consonant):
        if a.place != b.place:
            forward = PLACES.index(b.place) < PLACES.index(a.place)
            found.append(
                f"made too far {'forward' if forward else 'back'} ({b.place} for {a.place})"
            )
        if a.manner != b.manner:
            found.append(f"a {b.manner} instead of a {a.manner}")
        if a.voiced != b.voiced:
            found.append("voiced instead of voiceless" if b.voiced else "voice is missing")
    elif isinstance(a, Vowel) and isinstance(b, Vowel):
        if abs(a.height - b.height) > 0.15:
            found.append(f"tongue too {'high' if b.height > a.height else 'low'}")
        if abs(a.back - b.back) > 0.25:
            found.append(f"tongue too far {'back' if b.back > a.back else 'forward'}")
        if a.rounded != b.rounded:
            found.append("lips rounded" if b.rounded else "lips not rounded")
        if a.glide != b.glide:
            found.append("does not glide" if not b.glide else "glides elsewhere")
        if a.rhotic != b.rhotic:
            found.append("r-coloured" if b.rhotic else "the r is missing")
    return ", ".join(found)
