"""Pace, pauses, pitch and tones, on lines drawn by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ironbeat.workloads.speech import phones, prosody
from ironbeat.workloads.speech.alignment import Evidence
from ironbeat.workloads.speech.prosody import Timing


def test_speech_and_pauses_are_told_from_where_there_is_a_voice() -> None:
    voiced = np.array([0, 0, 1, 1, 0, 1, 1, *[0] * 10, 1, 1, 0], float)
    found = prosody.timing(voiced, 0.1)
    assert (found.start, found.end) == pytest.approx((0.2, 1.9))
    # The single chunk without a voice is part of the speech, the ten are a pause.
    assert [(p.start, p.end) for p in found.pauses] == [pytest.approx((0.7, 1.7))]
    assert prosody.timing(np.zeros(5), 0.1) == Timing(0.0, 0.0, ())


def test_pauses_hurry_and_a_drawl_cost_fluency() -> None:
    even = prosody.fluency(Timing(0, 3, ()), 12).score
    paused = prosody.fluency(
        prosody.timing(np.array([1] * 10 + [0] * 15 + [1] * 10, float), 0.1), 8
    )
    assert even == 100
    assert paused.score < 80 and paused.pauses == 1
    assert prosody.fluency(Timing(0, 1, ()), 12).score < 20
    assert prosody.fluency(Timing(0, 10, ()), 8).score < 40
    # As fast as one may be by oneself, and yet three times as long as the reference.
    slow = prosody.fluency(Timing(0, 3, ()), 12, Timing(0, 1, ()))
    assert slow.score < 70 and slow.longer_than_reference == pytest.approx(3)


def test_the_same_line_an_octave_higher_is_the_same_line() -> None:
    track = 120 * 2 ** (np.sin(np.linspace(0, 9, 200)) / 4)
    same = prosody.pitch(track, track * 2)
    opposite = prosody.pitch(track, 120**2 / track)
    flat = prosody.pitch(np.full(200, 120.0))
    assert same.likeness == pytest.approx(1) and same.score > 99
    assert opposite.likeness == pytest.approx(-1) and opposite.score < 40
    assert flat.score == 0 and prosody.pitch(track).score > 90


def evidence(names: list[str], frames_each: list[int]) -> Evidence:
    rows = [
        phones.INDEX[n] for n, count in zip(names, frames_each, strict=True) for _ in range(count)
    ]
    probabilities = np.full((len(rows), len(phones.NAMES) + 1), 1e-4)
    probabilities[np.arange(len(rows)), rows] = 1.0
    return Evidence(np.log(probabilities / probabilities.sum(axis=1, keepdims=True)), 0.02)


def test_warping_pairs_the_frames_that_say_the_same() -> None:
    ours, theirs = evidence(["s", "i", "m"], [5, 20, 5]), evidence(["s", "i", "m"], [10, 6, 12])
    path = prosody.warp(ours, theirs)
    assert path[0] == (0, 0) and path[-1] == (29, 27)
    assert all(0 <= b - a <= 1 and 0 <= d - c <= 1 for (a, c), (b, d) in itertools.pairwise(path))
    here, there = (each.log_probs.argmax(axis=1) for each in (ours, theirs))
    assert all(here[i] == there[j] for i, j in path)


@pytest.mark.parametrize(
    ("tone", "line"),
    [
        (1, np.full(30, 5.0)),
        (2, np.linspace(-1, 5, 30)),
        (3, np.concatenate([np.linspace(-2, -5, 18), np.linspace(-5, -2, 12)])),
        (4, np.linspace(5, -5, 30)),
    ],
)
def test_tones_are_told_by_their_shape(tone: int, line: np.ndarray) -> None:
    likely = prosody.tone_likeness(line)
    assert max(likely, key=likely.__getitem__) == tone
    assert sum(likely.values()) == pytest.approx(1)


def test_too_little_voice_has_no_tone() -> None:
    assert prosody.tone_likeness(np.array([np.nan] * 20 + [1.0] * 3)) == {}
