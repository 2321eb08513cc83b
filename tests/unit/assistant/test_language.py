"""The language of a message, and sentences in each."""

from __future__ import annotations

import string

import pytest

from ironbeat.workloads.assistant.knowledge import terms_of
from ironbeat.workloads.assistant.language import SENTENCES, language_of, say


@pytest.mark.parametrize(
    ("text", "hint", "language"),
    [
        ("請問這個倉庫還有貨嗎", "", "zh-Hant"),
        ("请问这个仓库还有货吗", "en", "zh-Hans"),
        ("好", "zh-TW", "zh-Hant"),
        ("好", "zh-hans", "zh-Hans"),
        ("好", "", ""),
        ("how much is left?", "zh-TW", "en"),
        ("/stock TPE-1", "", ""),
        ("/stock TPE-1", "zh_CN", "zh-Hans"),
        ("42", "en-GB", "en"),
        ("", "", ""),
    ],
)
def test_language_of(text: str, hint: str, language: str) -> None:
    assert language_of(text, hint) == language


@pytest.mark.parametrize("name", SENTENCES)
def test_every_sentence_is_there_in_three_languages(name: str) -> None:
    spoken = SENTENCES[name]
    assert set(spoken) == {"zh-Hant", "zh-Hans", "en"}
    if name != "help":  # It has braces of its own.
        fields = {
            language: {field for _, field, _, _ in string.Formatter().parse(text) if field}
            for language, text in spoken.items()
        }
        assert len({frozenset(each) for each in fields.values()}) == 1


def test_a_language_that_is_not_spoken_is_english() -> None:
    assert say("received", "fr") == "Received, working on it."


def test_terms_are_what_a_question_is_about() -> None:
    assert terms_of("What are the returns of an ORDER?") == ["returns", "order"]
    assert terms_of("請問退貨期限是幾天？") == ["退貨", "貨期", "期限"]
    assert terms_of("？ a b") == []
