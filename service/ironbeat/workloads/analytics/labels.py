"""What a group is called: the question that stands for it, and the words that set it apart. Pure.

The words are found by class-based TF-IDF over words of Latin script and over two to four
characters in a row of Chinese, which needs no dictionary: what a group's texts say often, and the
other groups' seldom. As a label they would be hard to read; a question that somebody asked is not.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

# Texts of a group that are looked at; more would not change its words.
MOST_TEXTS = 50
KEYWORDS = 4
LONGEST_RUN = 4
LONGEST_LABEL = 60
# A word that fewer of a group's texts have does not describe it.
SHARE = 0.15

_LATIN = re.compile(r"[a-z0-9][a-z0-9'’+-]*")
_GREETING = re.compile(
    r"""^(?:
      (?:hi|hello|hey|dear\s\w+|good\s(?:morning|afternoon|evening)|excuse\sme|sorry)\b[\s,!.:]*
    | there\b[\s,!]*
    | (?:客服)?[你您]好[呀啊]?[，,！!。\s]*
    | (?:哈[囉啰]|嗨|早安|不好意思)[，,\s]*
    | 在[嗎吗][？?\s，,]*
    )+""",
    re.IGNORECASE | re.VERBOSE,
)
_CLOSING = re.compile(
    r"""(?:[\s,，.!！~～…]*(?:
      謝謝您?|谢谢您?|感謝您?|感谢您?|多謝|多谢|麻煩了|麻烦了|拜託|拜托|急|在線等|在线等
    | (?:many\s)?thanks(?:\sa\slot)?|thank\syou|please(?:\shelp)?|asap|cheers|tia
    ))+[\s,，.!！~～…]*$|[\s!！~～…]+$""",
    re.IGNORECASE | re.VERBOSE,
)
_HAN = re.compile(r"[㐀-鿿]+")

# What nearly every question has, and what says nothing alone.
_FILLERS = frozenset(
    word
    for line in (
        "a about after all am an and any are as at be been before but by can could did do",
        "does don't each for from get give got had has have hello help hi how i i'd i'll",
        "i'm i've if in into is it it's its just let like me my need no not now of on one",
        "or our out please so some somebody somewhere still tell than thank thanks that",
        "the their them then there these they thing this those to up us want was we were",
        "what what's when where which who why will with would yet you your",
    )
    for word in line.split()
)
_FILLER_CHARACTERS = frozenset(
    "的了嗎吗呢啊吧我你您他她它們们是在有就也都和跟與与想要會会能可以請请問问怎麼么什這这那哪個个為为不沒没把被給给到"
)
_FILLER_PHRASES = (
    "怎麼",
    "怎么",
    "什麼",
    "什么",
    "請問",
    "请问",
    "可以",
    "為什",
    "为什",
    "如何",
    "怎樣",
    "怎样",
    "多少",
    "一下",
)


def terms(text: str) -> set[str]:
    """The words and runs of characters that may come into a label."""
    plain = unicodedata.normalize("NFKC", text).lower()
    found = {word for word in _LATIN.findall(plain) if word not in _FILLERS and len(word) > 1}
    for run in _HAN.findall(plain):
        for size in range(2, min(LONGEST_RUN, len(run)) + 1):
            for start in range(len(run) - size + 1):
                piece = run[start : start + size]
                if piece[0] in _FILLER_CHARACTERS or piece[-1] in _FILLER_CHARACTERS:
                    continue
                if not any(phrase in piece for phrase in _FILLER_PHRASES):
                    found.add(piece)
    return found


def keywords(groups: Sequence[Sequence[str]], number: int = KEYWORDS) -> list[list[str]]:
    """For each group of texts, the terms that describe it, the best first."""
    inside = [Counter(t for text in group[:MOST_TEXTS] for t in terms(text)) for group in groups]
    spread = Counter(term for counts in inside for term, count in counts.items() if count)
    return [
        _best(counts, spread, len(groups), min(len(group), MOST_TEXTS), number)
        for counts, group in zip(inside, groups, strict=True)
    ]


def _best(
    counts: Counter[str], spread: Counter[str], groups: int, texts: int, number: int
) -> list[str]:
    def value(term: str) -> float:
        # A longer run of Chinese says more, as long as it is said as often.
        length = len(term) / 2 if _HAN.match(term) else 1.5
        return (counts[term] / texts) * length * math.log(1 + groups / spread[term])

    least = min(2.0, texts / 2) if texts < 10 else SHARE * texts
    enough = [term for term, count in counts.items() if count >= least]
    chosen: list[str] = []
    for term in sorted(enough or counts, key=lambda term: (-value(term), term)):
        if not any(term in other or other in term for other in chosen):
            chosen.append(term)
        if len(chosen) == number:
            break
    return chosen


def label(representative: str, longest: int = LONGEST_LABEL) -> str:
    """The label made of a group's representative question, without its courtesies, and short."""
    text = representative.strip()
    bare = _CLOSING.sub("", _GREETING.sub("", text, count=1), count=1)
    # A greeting alone is what some say.
    text = bare if len(bare) >= 4 else text
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
