"""The daily run: texts into groups, groups with a name and a number, counts, ranking, payload.

A run over texts that were grouped before only looks at the new ones: each goes to the group whose
average distance is smallest, by the measure the groups were made with; what is left over is grouped
among itself and the latest noise. Everything is grouped from scratch when there is no grouping yet,
when the model, the method or the distance is another, when the texts have grown by a fifth since,
or on demand; groups that go on keep their numbers even then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any, cast

import numpy as np
import structlog
from numpy.typing import NDArray
from psycopg import sql as compose

from ironbeat import get_settings
from ironbeat.workloads.analytics import clustering, identity, labels, payload, texts
from ironbeat.workloads.analytics import rows as binary
from ironbeat.workloads.analytics.clustering import NOISE, Centring, Labels, Method, Vectors
from ironbeat.workloads.analytics.database import (
    Cursor,
    first,
    one,
    rows,
    sql,
    transaction,
    written,
)
from ironbeat.workloads.analytics.vectors import Model, serving

log = structlog.get_logger()

# Texts since the last grouping from scratch, as a share of those, that ask for the next one.
GROWTH = 0.2

# The run computes inside the transaction that keeps others from grouping the same texts; the task's
# time limit ends it long before this.
COMPUTING_SECONDS = 3600

# Texts that belonged nowhere and may form a group with new ones.
NOISE_KEPT = 2000


@dataclass
class Stages:
    """Seconds by stage, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time the block takes to ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 4)


@dataclass(frozen=True, slots=True)
class Texts:
    """Different texts: a message that says each, its key, how often it was said, its content."""

    ids: NDArray[np.int64]
    keys: list[str]
    messages: list[int]
    contents: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def parts(self) -> NDArray[np.int64]:
        """Which language each counts as."""
        return texts.parts(self.contents)


@dataclass(frozen=True, slots=True)
class Grouping:
    """How texts are grouped at present."""

    model_id: int
    method: str
    distance: float
    centring: Centring
    texts: int


def classify(
    *,
    role: str = "user",
    full: bool = False,
    day: date | None = None,
    progress: Callable[[int, str], None] = lambda percent, step: None,
) -> dict[str, Any]:
    """Group the texts of ``role``, count, rank, and refresh what the front end is given.

    ``day``: rank as of the end of that day (default: today), and keep the payload under it. Returns
    counts, and the seconds of each stage. Two at once take turns.
    """
    settings = get_settings()
    method = cast("Method", settings.analytics_method)
    distance = settings.analytics_distance or clustering.default_distance(method)
    stages = Stages()
    with transaction(idle_seconds=COMPUTING_SECONDS) as cursor:
        one(cursor, "lock", job=f"analytics.classify.{role}")
        model = serving(cursor)
        if model is None:
            return {"texts": 0, "groups": 0, "noise": 0, "note": "no message has a vector yet"}
        before = _grouping(cursor, role, model)
        again = full or before is None or _is_other(before, model, method, distance)
        with stages.stage("read"):
            progress(5, "reading texts")
            found = _texts(cursor, "texts", role=role, model=model.id, only_new=not again)
            if before is not None and not again and len(found) > GROWTH * before.texts:
                again = True
                found = _texts(cursor, "texts", role=role, model=model.id, only_new=False)
        if again:
            made = _from_scratch(cursor, role, model, method, distance, found, stages, progress)
        else:
            assert before is not None
            made = _grow(cursor, role, model, before, found, stages, progress)
        progress(85, "counting")
        with stages.stage("count"):
            written(cursor, "count_days", role=role, zone=settings.timezone)
    progress(95, "ranking")
    with stages.stage("rank"):
        body = payload.refresh(role=role, day=day)
    result = {
        **made,
        "from_scratch": again,
        "method": method,
        "model": f"{model.name} {model.version}",
        "messages": body["messages"],
        "noise_messages": body["noise"],
        "hot": [
            {key: question[key] for key in ("id", "label", "hotness", "trend")}
            for question in body["questions"][:10]
        ],
        "seconds": stages.seconds,
    }
    log.info(
        "questions classified", role=role, **{k: made[k] for k in ("texts", "groups", "noise")}
    )
    return result


def _is_other(before: Grouping, model: Model, method: str, distance: float) -> bool:
    return (before.model_id, before.method) != (model.id, method) or not np.isclose(
        before.distance, distance
    )


def _grouping(cursor: Cursor, role: str, model: Model) -> Grouping | None:
    row = first(cursor, "clustering", role=role)
    if row is None:
        return None
    means = np.frombuffer(row["means"], dtype="<f4").reshape(texts.PARTS, -1)
    return Grouping(row["model_id"], row["method"], row["distance"], Centring(means), row["texts"])


def _texts(cursor: Cursor, query: str, **parameters: Any) -> Texts:
    found = rows(cursor, query, **parameters)
    ids = [row["id"] for row in found]
    contents = {row["id"]: row["content"] for row in rows(cursor, "contents", messages=ids)}
    return Texts(
        np.array(ids, dtype=np.int64),
        [row["key"] for row in found],
        [row["messages"] for row in found],
        [contents[id] for id in ids],
    )


def _vectors(cursor: Cursor, model: Model, ids: NDArray[np.int64]) -> Vectors:
    """The vectors of messages, in the order of ``ids``."""
    cursor.execute("CREATE TEMPORARY TABLE wanted (message_id bigint) ON COMMIT DROP")
    with cursor.copy("COPY wanted FROM STDIN") as copy:
        copy.write("".join(f"{id}\n" for id in ids.tolist()))
    cursor.execute("ANALYZE wanted")
    query = compose.SQL(sql("vectors")).format(model=compose.Literal(model.id))
    with cursor.copy(query) as copy:
        messages, vectors = binary.read(copy, len(ids), model.dimensions)
    cursor.execute("DROP TABLE wanted")
    order = np.searchsorted(messages, ids)
    if len(messages) != len(ids):
        raise RuntimeError(f"{len(ids) - len(messages)} texts have lost their vectors meanwhile")
    return vectors if np.array_equal(order, np.arange(len(ids))) else vectors[order]


def _from_scratch(
    cursor: Cursor,
    role: str,
    model: Model,
    method: Method,
    distance: float,
    found: Texts,
    stages: Stages,
    progress: Callable[[int, str], None],
) -> dict[str, Any]:
    with stages.stage("read"):
        vectors = _vectors(cursor, model, found.ids)
    with stages.stage("cluster"):
        progress(20, "clustering")
        parts = found.parts()
        centring = Centring.of(vectors, parts, texts.PARTS)
        vectors = centring.apply(vectors, parts)
        groups = clustering.cluster(vectors, method=method, distance=distance)
    progress(60, "naming groups")
    number = int(groups.max(initial=NOISE)) + 1
    means, _ = clustering.group_means(vectors, groups, number)
    with stages.stage("match"):
        before = {row["key"]: row["group_id"] for row in rows(cursor, "places", role=role)}
        after = {
            key: int(group) for key, group in zip(found.keys, groups, strict=True) if group != NOISE
        }
        weights = dict(zip(found.keys, found.messages, strict=True))
        same = identity.continued(before, after, weights)
    with stages.stage("label"):
        described = _describe(found, vectors, groups, means)
    with stages.stage("store"):
        written(cursor, "forget_places", role=role)
        ids = _store_groups(cursor, role, means, described, same)
        written(cursor, "end_groups", role=role, kept=ids.tolist())
        _note_places(cursor, role, found.keys, vectors, groups, means, ids)
        written(
            cursor,
            "remember_clustering",
            role=role,
            model=model.id,
            method=method,
            distance=distance,
            means=centring.means.astype("<f4").tobytes(),
            texts=len(found),
        )
    return {
        "texts": len(found),
        "new_texts": sum(key not in before for key in found.keys),
        "groups": number,
        "new_groups": number - len(same),
        "noise": int((groups == NOISE).sum()),
    }


def _grow(
    cursor: Cursor,
    role: str,
    model: Model,
    before: Grouping,
    found: Texts,
    stages: Stages,
    progress: Callable[[int, str], None],
) -> dict[str, Any]:
    present = rows(cursor, "present_groups", role=role)
    counts = {
        "texts": len(found) + one(cursor, "number_of_texts", role=role)["texts"],
        "new_texts": len(found),
        "groups": len(present),
        "new_groups": 0,
        "noise": 0,
    }
    if len(found):
        with stages.stage("read"):
            old = _texts(cursor, "recent_noise", role=role, model=model.id, number=NOISE_KEPT)
            everything = _together(found, old)
            vectors = _vectors(cursor, model, everything.ids)
        with stages.stage("cluster"):
            progress(20, "assigning")
            vectors = before.centring.apply(vectors, everything.parts())
            means = np.array(
                [np.frombuffer(row["mean"], dtype="<f4") for row in present], dtype=np.float32
            ).reshape(len(present), vectors.shape[1])
            groups, _ = clustering.assign(vectors, means, before.distance)
            left = np.flatnonzero(groups == NOISE)
            among = clustering.cluster(
                vectors[left], method=cast("Method", before.method), distance=before.distance
            )
        with stages.stage("store"):
            counts["new_groups"] = _store_growth(
                cursor, role, present, means, everything, vectors, groups, left, among
            )
        counts["groups"] += counts["new_groups"]
    row = cursor.execute(
        "SELECT count(*) AS noise FROM analytics.question_texts"
        " WHERE role = %s AND group_id IS NULL",
        [role],
    ).fetchone()
    counts["noise"] = row["noise"] if row else 0
    return counts


def _store_growth(
    cursor: Cursor,
    role: str,
    present: Sequence[dict[str, Any]],
    means: Vectors,
    everything: Texts,
    vectors: Vectors,
    groups: Labels,
    left: NDArray[np.int64],
    among: Labels,
) -> int:
    """Write what new texts have changed; returns how many groups are new."""
    grown = [int(each) for each in np.unique(groups[groups != NOISE])]
    changed = means.copy()
    for group in grown:
        joined = np.flatnonzero(groups == group)
        size = present[group]["texts"]
        changed[group] = (means[group] * size + vectors[joined].sum(axis=0)) / (size + len(joined))
        written(
            cursor,
            "grow_group",
            id=present[group]["id"],
            mean=changed[group].astype("<f4").tobytes(),
            texts=size + len(joined),
        )
    number = int(among.max(initial=NOISE)) + 1
    fresh, _ = clustering.group_means(vectors[left], among, number)
    part = Texts(
        everything.ids[left],
        [everything.keys[at] for at in left],
        [everything.messages[at] for at in left],
        [everything.contents[at] for at in left],
    )
    described = _describe(part, vectors[left], among, fresh)
    ids = np.concatenate(
        [
            np.array([row["id"] for row in present], dtype=np.int64),
            _store_groups(cursor, role, fresh, described, {}),
        ]
    )
    final = groups.copy()
    final[left] = np.where(among == NOISE, NOISE, among + len(present))
    written(cursor, "forget_noise", role=role, keys=everything.keys)
    _note_places(
        cursor, role, everything.keys, vectors, final, np.concatenate([changed, fresh]), ids
    )
    return number


def _together(new: Texts, old: Texts) -> Texts:
    """Both, by id: as vectors are read."""
    ids = np.concatenate([new.ids, old.ids])
    keys, messages = new.keys + old.keys, new.messages + old.messages
    contents = new.contents + old.contents
    order = np.argsort(ids)
    return Texts(
        ids[order],
        [keys[at] for at in order],
        [messages[at] for at in order],
        [contents[at] for at in order],
    )


@dataclass(frozen=True, slots=True)
class _Described:
    """A group's words: keywords, and the text that stands for it, with the message that has it."""

    keywords: list[str]
    representative: str
    message: int
    texts: int


def _describe(found: Texts, vectors: Vectors, groups: Labels, means: Vectors) -> list[_Described]:
    """The words of each group, in the order of their numbers."""
    members = _members(groups, len(means))
    inside = []
    chosen = []
    for number, places in enumerate(members):
        closeness = vectors[places] @ means[number]
        order = np.argsort(-closeness, kind="stable")
        inside.append([found.contents[places[at]] for at in order[: labels.MOST_TEXTS]])
        chosen.append(
            places[
                identity.representative(
                    closeness.tolist(),
                    [found.messages[at] for at in places],
                    [len(found.contents[at]) for at in places],
                )
            ]
        )
    return [
        _Described(words, found.contents[at], int(found.ids[at]), len(places))
        for words, at, places in zip(labels.keywords(inside), chosen, members, strict=True)
    ]


def _members(groups: Labels, number: int) -> list[NDArray[np.int64]]:
    order = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(groups[order], np.arange(number + 1))
    return [order[bounds[group] : bounds[group + 1]] for group in range(number)]


def _store_groups(
    cursor: Cursor,
    role: str,
    means: Vectors,
    described: Sequence[_Described],
    same: dict[int, int],
) -> NDArray[np.int64]:
    """Write groups, of which ``same`` go on with the ids there; returns all their ids, in order."""
    ids = np.array([same.get(number, 0) for number in range(len(described))], dtype=np.int64)
    going_on, coming = [], []
    for number, words in enumerate(described):
        values = {
            "role": role,
            "mean": means[number].astype("<f4").tobytes(),
            "label": labels.label(words.representative),
            "keywords": words.keywords,
            "representative": words.representative,
            "representative_id": words.message,
            "texts": words.texts,
        }
        if number in same:
            going_on.append({**values, "id": same[number]})
        else:
            coming.append(values)
    if going_on:
        cursor.executemany(sql("change_group"), going_on)
    made = []
    if coming:
        cursor.executemany(sql("add_group"), coming, returning=True)
        while True:
            made += [row["id"] for row in cursor.fetchall()]
            if not cursor.nextset():
                break
    ids[ids == 0] = made
    return ids


def _note_places(
    cursor: Cursor,
    role: str,
    keys: Sequence[str],
    vectors: Vectors,
    groups: Labels,
    means: Vectors,
    ids: NDArray[np.int64],
) -> None:
    grouped = groups != NOISE
    similarity = np.zeros(len(keys), dtype=np.float32)
    similarity[grouped] = np.einsum("ij,ij->i", vectors[grouped], means[groups[grouped]])
    with cursor.copy(sql("note_places")) as copy:
        for key, group, value in zip(keys, groups.tolist(), similarity.tolist(), strict=True):
            place = r"\N" if group == NOISE else str(ids[group])
            copy.write(f"{role}\t{key}\t{place}\t{value:.5f}\n")
