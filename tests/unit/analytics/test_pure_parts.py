"""Ranking, identity, labels, texts, rows, the page: values in, values out."""

from __future__ import annotations

import struct
from datetime import date, timedelta
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from ironbeat.workloads.analytics import identity, labels, ranking, rows, texts
from ironbeat.workloads.analytics.page import questions_page

TODAY = date(2026, 3, 1)


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


# -- ranking


def test_a_question_is_worth_half_after_a_week() -> None:
    assert ranking.standing({TODAY: 8}, TODAY).hotness == 8
    assert ranking.standing({ago(7): 8}, TODAY).hotness == pytest.approx(4)
    assert ranking.standing({ago(14): 8, TODAY: 1}, TODAY).hotness == pytest.approx(3)


def test_what_comes_after_the_day_does_not_count() -> None:
    stands = ranking.standing({TODAY + timedelta(days=1): 50, TODAY: 1}, TODAY)
    assert (stands.hotness, stands.recent) == (1, 1)


@pytest.mark.parametrize(
    ("days", "trend"),
    [
        ({TODAY: 2}, "new"),
        ({ago(1): 20, ago(8): 10}, "rising"),
        ({ago(1): 10, ago(8): 10}, "steady"),
        ({ago(1): 5, ago(8): 10}, "falling"),
        ({ago(1): 1, ago(8): 2}, "rare"),
        ({ago(30): 100}, "rare"),
        ({ago(6): 9, ago(7): 9}, "steady"),
    ],
)
def test_trends(days: dict[date, int], trend: str) -> None:
    assert ranking.standing(days, TODAY).trend == trend


# -- identity


def test_a_group_keeps_its_number_while_texts_come_and_go() -> None:
    before = {"a": 7, "b": 7, "c": 7, "x": 9}
    after = {"a": 0, "b": 0, "new": 0, "x": 1, "y": 1}
    assert identity.continued(before, after) == {0: 7, 1: 9}


def test_of_a_split_the_larger_part_goes_on_and_of_two_joined_the_larger() -> None:
    split = identity.continued(dict.fromkeys("abcde", 7), {**dict.fromkeys("abc", 0), "d": 1})
    assert split == {0: 7}
    joined = identity.continued(
        {**dict.fromkeys("abc", 7), **dict.fromkeys("de", 9)}, dict.fromkeys("abcde", 0)
    )
    assert joined == {0: 7}


def test_what_shares_little_is_another_group() -> None:
    before = dict.fromkeys("abcdefgh", 7)
    assert identity.continued(before, {"a": 0, "1": 0, "2": 0, "3": 0}) == {}


def test_a_text_weighs_as_often_as_it_was_asked() -> None:
    before = {"a": 7, "b": 9}
    after = {"a": 0, "b": 0}
    assert identity.continued(before, after, {"a": 1, "b": 5}) == {0: 9}


def test_the_representative_is_near_the_middle_asked_often_and_short() -> None:
    assert identity.representative([0.9, 0.5], [1, 1], [10, 10]) == 0
    assert identity.representative([0.9, 0.89], [1, 90], [10, 10]) == 1
    assert identity.representative([0.9, 0.89], [1, 1], [80, 10]) == 1


# -- labels


def test_a_label_is_the_question_without_its_courtesies() -> None:
    assert labels.label("嗨，忘記密碼了怎麼辦，多謝！") == "忘記密碼了怎麼辦"
    assert labels.label("How do I pay?? thanks a lot") == "How do I pay??"
    assert labels.label("Thank you") == "Thank you"
    assert labels.label("this is urgent please help me asap!!") == "this is urgent please help me"
    assert labels.label("Hi there! How do I pay?") == "How do I pay?"
    assert labels.label("你好，怎麼付款") == "怎麼付款"
    assert labels.label("你好") == "你好"
    assert labels.label("history of orders") == "history of orders"
    assert len(labels.label("x" * 200)) == labels.LONGEST_LABEL


def test_keywords_tell_groups_apart() -> None:
    found = labels.keywords(
        [
            ["怎麼重設密碼", "忘記密碼了", "密碼要怎麼改"],
            ["where is my parcel", "track my parcel", "has the parcel been shipped"],
        ]
    )
    assert found[0][0] == "密碼"
    assert found[1][0] == "parcel"
    assert labels.keywords([["的嗎"]]) == [[]]


# -- texts


def test_a_text_is_prepared_for_the_encoder() -> None:
    assert texts.prepared("  怎麼　重設\n密碼？ ") == "怎么 重设 密码?"
    assert len(texts.prepared("a" * 5000)) == texts.MOST_CHARACTERS


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("怎麼付款", texts.CHINESE),
        ("我想換 email", texts.CHINESE),
        ("How do I pay?", texts.OTHER),
        ("how do I say 你好 in a letter", texts.OTHER),
        ("12345", texts.OTHER),
        ("", texts.OTHER),
    ],
)
def test_languages(text: str, part: int) -> None:
    assert texts.part(text) == part


# -- rows


def test_rows_are_as_postgresql_and_pgvector_write_them() -> None:
    vectors = np.array([[1.0, -2.0]], dtype=np.float32)
    data = rows.written(3, np.array([258]), np.array([True]), vectors)
    assert data.startswith(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0" + struct.pack(">hih", 4, 2, 3))
    at = 19 + 2 + 6
    assert data[at : at + 17] == struct.pack(">iqi?", 8, 258, 1, True)
    at += 5
    assert data[at + 12 : at + 20] == struct.pack(">ihh", 4 + 2048, 1024, 0)
    assert data[at + 20 : at + 26] == struct.pack(">eee", 1.0, -2.0, 0.0)
    assert data.endswith(b"\xff\xff")
    assert len(data) == at + 20 + 2048 + 2


@pytest.mark.parametrize("number", [0, 1, 255, 256, 700])
def test_rows_are_read_whatever_their_pieces(number: int) -> None:
    made = b"".join(
        struct.pack(">hiqihh", 2, 8, n, 2052, 1024, 0)
        + np.full(1024, n / 1024, dtype=">f2").tobytes()
        for n in range(number)
    )
    stream = b"PGCOPY\n\xff\r\n\0" + bytes(8) + made + b"\xff\xff"
    pieces = [stream[at : at + 5000] for at in range(0, len(stream), 5000)]
    messages, vectors = rows.read(pieces, number, 512)
    assert messages.tolist() == list(range(number))
    assert vectors.shape == (number, 512)
    assert np.allclose(vectors[:, 0], np.arange(number) / 1024, atol=1e-3)


# -- the page


def _body(label: str) -> dict:
    question = {
        "rank": 1,
        "id": 5,
        "label": label,
        "keywords": [],
        "question": label,
        "examples": [label, "other"],
        "texts": 2,
        "messages": 9,
        "hotness": 3.5,
        "trend": "rising",
        "recent": 6,
        "previous": 3,
        "change": 1.75,
        "first_day": "2026-02-01",
        "last_day": "2026-03-01",
        "days": [*range(27), 9],
    }
    totals = {"messages": 12, "grouped": 9, "noise": 2, "not_classified": 1, "groups": 1}
    return {"date": "2026-03-01", "timezone": "Asia/Taipei", "questions": [question], **totals}


def test_the_page_asks_nobody_for_anything_and_escapes_what_people_wrote() -> None:
    page = questions_page(_body('<script>alert("密碼")</script>'))
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    HTMLParser().feed(page)
    for part in page.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>")
    assert page.count("<polyline") == 2
    assert "2026-03-01" in page


def test_a_page_without_questions_says_so() -> None:
    assert "None yet" in questions_page({**_body("x"), "questions": []})
