"""Sounds: every symbol of the recogniser has a place, and likeness is what one would expect."""

from __future__ import annotations

import numpy as np

from ironbeat.workloads.speech import models, phones


def test_every_letter_of_the_recogniser_is_a_sound_or_known_to_be_none() -> None:
    symbols = models.recogniser().decoder_tokens
    unplaced = [s for s in symbols if not phones.fold(s) and any(c.isalpha() for c in s)]
    # Marks, lengths and tones that Unicode calls letters, and what stands for no sound.
    assert set(unplaced) <= set("ʰʱʲʷˀːˑˤᵝ") | {
        "<pad>", "<sos>", "<eos>", "<unk>", "<wb>", "<blank>", "ñ", "ẑ", "ʙ", "x", "一", "不",
    }  # fmt: skip


def test_likeness_is_symmetric_and_whole_only_for_the_same_sound() -> None:
    matrix = phones.likeness_matrix()
    assert np.allclose(matrix, matrix.T)
    assert (np.diag(matrix) == 1.0).all()
    assert (matrix >= 0).all() and (matrix <= 1).all()


def test_what_learners_mix_up_is_nearer_than_what_they_do_not() -> None:
    for wanted, near, far in [("θ", "s", "m"), ("ɹ", "w", "k"), ("k", "t", "z"), ("i", "ɪ", "ɑ")]:
        assert phones.likeness(wanted, near) > phones.likeness(wanted, far) + 0.1


def test_a_difference_is_told_in_words() -> None:
    assert phones.difference("k", "t") == "made too far forward (alveolar for velar)"
    assert phones.difference("z", "s") == "voice is missing"
    assert "stop instead of a fricative" in phones.difference("f", "p")
    assert phones.difference("i", "i") == ""
