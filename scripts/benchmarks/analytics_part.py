"""A part of the benchmark ``analytics`` in a process of its own: prints one JSON object."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ironbeat.workloads.analytics import (
    classification,
    clustering,
    sample,
    texts,
    vectors,
    warm,
)
from ironbeat.workloads.analytics.database import rows, transaction

# The workload's sample has as many questions as this for each user, and as many answers.
ASKED = sample.ASKED


@dataclass(frozen=True, slots=True)
class Peer:
    """A clustering of scikit-learn's as it is by default; ``scales``: to a hundred thousand."""

    make: Callable[[], Any]
    scales: bool = False


def _sklearn(name: str) -> Callable[[], Any]:
    def make() -> Any:
        import sklearn.cluster

        return getattr(sklearn.cluster, name)()

    return make


PEERS: dict[str, Peer] = {
    "kmeans": Peer(_sklearn("KMeans"), scales=True),
    "minibatch-kmeans": Peer(_sklearn("MiniBatchKMeans"), scales=True),
    "dbscan": Peer(_sklearn("DBSCAN")),
    "hdbscan": Peer(_sklearn("HDBSCAN")),
    "agglomerative": Peer(_sklearn("AgglomerativeClustering")),
}


def load(messages: str) -> dict[str, Any]:
    """Sample rows, until there are so many of users."""
    now = datetime.fromisoformat(os.environ["BENCH_NOW"])
    users = -(-int(messages) // ASKED)
    with transaction() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE incoming (external_id text, chat_id text, role text,"
            " content text, created_at timestamptz) ON COMMIT DROP"
        )
        with cursor.copy("COPY incoming FROM STDIN") as copy:
            for message in sample.messages(users, now):
                if message[2] == "user":
                    copy.write_row(message)
        cursor.execute(
            "INSERT INTO analytics.chat_messages (external_id, chat_id, role, content, created_at)"
            " SELECT * FROM incoming ON CONFLICT (external_id) DO NOTHING"
        )
        count = cursor.execute("SELECT count(*) AS n FROM analytics.chat_messages").fetchone()
    return {"messages": count["n"] if count else 0}


def embed() -> dict[str, Any]:
    """What is pending, without the index, which is a stage of its own."""
    vectors.ensure_index = lambda model: False
    started = time.perf_counter()
    _connect()
    warm.configured().embed(("怎麼重設密碼？", "How do I reset my password?"))
    loading = time.perf_counter() - started
    started = time.perf_counter()
    made = vectors.rebuild(role="user", min_length=5, force=False, budget_seconds=86_400)
    return {**made, "loading": loading, "embedding": time.perf_counter() - started}


def _connect() -> None:
    """Open the first connection, as a worker's process has for its ledger before any task."""
    with transaction() as cursor:
        cursor.execute("SELECT 1")


def index() -> dict[str, Any]:
    """The index of the serving model."""
    _connect()
    with transaction() as cursor:
        model = vectors.serving(cursor)
    started = time.perf_counter()
    made = vectors.ensure_index(model) if model else False
    return {"seconds": time.perf_counter() - started, "made": made}


def classify() -> dict[str, Any]:
    """Group, count, rank, in a process that is warm as a worker's is."""
    _connect()
    clustering.load_libraries()
    started = time.process_time()
    made = classification.classify()
    return {**made, "cpu": time.process_time() - started}


def judge() -> dict[str, Any]:
    """The groups as they are stored against the intents, and those that all texts anew give."""
    keys, truth = _asked()
    grown = _judged(truth, _placed(keys))
    classification.classify(full=True)
    return {"grown": grown, "anew": _judged(truth, _placed(keys))}


def _asked() -> tuple[list[str], NDArray[Any]]:
    """The keys of all texts, and the numbers of their intents; -1: nothing is asked."""
    with transaction() as cursor:
        model = vectors.serving(cursor)
        assert model is not None
        found = classification._texts(cursor, "texts", role="user", model=model.id, only_new=False)
    return found.keys, _numbered(found.contents)


def _numbered(contents: list[str]) -> NDArray[Any]:
    intents = [_intent(text) for text in contents]
    numbers = {name: number for number, name in enumerate(sorted(set(filter(None, intents))))}
    return np.array([numbers.get(name or "", -1) for name in intents])


def _placed(keys: list[str]) -> NDArray[Any]:
    """The groups that texts are stored in; -1: none."""
    with transaction() as cursor:
        places = {row["key"]: row["group_id"] for row in rows(cursor, "places", role="user")}
    return np.array([places.get(key, -1) for key in keys])


def export(path: str) -> dict[str, Any]:
    """Write the vectors of all texts with their intents; judge the groups as they are stored."""
    with transaction() as cursor:
        model = vectors.serving(cursor)
        assert model is not None
        found = classification._texts(cursor, "texts", role="user", model=model.id, only_new=False)
        made = classification._vectors(cursor, model, found.ids)
    truth = _numbered(found.contents)
    np.savez(path, vectors=made, parts=found.parts(), truth=truth)
    return {"texts": len(found), "seconds": None, **_judged(truth, _placed(found.keys))}


def group(path: str, limit: str, name: str) -> dict[str, Any]:
    """Group vectors the workload's way or a peer's."""
    with np.load(path) as kept:
        made, parts, truth = kept["vectors"], kept["parts"], kept["truth"]
    if int(limit) and int(limit) < len(made):
        chosen = np.sort(np.random.default_rng(1).choice(len(made), int(limit), replace=False))
        made, parts, truth = made[chosen], parts[chosen], truth[chosen]
    started = time.perf_counter()
    if name == "ironbeat":
        centred = clustering.Centring.of(made, parts, texts.PARTS).apply(made, parts)
        labels = clustering.cluster(centred)
    else:
        labels = PEERS[name].make().fit_predict(made)
    return {
        "texts": len(made),
        "seconds": time.perf_counter() - started,
        **_judged(truth, labels),
    }


def _judged(truth: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any]:
    """How groups agree with intents, over the messages that ask something."""
    from sklearn.metrics import adjusted_rand_score, v_measure_score

    alone = labels == -1
    counts = {"groups": len(set(labels[~alone].tolist())), "noise": int(alone.sum())}
    single = labels.copy()
    single[alone] = labels.max() + 1 + np.arange(alone.sum())
    asked = truth != -1
    return {
        **counts,
        "v_measure": float(v_measure_score(truth[asked], single[asked])),
        "rand": float(adjusted_rand_score(truth[asked], single[asked])),
    }


_QUESTIONS = sorted(sample.questions(), key=lambda question: -len(question.text))


def _intent(message: str) -> str | None:
    """What a message of the sample asks: the longest question that it holds."""
    return next((q.intent for q in _QUESTIONS if q.text in message), None)


def main() -> None:
    """Do the part that the command line names."""
    name, *arguments = sys.argv[1:]
    parts = {each.__name__: each for each in (load, embed, index, classify, judge, export, group)}
    import structlog

    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    found = parts[name](*arguments)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found["cpu_s"] = usage.ru_utime + usage.ru_stime
    found["rss_mb"] = usage.ru_maxrss / 1024
    print(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
