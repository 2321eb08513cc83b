"""Text of two scripts: sentences, sizes and languages. Pure.

A Chinese character carries about as much as a short word does, so sizes are counted in *units*: a
CJK character is one, and four other characters are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

CJK = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ebef"
KANA = r"\u3040-\u30ff"
HANGUL = r"\uac00-\ud7af\u1100-\u11ff"

_CJK = re.compile(f"[{CJK}]")
_KANA = re.compile(f"[{KANA}]")
_HANGUL = re.compile(f"[{HANGUL}]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_OTHER = re.compile(r"[^\W\d_]")
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")

# A Chinese sentence ends at its mark, with what closes a quotation after it. A Latin one ends at a
# mark that is followed by space and the beginning of another.
_END = re.compile(
    r"(?:[。！？；…]+[”’」』）】》]*)"
    rf"|(?:[.!?]+[\"')\]”’]*)(?=\s+[\"'(\[“‘]*[A-Z0-9{CJK}])"
)
# What ends with a full stop in the middle of a sentence.
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|approx|resp|Mr|Mrs|Ms|Dr|Prof|St|No|Nos|Fig|Sec|Ch|Vol|pp?|ed|al)"
    r"|\b[A-Z])\.$"
)

# Below this share of Chinese characters among all letters a text is not Chinese: a Chinese one on
# computers is half Latin names, and an English one holds a Chinese name at most.
CHINESE_SHARE = 0.15
JAPANESE_SHARE = 0.1
# English prose is two fifths stop words, and other languages written in Latin letters a few.
ENGLISH_SHARE = 0.12
ENGLISH_WORDS = 40


def tidy(text: str) -> str:
    """``text`` on one line, each run of white space one space."""
    return _SPACE.sub(" ", text).strip()


def units(text: str) -> float:
    """The size of ``text``."""
    chinese = len(_CJK.findall(text))
    return chinese + (len(text) - chinese) / 4


def sentences(text: str) -> list[str]:
    """The sentences of one paragraph, in order; nothing of it is lost but white space."""
    found: list[str] = []
    begin = 0
    for match in _END.finditer(text):
        if match.group()[0] == "." and _ABBREVIATION.search(text[begin : match.start() + 1]):
            continue
        found.append(text[begin : match.end()].strip())
        begin = match.end()
    found.append(text[begin:].strip())
    return [sentence for sentence in found if sentence]


def language(text: str) -> str:
    """``zh``, ``en``, ``ja``, ``ko``, or ``und`` for what cannot be told: by the share of scripts.

    A long text in Latin letters without English stop words is ``und``.
    """
    chinese, latin = len(_CJK.findall(text)), len(_LATIN.findall(text))
    kana, hangul = len(_KANA.findall(text)), len(_HANGUL.findall(text))
    letters = len(_OTHER.findall(text))
    if not letters:
        return "und"
    if kana > JAPANESE_SHARE * (kana + chinese) and kana + chinese > CHINESE_SHARE * letters:
        return "ja"
    if hangul > CHINESE_SHARE * letters:
        return "ko"
    if chinese > CHINESE_SHARE * letters:
        return "zh"
    if latin < letters / 2:
        return "und"
    words = _WORD.findall(text.lower())
    stops = sum(word in english_stop_words() for word in words)
    return "und" if len(words) >= ENGLISH_WORDS and stops < ENGLISH_SHARE * len(words) else "en"


@cache
def english_stop_words() -> frozenset[str]:
    """The English words that carry no meaning of their own (the list that ``yake`` brings)."""
    text = files("yake.core").joinpath("StopwordsList", "stopwords_en.txt").read_text("utf-8")
    return frozenset(text.split())


def pieces(text: str, limit: float) -> Iterator[str]:
    """``text`` in pieces of at most ``limit`` units, cut at a comma or space where there is one."""
    while units(text) > limit:
        cut = _fitting(text, limit)
        soft = max(text.rfind(mark, 0, cut) for mark in "，、,; ：:）) ")
        cut = soft + 1 if soft > cut // 2 else cut
        yield text[:cut].strip()
        text = text[cut:].strip()
    if text:
        yield text


def _fitting(text: str, limit: float) -> int:
    """How many characters make ``limit`` units; at least one."""
    room = limit
    for position, character in enumerate(text):
        room -= 1 if _CJK.match(character) else 0.25
        if room < 0:
            return max(1, position)
    return len(text)
