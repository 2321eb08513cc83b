"""From vectors to groups of paraphrases: pure functions on arrays.

Three steps, chosen by measurement on labelled questions (docs/analytics.md has the figures):

1. **Centring.** Vectors of one language share a large common part that says which language it is
   and little else. The mean of each language is taken away, so that the same question asked in
   Chinese and in English comes to lie together. Each question counts once in that mean: of one that
   half of all people ask, the plain mean would take away what it is about, and tear it apart.
2. **Topics.** MiniBatchKMeans on a PCA reduction cuts the whole into parts of some hundred texts,
   because the next step's cost grows with the square.
3. **Groups.** Average linkage at a cosine distance inside each topic. The average distance of two
   groups of unit vectors is ``1 - mean_a · mean_b``, so that groups which k-means tore apart are
   joined, and single texts find their group, by the same measure afterwards.

DBSCAN and HDBSCAN can take the place of average linkage. What belongs to no group is noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]
Method = Literal["average", "dbscan", "hdbscan"]

METHODS: tuple[str, ...] = get_args(Method)
NOISE = -1

# Average linkage below this cosine distance is one question. On labelled questions, everything
# from .65 to .75 is within .01 of the best V-measure in Chinese, in English and mixed, and on
# messages of which some questions are asked by many, .7 keeps these whole.
DISTANCE = 0.7
# DBSCAN chains through neighbours, and so wants them nearer.
NEIGHBOUR_DISTANCE = 0.45

# Linkage of a topic of this size takes tens of milliseconds and some megabytes.
TOPIC_TEXTS = 400
LARGEST_TOPIC = 2000
TOPIC_DIMENSIONS = 64
# What the reduction is learnt from.
SAMPLED = 20_000
SEED = 20260101

# Texts this near, before centring, count as one in the means; and a mean of few says more about
# these than about their language.
SAME_DISTANCE = 0.4
SHRINKAGE = 50.0

# Rows of a product of matrices at once: bounds the memory, not the result.
BLOCK_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Centring:
    """What is taken from the vectors of each language: ``means[part]``."""

    means: Vectors

    @classmethod
    def of(cls, vectors: Vectors, parts: NDArray[np.integer], number: int) -> Centring:
        """The means of ``number`` parts, drawn towards nothing where a part has little to say."""
        means = np.zeros((number, vectors.shape[1]), dtype=np.float32)
        same = cluster(vectors, distance=SAME_DISTANCE)
        alone = same == NOISE
        same[alone] = np.arange(alone.sum()) + int(same.max(initial=NOISE)) + 1
        for part in range(number):
            chosen = np.flatnonzero(parts == part)
            _, question, sizes = np.unique(same[chosen], return_inverse=True, return_counts=True)
            weights = (1.0 / sizes[question]).astype(np.float32)
            means[part] = weights @ vectors[chosen] / (len(sizes) + SHRINKAGE)
        return cls(means)

    def apply(self, vectors: Vectors, parts: NDArray[np.integer]) -> Vectors:
        """Centred copies of ``vectors``, of length 1."""
        centred = vectors - self.means[parts]
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        return np.divide(centred, lengths, out=centred, where=lengths > 0)


def cluster(
    vectors: Vectors, *, method: Method = "average", distance: float | None = None
) -> Labels:
    """The group of each of ``vectors`` (centred, of length 1), numbered from 0; noise is -1.

    ``distance`` is the cosine distance up to which things belong together. A group has at least
    two members.
    """
    if not len(vectors):
        return np.empty(0, dtype=np.int64)
    limit = distance if distance is not None else default_distance(method)
    grouping = _GROUPINGS[method]
    labels = np.full(len(vectors), NOISE, dtype=np.int64)
    found = 0
    for members in topics(vectors):
        inside = grouping(vectors[members], limit)
        inside = _without_singles(inside)
        grouped = inside != NOISE
        labels[members[grouped]] = inside[grouped] + found
        found += int(inside.max(initial=NOISE)) + 1
    if method == "average":
        labels = _join(vectors, labels, found, limit)
        labels = _adopt_singles(vectors, labels, limit)
    return renumbered(labels)


def load_libraries() -> None:
    """Import what grouping needs, which takes seconds the first time in a process."""
    for name in (
        "scipy.cluster.hierarchy",
        "scipy.sparse",
        "sklearn.cluster",
        "sklearn.decomposition",
    ):
        import_module(name)


def default_distance(method: Method) -> float:
    """The distance that a method uses when none is given."""
    return DISTANCE if method == "average" else NEIGHBOUR_DISTANCE


def topics(vectors: Vectors) -> list[NDArray[np.int64]]:
    """Parts of the whole, as indices, each small enough for the second step."""
    everything = np.arange(len(vectors))
    if len(vectors) <= LARGEST_TOPIC:
        return [everything]
    return _split(reduced(vectors), everything)


def reduced(vectors: Vectors, dimensions: int = TOPIC_DIMENSIONS) -> Vectors:
    """The vectors' principal components, learnt from a sample of them."""
    from sklearn.decomposition import PCA

    random = np.random.default_rng(SEED)
    sample = vectors
    if len(vectors) > SAMPLED:
        sample = vectors[np.sort(random.choice(len(vectors), SAMPLED, replace=False))]
    if not np.ptp(sample, axis=0).any():
        return np.zeros((len(vectors), 1), dtype=np.float32)
    dimensions = min(dimensions, *sample.shape)
    model = PCA(dimensions, svd_solver="covariance_eigh", random_state=SEED).fit(sample)
    made: Vectors = model.transform(vectors).astype(np.float32, copy=False)
    return made


def _split(points: Vectors, members: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    from sklearn.cluster import MiniBatchKMeans

    number = max(2, -(-len(members) // TOPIC_TEXTS))
    model = MiniBatchKMeans(
        number, n_init=1, max_iter=20, batch_size=max(1024, 4 * number), random_state=SEED
    )
    assigned = model.fit_predict(points[members])
    parts = []
    for part in range(number):
        inside = members[assigned == part]
        if len(inside) <= LARGEST_TOPIC:
            parts += [inside] if len(inside) else []
        elif len(inside) == len(members):
            # Nothing tells them apart: any cut is as good as another.
            parts += np.array_split(inside, -(-len(inside) // LARGEST_TOPIC))
        else:
            parts += _split(points, inside)
    return parts


def _average(vectors: Vectors, limit: float) -> Labels:
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(vectors) < 2:
        return np.zeros(len(vectors), dtype=np.int64)
    between = 1.0 - vectors @ vectors.T
    upper = np.triu_indices(len(vectors), 1)
    # Rounding may make a distance of equal vectors negative, which linkage refuses.
    tree = linkage(np.maximum(between[upper], 0.0), method="average")
    made: Labels = fcluster(tree, limit, criterion="distance").astype(np.int64) - 1
    return made


def _dbscan(vectors: Vectors, limit: float) -> Labels:
    from sklearn.cluster import DBSCAN

    between = np.maximum(1.0 - vectors @ vectors.T, 0.0)
    made: Labels = DBSCAN(eps=limit, min_samples=3, metric="precomputed").fit_predict(between)
    return made


def _hdbscan(vectors: Vectors, limit: float) -> Labels:
    from sklearn.cluster import HDBSCAN

    if len(vectors) < 4:
        return np.full(len(vectors), NOISE, dtype=np.int64)
    between = np.maximum(1.0 - vectors @ vectors.T, 0.0).astype(np.float64)
    np.fill_diagonal(between, 0.0)
    model = HDBSCAN(
        min_cluster_size=3, metric="precomputed", cluster_selection_epsilon=limit / 3, copy=False
    )
    made: Labels = model.fit_predict(between)
    return made


_GROUPINGS: dict[str, Callable[[Vectors, float], Labels]] = {
    "average": _average,
    "dbscan": _dbscan,
    "hdbscan": _hdbscan,
}


def renumbered(labels: Labels) -> Labels:
    """The same groups, numbered from 0 by their first members."""
    kept = labels[labels != NOISE]
    _, first = np.unique(kept, return_index=True)
    order = {int(kept[at]): number for number, at in enumerate(np.sort(first))}
    return np.array([order.get(int(label), NOISE) for label in labels], dtype=np.int64)


def _without_singles(labels: Labels) -> Labels:
    """Groups of one are no groups."""
    if not len(labels):
        return labels
    kept = labels != NOISE
    sizes = np.bincount(labels[kept], minlength=int(labels.max(initial=NOISE)) + 1)
    made = np.full(len(labels), NOISE, dtype=np.int64)
    large = kept.copy()
    large[kept] = sizes[labels[kept]] > 1
    if large.any():
        made[large] = np.unique(labels[large], return_inverse=True)[1]
    return made


def group_means(vectors: Vectors, labels: Labels, number: int) -> tuple[Vectors, Labels]:
    """The mean vector of each of ``number`` groups, not of length 1, and their sizes."""
    from scipy.sparse import csr_array

    grouped = np.flatnonzero(labels != NOISE)
    sizes = np.bincount(labels[grouped], minlength=number)
    choice = csr_array(
        (np.ones(len(grouped), dtype=np.float32), (labels[grouped], grouped)),
        shape=(number, len(vectors)),
    )
    means: Vectors = np.asarray(choice @ vectors, dtype=np.float32)
    means /= np.maximum(sizes, 1)[:, None]
    return means, sizes


def _join(vectors: Vectors, labels: Labels, number: int, limit: float) -> Labels:
    """Go on with average linkage between the groups of all topics.

    Pairs that are each other's nearest are joined, round by round. Average linkage is reducible,
    so this gives the groups that joining the nearest pair first would have given.
    """
    if number < 2:
        return labels
    means, sizes = group_means(vectors, labels, number)
    parent = np.arange(number)
    alive = np.ones(number, dtype=bool)
    nearest = np.full(number, NOISE)
    stale = np.ones(number, dtype=bool)
    while True:
        _find_nearest(means, alive, np.flatnonzero(stale & alive), nearest, limit)
        stale[:] = False
        pairs = [
            (a, int(b))
            for a, b in enumerate(nearest)
            if alive[a] and a < b and alive[b] and nearest[b] == a
        ]
        if not pairs:
            break
        for a, b in pairs:
            total = sizes[a] + sizes[b]
            means[a] = (means[a] * sizes[a] + means[b] * sizes[b]) / total
            sizes[a], alive[b], parent[b] = total, False, a
            stale[a] = True
        changed = [each for pair in pairs for each in pair]
        stale |= np.isin(nearest, changed)
        nearest[~alive] = NOISE
    for child in range(number):
        at = child
        while parent[at] != at:
            at = parent[at]
        parent[child] = at
    grouped = labels != NOISE
    joined = labels.copy()
    joined[grouped] = parent[labels[grouped]]
    return joined


def _find_nearest(
    means: Vectors,
    alive: NDArray[np.bool_],
    rows: NDArray[np.int64],
    nearest: NDArray[np.int64],
    limit: float,
) -> None:
    """Write, for each of ``rows``, the nearest other group within ``limit``, or -1."""
    others = np.flatnonzero(alive)
    candidates = means[others]
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        closeness = means[block] @ candidates.T
        closeness[others[None, :] == block[:, None]] = -np.inf
        best = closeness.argmax(axis=1)
        within = closeness[np.arange(len(block)), best] >= 1.0 - limit
        nearest[block] = np.where(within, others[best], NOISE)


def _adopt_singles(vectors: Vectors, labels: Labels, limit: float) -> Labels:
    """Give each text that stands alone to the group it belongs to, if there is one."""
    number = int(labels.max(initial=NOISE)) + 1
    alone = np.flatnonzero(labels == NOISE)
    if number == 0 or not len(alone):
        return labels
    means, sizes = group_means(vectors, labels, number)
    present = np.flatnonzero(sizes)
    found, _ = assign(vectors[alone], means[present], limit)
    adopted = labels.copy()
    adopted[alone] = np.where(found == NOISE, NOISE, present[found])
    return adopted


def assign(vectors: Vectors, means: Vectors, distance: float) -> tuple[Labels, Vectors]:
    """The group whose average distance to each vector is smallest and at most ``distance``.

    Returns the row of ``means``, -1 where none is near enough, and the average similarity to the
    nearest.
    """
    labels = np.full(len(vectors), NOISE, dtype=np.int64)
    similarity = np.zeros(len(vectors), dtype=np.float32)
    if not len(means):
        return labels, similarity
    for start in range(0, len(vectors), BLOCK_ROWS):
        closeness = vectors[start : start + BLOCK_ROWS] @ means.T
        best = closeness.argmax(axis=1)
        value = closeness[np.arange(len(best)), best]
        similarity[start : start + BLOCK_ROWS] = value
        labels[start : start + BLOCK_ROWS] = np.where(value >= 1.0 - distance, best, NOISE)
    return labels, similarity
