"""Real speech: right outscores mispronounced outscores wrong, and a codec moves no score far."""

from __future__ import annotations

import random

import pytest

from scripts import recordings
from scripts.recordings import trials

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def english() -> list[recordings.Spoken]:
    try:
        return recordings.english()
    except recordings.Missing as missing:
        pytest.skip(str(missing))


def pairs(english: list[recordings.Spoken], every: int) -> list[bool]:
    found: list[bool] = []
    for number, one in enumerate(english[::every]):
        others = [each for each in english if each.package == one.package and each != one]
        wrong = [each.content() for each in random.Random(number).sample(others, 2)]
        trial = trials.english(one.content(), one.text, wrong, number)
        found += [in_order for _, in_order in trial.pairs()]
    return found


def test_a_few_sentences_are_put_in_order(english) -> None:
    found = pairs(english, every=15)
    assert len(found) >= 80
    assert sum(found) / len(found) >= 0.95


@pytest.mark.slow
def test_all_sentences_are_put_in_order(english) -> None:
    found = pairs(english, every=1)
    assert sum(found) / len(found) >= 0.95


def test_another_rate_level_or_codec_moves_no_score_by_three_points(english) -> None:
    for one in english[::20]:
        moved = trials.moves(one.content(), one.text)
        assert max(moved.values()) < 3, (one.text, moved)


@pytest.mark.slow
def test_no_sentence_moves_by_three_points(english) -> None:
    moved = [trials.moves(one.content(), one.text) for one in english]
    assert max(max(each.values()) for each in moved) < 3
