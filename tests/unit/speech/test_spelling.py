"""From text to sounds, and which texts are refused."""

from __future__ import annotations

import pytest

from ironbeat.workloads.speech import spelling
from ironbeat.workloads.speech.spelling import UnknownSpelling


def sounds(text: str, language: str) -> str:
    return " | ".join(" ".join(word.variants[0]) for word in spelling.words(text, language))


def test_english_words_have_their_sounds() -> None:
    assert sounds("Go forward ten meters!", "en") == "ɡ oʊ | f ɔ ɹ w ɝ d | t ɛ n | m i t ɝ z"
    assert sounds("I’m", "en") == "aɪ m"


@pytest.mark.parametrize(
    ("text", "expected", "tones"),
    [
        ("你好", "n i | h aʊ", [3, 3]),
        ("ㄋㄧˇㄏㄠˇ", "n i | h aʊ", [3, 3]),
        ("ㄓㄨㄥ1ㄕ4", "d͡ʒ ʊ ŋ | ʃ ɨ", [1, 4]),
        ("媽的", "m a | d ɤ", [1, 5]),
    ],
)
def test_chinese_comes_by_character_and_by_zhuyin(text, expected, tones) -> None:
    assert sounds(text, "zh") == expected
    assert [word.tone for word in spelling.words(text, "zh")] == tones


@pytest.mark.parametrize(
    ("text", "language", "told"),
    [
        ("room 12", "en", "write numbers as words: 12"),
        ("hello 你好", "en", "no English word"),
        ("hello", "zh", "is not Chinese"),
        ("第5課", "zh", "write numbers as characters"),
        ("ㄅㄚˋㄦㄦㄦ", "zh", "no syllable"),
        ("…", "en", "no word"),
        ("bonjour", "fr", "en or zh"),
        ("word " * 201, "en", "at most 200"),
    ],
)
def test_a_text_that_cannot_be_told_in_sounds_is_refused(text, language, told) -> None:
    with pytest.raises(UnknownSpelling, match=told):
        spelling.words(text, language)


def test_of_several_pronunciations_the_one_that_was_said_is_wanted() -> None:
    words = spelling.words("the cat of a friend", "en")
    said = ["ð", "i", "k", "æ", "t", "ɔ", "v", "eɪ", "f", "ɹ", "ɛ", "n", "d"]
    assert [each.sound for each in spelling.chosen(words, said)] == said


def test_sounds_given_for_a_nonsense_word_must_exist() -> None:
    assert spelling.spelled_out("zip", ["z", "ɪ", "p"])[0].variants == (("z", "ɪ", "p"),)
    with pytest.raises(UnknownSpelling, match="'q' is no sound"):
        spelling.spelled_out("q", ["q"])
