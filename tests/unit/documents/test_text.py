"""Sentences, sizes and languages in two scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbeat.workloads.documents.text import language, pieces, sentences, tidy, units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Use apt, e.g. apt-get. Then stop.", ["Use apt, e.g. apt-get.", "Then stop."]),
        ("Dr. Smith met J. Doe. They talked.", ["Dr. Smith met J. Doe.", "They talked."]),
        (
            "Version 2.0 is out. See http://a.b/c. Done",
            ["Version 2.0 is out.", "See http://a.b/c.", "Done"],
        ),
        ("他说：“好。”然后走了！真的？", ["他说：“好。”", "然后走了！", "真的？"]),
        ("Debian 很好。It works. 可以。", ["Debian 很好。", "It works.", "可以。"]),
        ("no end", ["no end"]),
        ("", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet="ab .!?。！A中文”", max_size=200))
def test_nothing_of_a_text_is_lost_in_its_sentences(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@given(st.text(alphabet="abc ,，中文字", min_size=1, max_size=400), st.floats(1, 20))
def test_pieces_keep_the_limit_and_the_text(text: str, limit: float) -> None:
    found = list(pieces(tidy(text), limit))
    assert all(units(piece) <= limit for piece in found)
    assert "".join("".join(found).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Debian is a free operating system for your computer.", "en"),
        ("Debian 是一个自由的操作系统，用于您的电脑。", "zh"),
        ("使用 apt-get install 安装 emacs，然后运行 dpkg-reconfigure。", "zh"),
        ("The word 中 appears once in this long English sentence about characters.", "en"),
        ("これは日本語の文章です。漢字も使います。", "ja"),
        ("이것은 한국어 문장입니다.", "ko"),
        ("Это русский текст.", "und"),
        (
            "Dieser Satz ist auf Deutsch geschrieben und hat viele Wörter, damit man die Sprache "
            * 4,
            "und",
        ),
        ("1234 --- 5678", "und"),
        ("", "und"),
    ],
)
def test_language(text: str, expected: str) -> None:
    assert language(text) == expected
