"""The dashboard's languages. The catalogues' keys are the English texts.

English has a catalogue for what it calls one of a thing; Chinese needs none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

DEFAULT = "en"
#: Language tag -> its own name.
LANGUAGES: Mapping[str, str] = {"en": "English", "zh-TW": "繁體中文", "zh-CN": "简体中文"}
# Where Chinese is asked for without saying which script.
_TRADITIONAL = ("hant", "tw", "hk", "mo")


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """What each English text is called in ``language``; in English, where its ``{n}`` is one."""
    source = files("ironbeat.api.dashboard").joinpath("locales", f"{language}.json")
    found: dict[str, str] = json.loads(source.read_text(encoding="utf-8"))
    return found


def negotiate(chosen: str | None, accepted: str | None) -> str:
    """The language to answer in: the one ``chosen`` before, else by ``Accept-Language``."""
    if chosen is not None and chosen in LANGUAGES:
        return chosen
    wanted: list[tuple[float, int, str]] = []
    for number, part in enumerate((accepted or "").split(",")[:20]):
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        if tag and weight > 0:
            wanted.append((-weight, number, tag.lower()))
    for _, _, tag in sorted(wanted):
        found = _known(tag)
        if found is not None:
            return found
    return DEFAULT


def _known(tag: str) -> str | None:
    main, *rest = tag.split("-")
    if main == "en":
        return "en"
    if main == "zh":
        return "zh-TW" if any(part in _TRADITIONAL for part in rest) else "zh-CN"
    return None


class Translator:
    """Says a text in one language; called with the English text and its figures."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = catalogue(language)

    def __call__(self, text: str, **figures: Any) -> str:
        """``text`` in this language, with ``{names}`` in it filled in."""
        other = self.language != DEFAULT or figures.get("n") == 1
        said = self._texts.get(text, text) if other else text
        return said.format_map(figures) if figures else said
