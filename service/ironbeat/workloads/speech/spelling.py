"""From an exercise's text to the sounds that it asks for.

English goes through the model that the recogniser was trained with, corrected for the short words
it does not know, which have several pronunciations. Chinese goes through its Zhuyin spelling;
Mandarin's sounds are named by the nearest that the recogniser tells apart (it was made for
English and Korean), which is why the confidence in them is bounded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ironbeat.workloads.speech import alignment, models, phones

LANGUAGES = ("en", "zh")

# Beyond this no recording of the permitted length can hold the text.
MOST_WORDS = 200


class UnknownSpelling(ValueError):
    """A text whose pronunciation cannot be told; the message says which part and what to do."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or a Chinese syllable with its ``tone`` (1 to 5), and its pronunciations."""

    text: str
    variants: tuple[tuple[str, ...], ...]
    tone: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A wanted sound and the index of the word it belongs to."""

    sound: str
    word: int


def _spelled(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(phones.folded(variant.split())) for variant in text.split("|"))


# Weak and strong forms, contractions, and what the spelling model gets wrong.
_SHORT_WORDS: dict[str, tuple[tuple[str, ...], ...]] = {
    word: _spelled(variants)
    for word, variants in {
        "a": "ə|eɪ",
        "an": "ə n|æ n",
        "and": "æ n d|ə n d|ə n",
        "are": "ɑ ɹ|ɝ",
        "as": "æ z|ə z",
        "been": "b ɪ n|b i n",
        "can't": "k æ n t",
        "could": "k ʊ d",
        "do": "d u|d ə",
        "for": "f ɔ ɹ|f ɝ",
        "from": "f ɹ ʌ m|f ɹ ɑ m",
        "has": "h æ z",
        "i": "aɪ",
        "i'd": "aɪ d",
        "i'll": "aɪ l",
        "i'm": "aɪ m",
        "i've": "aɪ v",
        "is": "ɪ z",
        "of": "ʌ v|ɔ v",
        "one": "w ʌ n",
        "said": "s ɛ d",
        "that's": "ð æ t s",
        "the": "ð ə|ð i",
        "their": "ð ɛ ɹ",
        "they're": "ð ɛ ɹ",
        "this": "ð ɪ s",
        "to": "t u|t ə",
        "too": "t u",
        "two": "t u",
        "was": "w ʌ z|w ɑ z",
        "we're": "w ɪ ɹ",
        "were": "w ɝ",
        "what": "w ʌ t|w ɑ t",
        "who": "h u",
        "with": "w ɪ θ|w ɪ ð",
        "you're": "j ʊ ɹ|j ɔ ɹ",
        "your": "j ʊ ɹ|j ɔ ɹ",
    }.items()
}


def words(text: str, language: str) -> list[Word]:
    """The words of a text with the ways to say each. Raises :class:`UnknownSpelling`."""
    if language == "en":
        found = _english(text)
    elif language == "zh":
        found = _chinese(text)
    else:
        raise UnknownSpelling(f"language {language!r} is not known; use {' or '.join(LANGUAGES)}")
    if not found:
        raise UnknownSpelling("the text has no word in it")
    if len(found) > MOST_WORDS:
        raise UnknownSpelling(
            f"the text has {len(found)} words; at most {MOST_WORDS} can be judged at once"
        )
    return found


def spelled_out(text: str, sounds: Sequence[str]) -> list[Word]:
    """A text as one word of given sounds. Raises :class:`UnknownSpelling` for what is no sound."""
    if unknown := [sound for sound in sounds if sound not in phones.SOUNDS]:
        raise UnknownSpelling(
            f"{', '.join(map(repr, unknown[:5]))} is no sound that can be judged; known are "
            f"{' '.join(phones.NAMES)}"
        )
    return [Word(text, (tuple(sounds),))]


def chosen(found: Sequence[Word], heard: Sequence[str]) -> list[Wanted]:
    """The wanted sounds, each word by that of its pronunciations that is nearest to what was said.

    Nobody is marked down for saying "the" as it is said before a vowel.
    """
    first = [Wanted(sound, index) for index, word in enumerate(found) for sound in word.variants[0]]
    if all(len(word.variants) == 1 for word in found):
        return first
    _, steps = alignment.beside([each.sound for each in first], heard)
    said: list[list[str]] = [[] for _ in found]
    place = 0
    for step in steps:
        if step.heard is not None:
            said[first[min(place, len(first) - 1)].word].append(step.heard)
        place += step.wanted is not None
    return [
        Wanted(sound, index)
        for index, word in enumerate(found)
        for sound in _nearest(word.variants, said[index])
    ]


def _nearest(variants: Sequence[tuple[str, ...]], said: Sequence[str]) -> tuple[str, ...]:
    return min(variants, key=lambda variant: alignment.beside(variant, said)[0])


def _english(text: str) -> list[Word]:
    plain = unicodedata.normalize("NFKC", text).replace("’", "'").lower()
    if digits := re.findall(r"\d+", plain):
        raise UnknownSpelling(f"write numbers as words: {', '.join(digits[:5])}")
    if foreign := re.findall(r"[^\W\d_a-z]+", plain):
        raise UnknownSpelling(
            f"{foreign[0]!r} is no English word; correct the text, or its language"
        )
    return [Word(word, _pronunciations(word)) for word in re.findall(r"[a-z]+(?:'[a-z]+)*", plain)]


@lru_cache(maxsize=4096)
def _pronunciations(word: str) -> tuple[tuple[str, ...], ...]:
    modelled = tuple(phones.folded(models.pronounced(word)))
    # The recogniser learned the model's spelling, right or wrong; hearing it is no mistake.
    variants = (*_SHORT_WORDS.get(word, ()), modelled)
    found = tuple(dict.fromkeys(variant for variant in variants if variant))
    if not found:
        raise UnknownSpelling(f"the pronunciation of {word!r} is not known; correct the text")
    return found


# -- Chinese

_INITIALS: dict[str, str] = {
    "ㄅ": "b", "ㄆ": "p", "ㄇ": "m", "ㄈ": "f", "ㄉ": "d", "ㄊ": "t", "ㄋ": "n", "ㄌ": "l",
    "ㄍ": "ɡ", "ㄎ": "k", "ㄏ": "h", "ㄐ": "d͡ʒ", "ㄑ": "t͡ʃ", "ㄒ": "ʃ", "ㄓ": "d͡ʒ", "ㄔ": "t͡ʃ",
    "ㄕ": "ʃ", "ㄖ": "ʒ", "ㄗ": "d z", "ㄘ": "t s", "ㄙ": "s",
}  # fmt: skip

_FINALS: dict[str, str] = {
    "": "ɨ", "ㄚ": "a", "ㄛ": "ɔ", "ㄜ": "ɤ", "ㄝ": "ɛ", "ㄞ": "aɪ", "ㄟ": "eɪ", "ㄠ": "aʊ",
    "ㄡ": "oʊ", "ㄢ": "a n", "ㄣ": "ə n", "ㄤ": "ɑ ŋ", "ㄥ": "ə ŋ", "ㄦ": "ɝ", "ㄧ": "i",
    "ㄧㄚ": "j a", "ㄧㄛ": "j ɔ", "ㄧㄝ": "j ɛ", "ㄧㄞ": "j aɪ", "ㄧㄠ": "j aʊ", "ㄧㄡ": "j oʊ",
    "ㄧㄢ": "j ɛ n", "ㄧㄣ": "i n", "ㄧㄤ": "j ɑ ŋ", "ㄧㄥ": "i ŋ", "ㄨ": "u", "ㄨㄚ": "w a",
    "ㄨㄛ": "w ɔ", "ㄨㄞ": "w aɪ", "ㄨㄟ": "w eɪ", "ㄨㄢ": "w a n", "ㄨㄣ": "w ə n",
    "ㄨㄤ": "w ɑ ŋ", "ㄨㄥ": "ʊ ŋ", "ㄩ": "y", "ㄩㄝ": "j ɛ", "ㄩㄢ": "j ɛ n", "ㄩㄣ": "y n",
    "ㄩㄥ": "j ʊ ŋ",
}  # fmt: skip

_TONES = {"ˉ": 1, "ˊ": 2, "ˇ": 3, "ˋ": 4, "˙": 5} | {str(tone): tone for tone in range(1, 6)}
_ZHUYIN = re.compile(r"(˙?)([ㄅ-ㄙ]?)([ㄚ-ㄦㄧㄨㄩ]{0,2})([ˉˊˇˋ˙1-5]?)")


def _chinese(text: str) -> list[Word]:
    plain = unicodedata.normalize("NFC", text)
    if digits := re.findall(r"(?<![ㄅ-ㄩ])\d+", plain):
        raise UnknownSpelling(f"write numbers as characters: {', '.join(digits[:5])}")
    if foreign := re.findall(r"[A-Za-z]+", plain):
        raise UnknownSpelling(f"{foreign[0]!r} is not Chinese; correct the text, or its language")
    found: list[Word] = []
    for part in re.findall(r"[ㄅ-ㄩ˙ˉˊˇˋ1-5]+|[\u3400-\u9fff]+", plain):
        found += _zhuyin(part) if re.match(r"[ㄅ-ㄩ˙]", part) else _characters(part)
    return found


def _characters(text: str) -> list[Word]:
    from pypinyin import Style, pinyin

    # All at once: a character is pronounced by the word that it stands in.
    spelled = pinyin(text, style=Style.BOPOMOFO, heteronym=False, errors="ignore")
    if len(spelled) < len(text):
        unknown = next(one for one in text if not pinyin(one, errors="ignore"))
        raise UnknownSpelling(f"the pronunciation of {unknown} is not known; write it in Zhuyin")
    return [
        Word(one, syllable.variants, syllable.tone)
        for one, each in zip(text, spelled, strict=True)
        for syllable in _zhuyin(each[0])
    ]


def _zhuyin(text: str) -> list[Word]:
    """Syllables in Zhuyin: tone marks as usual, or a digit after the syllable; none is tone 1."""
    found: list[Word] = []
    place = 0
    while place < len(text):
        match = _ZHUYIN.match(text, place)
        light, initial, final, mark = match.groups() if match else ("", "", "", "")
        if not match or not (initial or final) or final not in _FINALS:
            raise UnknownSpelling(f"{text[place:]!r} is no syllable in Zhuyin")
        sounds = f"{_INITIALS.get(initial, '')} {_FINALS[final]}"
        if not initial and final == "ㄨㄥ":
            sounds = "w ə ŋ"
        tone = 5 if light else _TONES.get(mark, 1)
        found.append(Word(match.group(), (tuple(sounds.split()),), tone))
        place = match.end()
    return found
