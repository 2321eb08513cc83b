"""Vectors of messages in ``chat_message_embeddings_1024``: made, kept, replaced, found.

A run claims messages in batches. The claim deletes its rows of ``pending_embeddings`` in the
transaction that stores the vectors, so a run that dies gives everything back and the next one goes
on; of two runs at once each gets messages the other does not. Equal texts are computed once, and
one of them is in the index.

Each model has a partition of its own. When the setting names another model, its vectors are made in
the background while the present one serves; when the new one has all that the present one has, it
gets its index and takes over in one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from psycopg import sql as compose

from ironbeat import connection
from ironbeat.workloads.analytics import rows as binary
from ironbeat.workloads.analytics.database import (
    Cursor,
    one,
    rows,
    sql,
    transaction,
    written,
)
from ironbeat.workloads.analytics.embedder import Embedder, ModelUnusable, configured, load

log = structlog.get_logger()

# Some hundred short messages take the built-in encoder half a second.
BATCH_MESSAGES = 512

# Of the soft limit of 600 s.
BUDGET_SECONDS = 420.0

INDEX_MEMORY = "512MB"


@dataclass(frozen=True, slots=True)
class Model:
    """A model in the database."""

    id: int
    name: str
    version: str
    location: str
    dimensions: int
    state: str

    def is_of(self, embedder: Embedder) -> bool:
        """Whether ``embedder`` makes exactly this model's vectors."""
        return (self.name, self.version) == (embedder.name, embedder.version)

    @property
    def partition(self) -> str:
        """The table that holds its vectors."""
        return f"chat_message_embeddings_1024_m{self.id}"

    @property
    def indexed(self) -> compose.Composed:
        """What the index is of: the components that are not always zero, which halves its cost."""
        return compose.SQL("(subvector(embedding, 1, {dimensions})::halfvec({dimensions}))").format(
            dimensions=compose.Literal(self.dimensions)
        )


def models(cursor: Cursor) -> list[Model]:
    """The models that make vectors, the serving one first."""
    return [Model(**row) for row in rows(cursor, "models")]


def serving(cursor: Cursor) -> Model | None:
    """The model whose vectors are used, if there is any yet."""
    return next((model for model in models(cursor) if model.state == "serving"), None)


def ensure_model(embedder: Embedder) -> None:
    """Have the model of ``embedder`` serve, or be built so that it will.

    A model that was being built and is not asked for any more is given up.
    """
    with transaction() as cursor:
        known = models(cursor)
        wanted = next((model for model in known if model.is_of(embedder)), None)
        if wanted and len(known) == 1:
            return
        one(cursor, "lock", job="analytics.models")
        wanted = next((model for model in models(cursor) if model.is_of(embedder)), None)
        if wanted is None:
            made = one(
                cursor,
                "add_model",
                name=embedder.name,
                version=embedder.version,
                location=embedder.location,
                dimensions=embedder.dimensions,
            )
            cursor.execute(
                compose.SQL(
                    "CREATE TABLE analytics.{} PARTITION OF analytics.chat_message_embeddings_1024"
                    " FOR VALUES IN ({})"
                ).format(
                    compose.Identifier(f"chat_message_embeddings_1024_m{made['id']}"),
                    compose.Literal(made["id"]),
                )
            )
            written(cursor, "enqueue", model=made["id"], role=None)
            wanted_id = made["id"]
            log.info("embedding model added", model=embedder.name, state=made["state"])
        else:
            wanted_id = wanted.id
        written(cursor, "retire", keep=wanted_id)


def rebuild(
    *,
    role: str,
    min_length: int,
    force: bool,
    budget_seconds: float = BUDGET_SECONDS,
    progress: Callable[[int, int], None] = lambda done, left: None,
) -> dict[str, Any]:
    """Embed the messages of ``role`` of at least ``min_length`` characters that have no vector.

    ``force``: all of them. Returns counts: messages ``embedded``, texts ``computed`` by the model,
    messages ``remaining``; ``more``: the time was spent first. Raises
    :class:`~ironbeat.workloads.analytics.embedder.ModelUnusable`.
    """
    started = time.monotonic()
    embedder = configured()
    ensure_model(embedder)
    with transaction() as cursor:
        present = models(cursor)
        if force:
            for model in present:
                written(cursor, "enqueue", model=model.id, role=role)
    totals = {"embedded": 0, "computed": 0, "remaining": 0}
    for model in present:
        maker = embedder if model.is_of(embedder) else _maker_of(model)
        if maker is None:
            continue
        last: int | None = 0
        while last is not None and time.monotonic() - started < budget_seconds:
            claimed, computed, last = embed_batch(model, maker, role, min_length, last)
            totals["embedded"] += claimed
            totals["computed"] += computed
            progress(totals["embedded"], 0)
        with transaction() as cursor:
            left = one(cursor, "remaining", model=model.id, role=role, min_length=min_length)[
                "waiting"
            ]
        totals["remaining"] += left
        if not left:
            ensure_index(model)
            if model.state == "building":
                _take_over(model)
    seconds = round(time.monotonic() - started, 3)
    return {**totals, "more": totals["remaining"] > 0, "model": embedder.name, "seconds": seconds}


def _maker_of(model: Model) -> Embedder | None:
    """The embedder of the model that still serves, when the setting has gone on to another."""
    try:
        found = load(model.location)
    except ModelUnusable:
        found = None
    if found is not None and model.is_of(found):
        return found
    # New messages have no vector of the old model; they get the new one's, which takes over soon.
    log.warning("no embedder for the model that still serves", model=model.name)
    return None


def embed_batch(
    model: Model, embedder: Embedder, role: str, min_length: int, after: int = 0
) -> tuple[int, int, int | None]:
    """Embed one batch of messages with ids beyond ``after``.

    Returns how many messages it had, for how many texts the model ran, and the last message's id,
    ``None`` when there was none.
    """
    with transaction() as cursor:
        claimed = rows(
            cursor,
            "claim",
            model=model.id,
            role=role,
            min_length=min_length,
            batch=BATCH_MESSAGES,
            after=after,
        )
        if not claimed:
            return 0, 0, None
        last = claimed[-1]["id"]
        written(cursor, "forget", model=model.id, messages=[row["id"] for row in claimed])
        waiting = [row for row in claimed if row["anew"]]
        others = [row for row in claimed if not row["anew"]]
        twins = rows(
            cursor,
            "twins",
            model=model.id,
            role=role,
            messages=[row["id"] for row in others],
            keys=[row["key"] for row in others],
        )
        have = {row["message_id"] for row in twins}
        waiting += [row for row in others if row["id"] not in have]
        if not waiting:
            return len(claimed), 0, last
        texts = {row["key"]: row["content"] for row in waiting}
        made = embedder.embed(list(texts.values()))
        _store(cursor, model, role, waiting, list(texts), made)
        return len(claimed), len(texts), last


def _store(
    cursor: Cursor,
    model: Model,
    role: str,
    messages: list[dict[str, Any]],
    keys: list[str],
    made: NDArray[np.float32],
) -> None:
    """Write vectors of ``messages``; of those with equal texts, one into the index.

    ``made``: a row for each of ``keys``, the different texts.
    """
    places = {key: number for number, key in enumerate(keys)}
    place = np.array([places[row["key"]] for row in messages])
    indexed = np.zeros(len(messages), dtype=bool)
    indexed[np.unique(place, return_index=True)[1]] = True
    if anew := [row["key"] for row in messages if row["anew"]]:
        # Another message may have the text in the index; where that is not so, it is new there.
        there = rows(cursor, "indexed", model=model.id, role=role, keys=anew)
        indexed &= ~np.isin(place, [places[row["key"]] for row in there])
    ids = np.array([row["id"] for row in messages], dtype=np.int64)
    with cursor.copy(sql("store")) as copy:
        copy.write(binary.written(model.id, ids, indexed, made[place]))


def ensure_index(model: Model) -> bool:
    """Make the index of a model's vectors if there is none; whether it was made now.

    It comes after the first load: building it over everything takes a fraction of what growing it
    message by message does. Built concurrently, so that nobody waits.
    """
    name = f"{model.partition}_hnsw"
    with connection() as opened:
        state = opened.execute(
            "SELECT i.indisvalid FROM pg_index AS i"
            " WHERE i.indexrelid = to_regclass('analytics.' || %s)",
            [name],
        ).fetchone()
        if state and state[0]:
            return False
        if not opened.execute(
            "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [name]
        ).fetchone()[0]:
            return False  # somebody is at it
        try:
            if state:  # a build that was interrupted
                opened.execute(
                    compose.SQL("DROP INDEX IF EXISTS analytics.{}").format(
                        compose.Identifier(name)
                    )
                )
            for setting, value in (
                ("maintenance_work_mem", INDEX_MEMORY),
                ("max_parallel_maintenance_workers", "2"),
                ("statement_timeout", "0"),
            ):
                opened.execute("SELECT set_config(%s, %s, false)", [setting, value])
            opened.execute(
                compose.SQL(
                    "CREATE INDEX CONCURRENTLY {} ON analytics.{}"
                    " USING hnsw ({} halfvec_cosine_ops) WHERE indexed"
                ).format(
                    compose.Identifier(name),
                    compose.Identifier(model.partition),
                    model.indexed,
                )
            )
            # Without figures about a table that was just filled, the index would not be used.
            opened.execute(
                compose.SQL("ANALYZE analytics.{}").format(compose.Identifier(model.partition))
            )
        finally:
            opened.execute("RESET ALL")
            opened.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [name])
    return True


def _take_over(model: Model) -> bool:
    """Let a model serve that has every vector the serving one has; whether it does now."""
    with transaction() as cursor:
        one(cursor, "lock", job="analytics.models")
        if not one(cursor, "has_all", model=model.id)["complete"]:
            return False
        written(cursor, "stop_serving")
        written(cursor, "serve", model=model.id)
    log.info("embedding model serves", model=model.name, version=model.version)
    return True


def drop_retired() -> list[int]:
    """Remove the vectors of models that have retired; their ids."""
    with transaction() as cursor:
        gone = [row["id"] for row in rows(cursor, "retired")]
        for model in gone:
            cursor.execute(
                compose.SQL("DROP TABLE analytics.{}").format(
                    compose.Identifier(f"chat_message_embeddings_1024_m{model}")
                )
            )
            cursor.execute("DELETE FROM analytics.pending_embeddings WHERE model_id = %s", [model])
    return gone


def similar(text: str, *, role: str = "user", number: int = 10) -> list[dict[str, Any]]:
    """The ``number`` texts of ``role`` nearest to ``text``, with similarity and group."""
    with transaction() as cursor:
        model = serving(cursor)
    if model is None:
        return []
    embedder = configured()
    maker = embedder if model.is_of(embedder) else _maker_of(model)
    if maker is None:
        raise ModelUnusable(
            f"the model that serves, {model.name} {model.version}, is not the one the setting "
            "names, whose vectors are not complete yet: wait for rebuild_chat_vectors"
        )
    vector = maker.embed([text])[0]
    with transaction() as cursor:
        reach = min(1000, 10 * number)
        cursor.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(reach)])
        return cursor.execute(nearest(model, vector, role, number, reach)).fetchall()


def nearest(
    model: Model, vector: NDArray[np.float32], role: str, number: int, reach: int
) -> compose.Composed:
    """The query for the ``number`` texts of ``role`` nearest to ``vector``.

    They are looked for among the ``reach`` nearest of all roles.
    """
    return compose.SQL(sql("similar")).format(
        model=compose.Literal(model.id),
        embedding=model.indexed,
        vector=compose.SQL("{}::halfvec({})").format(
            compose.Literal(binary.literal(vector)), compose.Literal(model.dimensions)
        ),
        role=compose.Literal(role),
        number=compose.Literal(number),
        reach=compose.Literal(reach),
    )
