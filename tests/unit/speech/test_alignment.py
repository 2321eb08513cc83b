"""Scores of sounds against a count of every path, where there are few enough of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ironbeat.workloads.speech import alignment, phones
from ironbeat.workloads.speech.alignment import Evidence

NONE = len(phones.NAMES)


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    """The sounds that a path of frames spells: repeats are one, and none is none."""
    return tuple(key for key, _ in itertools.groupby(path) if key != NONE)


def by_enumeration(probabilities: np.ndarray, wanted: list[int], live: list[int]) -> np.ndarray:
    """For each place the weight of each sound there, and of none, over all paths."""
    weights = np.zeros((len(wanted), NONE + 1))
    frames = range(len(probabilities))
    for path in itertools.product(live, repeat=len(probabilities)):
        weight = np.prod([probabilities[t, path[t]] for t in frames])
        said = collapsed(path)
        for place in range(len(wanted)):
            before, after = tuple(wanted[:place]), tuple(wanted[place + 1 :])
            if said == before + after:
                weights[place, NONE] += weight
            if len(said) == len(wanted) and said[:place] == before and said[place + 1 :] == after:
                weights[place, said[place]] += weight
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("wanted", ["s", "s t", "s s", "t s t", "s t t", "s t s m"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_sound_is_scored_over_every_way_to_place_it(wanted: str, seed: int) -> None:
    sounds = wanted.split()
    live = [phones.INDEX[name] for name in ("s", "t", "m")] + [NONE]
    drawn = np.full((6, NONE + 1), 1e-30)
    drawn[:, live] = np.random.default_rng(seed).dirichlet(np.ones(4), 6)
    evidence = Evidence(np.log(drawn), 0.02)
    expected = by_enumeration(drawn, [phones.INDEX[sound] for sound in sounds], live)
    likeness = phones.likeness_matrix()[[phones.INDEX[sound] for sound in sounds]]
    for place, heard in enumerate(alignment.heard_as(evidence, sounds)):
        best = int(expected[place].argmax())
        assert heard.sound == (phones.NAMES[best] if best < NONE else None)
        assert heard.probability == pytest.approx(expected[place, best], abs=1e-6)
        assert heard.right == pytest.approx((expected[place, :NONE] * likeness[place]).sum())


def spelled(*frames: str) -> Evidence:
    """Evidence that is sure of a sound (or ``-``, none) in each frame."""
    probabilities = np.full((len(frames), NONE + 1), 1e-6)
    for t, name in enumerate(frames):
        probabilities[t, NONE if name == "-" else phones.INDEX[name]] = 1.0
    return Evidence(np.log(probabilities / probabilities.sum(axis=1, keepdims=True)), 0.02)


def test_what_was_said_is_read_from_the_frames() -> None:
    assert alignment.decode(spelled("-", "s", "s", "-", "s", "i", "-")) == ["s", "s", "i"]
    assert alignment.decode(spelled("-")) == []


def test_a_sound_that_is_another_one_is_named() -> None:
    heard = alignment.heard_as(spelled("-", "w", "-", "æ", "-", "t"), ["ɹ", "æ", "t"])
    assert [each.sound for each in heard] == ["w", "æ", "t"]
    assert heard[1].right > 0.99 > 0.6 > heard[0].right > 0.1


def test_a_sound_that_is_missing_is_told() -> None:
    heard = alignment.heard_as(spelled("-", "ɹ", "-", "æ", "-", "-"), ["ɹ", "æ", "t"])
    assert [each.sound for each in heard] == ["ɹ", "æ", None]
    assert heard[0].right > 0.99 > 0.01 > heard[2].right


def test_sounds_are_found_in_their_order_and_do_not_overlap() -> None:
    frames = ["-"] * 10 + ["s"] * 2 + ["-"] * 8 + ["i"] * 3 + ["-"] * 4 + ["t"] + ["-"] * 20
    found = alignment.spans(spelled(*frames), ["s", "i", "t"])
    assert [span.start < span.end for span in found] == [True] * 3
    assert found[0].end == found[1].start == pytest.approx(0.32)
    assert found[1].end == found[2].start
    # The silence after the last sound is not its own.
    assert found[2].end < 0.8


def test_nothing_wanted_or_nothing_heard_is_no_error() -> None:
    assert alignment.heard_as(spelled("s"), []) == []
    assert alignment.spans(spelled("s"), ["s", "t", "m"])[0].start == 0.0
    assert alignment.beside(["s"], [])[0] == 0.75


def test_sequences_are_laid_beside_each_other_at_the_least_cost() -> None:
    cost, steps = alignment.beside(["θ", "æ", "ŋ", "k"], ["s", "æ", "ŋ", "k", "j"])
    assert [(step.wanted, step.heard) for step in steps] == [
        ("θ", "s"), ("æ", "æ"), ("ŋ", "ŋ"), ("k", "k"), (None, "j"),
    ]  # fmt: skip
    assert cost == pytest.approx(1 - phones.likeness("θ", "s") + 0.75)
