"""Grouping, as a function of vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from ironbeat.workloads.analytics import clustering
from ironbeat.workloads.analytics.clustering import NOISE, Centring, assign, cluster


def bunches(number: int, each: int, *, spread: float = 0.15, seed: int = 1, dimensions: int = 48):
    """Vectors of length 1 in so many bunches, and which bunch each is of."""
    random = np.random.default_rng(seed)
    middles = random.normal(size=(number, dimensions))
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    truth = np.repeat(np.arange(number), each)
    vectors = middles[truth] + spread * random.normal(size=(len(truth), dimensions))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), truth


@pytest.mark.parametrize("method", clustering.METHODS)
def test_bunches_are_found_by_every_method(method) -> None:
    vectors, truth = bunches(12, 15, spread=0.05)
    labels = cluster(vectors, method=method, distance=0.3)
    assert adjusted_rand_score(truth, labels) > 0.99


def test_what_is_like_nothing_else_is_noise() -> None:
    vectors, _ = bunches(5, 10, spread=0.05)
    strangers = np.eye(48, dtype=np.float32)[:4]
    labels = cluster(np.concatenate([vectors, strangers]), distance=0.3)
    assert (labels[-4:] == NOISE).all()
    assert (labels[:-4] != NOISE).all()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_few_texts_are_no_trouble(number: int) -> None:
    vectors = np.eye(48, dtype=np.float32)[:number]
    for method in clustering.METHODS:
        assert cluster(vectors, method=method).tolist() == [NOISE] * number


def test_cut_into_topics_the_groups_are_those_of_the_whole(monkeypatch) -> None:
    vectors, truth = bunches(60, 12, spread=0.12)
    whole = cluster(vectors, distance=0.6)
    monkeypatch.setattr(clustering, "LARGEST_TOPIC", 200)
    monkeypatch.setattr(clustering, "TOPIC_TEXTS", 60)
    parts = clustering.topics(vectors)
    assert len(parts) > 5
    assert sorted(np.concatenate(parts)) == list(range(len(vectors)))
    cut = cluster(vectors, distance=0.6)
    assert adjusted_rand_score(whole, cut) > 0.97
    assert adjusted_rand_score(truth, cut) > 0.97


def test_joining_goes_on_as_average_linkage_would() -> None:
    # Each vector a group of its own to begin with: joining must give what linkage gives.
    vectors, _ = bunches(8, 6, spread=0.3, seed=3)
    joined = clustering._join(vectors, np.arange(len(vectors)), len(vectors), 0.6)
    between = np.maximum(1 - vectors @ vectors.T, 0)[np.triu_indices(len(vectors), 1)]
    linked = fcluster(linkage(between, "average"), 0.6, criterion="distance")
    assert adjusted_rand_score(joined, linked) == 1.0


def test_equal_vectors_that_nothing_tells_apart_are_cut_anyhow(monkeypatch) -> None:
    monkeypatch.setattr(clustering, "LARGEST_TOPIC", 50)
    vectors = np.tile(np.eye(48, dtype=np.float32)[0], (170, 1))
    assert max(map(len, clustering.topics(vectors))) <= 50
    assert cluster(vectors).tolist() == [0] * 170


def test_centring_takes_the_language_away_and_not_what_is_asked_most() -> None:
    random = np.random.default_rng(5)
    meanings, truth = bunches(150, 4, spread=0.05, seed=5, dimensions=128)
    languages = random.normal(size=(2, 128)) / np.sqrt(128)
    parts = np.arange(len(truth)) % 2
    vectors = (meanings + 0.7 * languages[parts]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # One question is asked as often as all the others together.
    many = np.flatnonzero(truth == 0).repeat(150)
    vectors, truth = np.concatenate([vectors, vectors[many]]), np.concatenate([truth, truth[many]])
    parts = np.concatenate([parts, parts[many]])
    as_they_are = cluster(vectors, distance=0.6)
    labels = cluster(Centring.of(vectors, parts, 2).apply(vectors, parts), distance=0.6)
    assert adjusted_rand_score(truth[:600], labels[:600]) > 0.95
    assert adjusted_rand_score(truth[:600], as_they_are[:600]) < 0.5
    assert len(set(labels[truth == 0])) == 1


def test_assigning_measures_the_average_distance_to_a_group() -> None:
    vectors, truth = bunches(3, 20, spread=0.05)
    means = np.array([vectors[truth == group].mean(axis=0) for group in range(3)])
    labels, similarity = assign(vectors, means, 0.5)
    assert (labels == truth).all()
    expected = np.mean(vectors[truth == truth[0]] @ vectors[0])
    assert similarity[0] == pytest.approx(expected, abs=1e-5)
    assert assign(-vectors, means, 0.5)[0].tolist() == [NOISE] * len(vectors)
    assert assign(vectors, means[:0], 0.5)[0].tolist() == [NOISE] * len(vectors)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-1, 6), max_size=40))
def test_renumbering_keeps_groups_and_begins_with_the_first(labels: list[int]) -> None:
    before = np.array(labels, dtype=np.int64)
    after = clustering.renumbered(before)
    assert ((before == NOISE) == (after == NOISE)).all()
    for a in range(len(labels)):
        for b in range(a):
            if before[a] != NOISE and before[b] != NOISE:
                assert (before[a] == before[b]) == (after[a] == after[b])
    kept = after[after != NOISE]
    assert list(dict.fromkeys(kept.tolist())) == list(range(len(set(kept.tolist()))))
