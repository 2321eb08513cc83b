"""The chord of a document: windows, joins, and what happens to what goes wrong."""

from __future__ import annotations

import psycopg
import pytest

from ironbeat import CeleryMonitor, HybridTaskManager, RQMonitor, TaskManager, database
from ironbeat.settings import Settings
from ironbeat.workloads.documents import ALIAS, QUEUE, pipeline, store, tasks
from ironbeat.workloads.documents.store import StoredChunk

# Programs are started; on a busy machine that alone takes long.
pytestmark = pytest.mark.timeout(600)

TEXT = "Debian is a free operating system. It was founded by Ian Murdock."


@pytest.fixture(autouse=True)
def _documents(documents: Settings) -> None:
    """Every test has the workload."""


def stored(chunks: int, document: str = "d", text: str = TEXT) -> list[str]:
    rows = [StoredChunk(f"{document}-{n}", n, "", f"{text} {n}") for n in range(chunks)]
    store.add_document(document, rows, path=f"{document}.txt")
    return [row.id for row in rows]


def stands(document: str = "d") -> dict:
    found = store.row("document", id=document)
    assert found is not None
    return found


def waiting() -> int:
    return RQMonitor().get_queue_length(QUEUE) + CeleryMonitor().get_queue_length(QUEUE)


def done(id: str) -> None:
    tasks.generate_metadata_for_chunk(id, TEXT, "d")


def test_ten_thousand_chunks_do_not_flood_the_broker() -> None:
    ids = stored(10_000)
    assert tasks.preprocess_document("d")["submitted"] == pipeline.WINDOW
    assert (waiting(), stands()["submitted"]) == (pipeline.WINDOW, pipeline.WINDOW)
    # Half of the window comes back, and as many go out; nobody waits for the others.
    for id in ids[:99]:
        store.complete(id, {"language": "en", "keywords": []}, "rq")
    assert stands()["submitted"] == 200
    pipeline.join(store.complete(ids[99], {"language": "en", "keywords": []}, "rq"))
    assert (stands()["submitted"], stands()["done"]) == (300, 100)
    # Handed out again at once, there is no room.
    assert pipeline.hand_out("d") == 0
    assert store.row("live_runs", queue=f"rq:{QUEUE}")["waiting"] == 300  # type: ignore[index]


def test_the_sides_follow_the_ratio_and_the_chunk() -> None:
    HybridTaskManager().set_ratio(0.5)
    stored(60)
    tasks.preprocess_document("d")
    sides = {row["chunk_id"]: row["side"] for row in store.rows("chunks_of", id="d")}
    assert set(sides.values()) == {"rq", "celery"}
    manager = pipeline.manager()
    assert all(manager.side_of(id) == side for id, side in sides.items())
    assert CeleryMonitor().get_queue_length(QUEUE) == sum(s == "celery" for s in sides.values())


def test_a_full_queue_takes_what_it_has_room_for_and_the_rest_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = stored(40)
    capacity = pipeline.manager().tasks.app.ironbeat.capacity
    monkeypatch.setattr(capacity, "caps", {QUEUE: 10})
    assert tasks.preprocess_document("d")["submitted"] == 10
    assert (waiting(), stands()["submitted"]) == (10, 10)
    # A chunk that is done has its metadata, though no other has room.
    done(ids[0])
    assert (stands()["done"], stands()["submitted"]) == (1, 10)
    RQMonitor().purge_queue(QUEUE)
    monkeypatch.setattr(capacity, "caps", {QUEUE: 100})
    done(ids[1])
    assert stands()["submitted"] == 40
    # The end of what was let in is not stopped.
    monkeypatch.setattr(capacity, "caps", {QUEUE: 1})
    for id in ids[2:]:
        done(id)
    assert len(TaskManager().ledger.find(_of("postprocess_results"))) == 1


def test_a_chunk_is_done_once_and_the_last_one_ends_the_document() -> None:
    ids = stored(3)
    tasks.preprocess_document("d")
    for id in (*ids, *ids):
        found = tasks.generate_metadata_for_chunk(id, TEXT, "d")
        assert found["status"] == "completed" and found["metadata"]["summary"]
        assert (found["chunk_id"], found["document_id"]) == (id, "d")
        assert found["result"] == found["metadata"]
    assert (stands()["done"], stands()["failed"], stands()["status"]) == (3, 0, "processing")
    # Its end was submitted once.
    runs = TaskManager().ledger.find(_of("postprocess_results"))
    assert len(runs) == 1
    assert tasks.postprocess_results("d") == {
        "document_id": "d",
        "final_status": "completed",
        "processed_chunks": 3,
        "failed_chunks": 0,
    }
    assert stands()["language"] == "en" and stands()["keywords"][0]["text"]
    assert tasks.postprocess_results("d")["final_status"] == "completed"


def _of(task: str):  # type: ignore[no-untyped-def]
    from ironbeat.runs.model import Filters

    return Filters(task=task)


def test_a_chunk_that_cannot_have_metadata_fails_and_the_rest_goes_on() -> None:
    good, bad = stored(2)
    tasks.preprocess_document("d")
    with pytest.raises(ValueError, match="no text"):
        tasks.generate_metadata_for_chunk(bad, "  ", "d")
    done(good)
    assert tasks.postprocess_results("d")["final_status"] == "partial"
    [_, row] = store.rows("chunks_of", id="d")
    assert (row["status"], row["error"]) == ("failed", "BadChunk: the chunk has no text")
    # Begun again, it has another chance, and only it.
    pipeline.start("d")
    assert tasks.preprocess_document("d")["submitted"] == 1
    done(bad)
    assert tasks.postprocess_results("d")["final_status"] == "completed"


def test_a_chunk_is_done_though_its_document_cannot_go_on_just_now(
    documents: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds what the end of the document needs, longer than anybody waits for it."""
    monkeypatch.setattr(database, "LOCK_TIMEOUT_SECONDS", 1)
    database.dispose()
    [id] = stored(1)
    tasks.preprocess_document("d")
    with psycopg.connect(documents.database_url.get_secret_value()) as other:
        other.execute("LOCK TABLE ironbeat.idempotency_keys IN EXCLUSIVE MODE")
        assert tasks.generate_metadata_for_chunk(id, TEXT, "d")["status"] == "completed"
        assert TaskManager().ledger.find(_of("postprocess_results")) == []
    assert stands()["done"] == 1
    tasks.settle_documents(idle_seconds=0)
    assert len(TaskManager().ledger.find(_of("postprocess_results"))) == 1


def test_cancelled_and_vanished_runs_are_noticed() -> None:
    ids = stored(4)
    tasks.preprocess_document("d")
    runs = {row["chunk_id"]: row["run_id"] for row in store.rows("chunks_of", id="d")}
    manager = TaskManager()
    manager.cancel(runs[ids[0]])
    with store.transaction() as cursor:
        cursor.execute("DELETE FROM ironbeat.runs WHERE id = %s", [runs[ids[1]]])
    assert tasks.settle_documents(idle_seconds=3600) == {"documents": 0, "failed": 0, "again": 0}
    assert tasks.settle_documents(idle_seconds=0) == {"documents": 1, "failed": 1, "again": 1}
    again = {row["chunk_id"]: row for row in store.rows("chunks_of", id="d")}
    assert again[ids[0]]["status"] == "failed" and "cancelled" in again[ids[0]]["error"]
    assert again[ids[1]]["status"] == "submitted"
    assert again[ids[1]]["run_id"] != runs[ids[1]]
    assert again[ids[2]]["run_id"] == runs[ids[2]]
    for id in ids[1:]:
        done(id)
    assert tasks.postprocess_results("d")["final_status"] == "partial"


def test_the_owners_calls() -> None:
    found = tasks.process_document_pipeline(
        "e", ["One text.", {"chunk_text": "Two.", "chunk_id": "c2"}]
    )
    assert (found["task_count"], found["status"]) == (2, "submitted")
    assert [row["text"] for row in store.rows("chunks_of", id="e")] == ["One text.", "Two."]
    batch = tasks.batch_metadata_generation(
        [{"chunk_id": f"b{n}", "chunk_text": TEXT, "document_id": f"doc{n % 2}"} for n in range(6)]
    )
    assert (batch["task_count"], batch["status"]) == (6, "submitted")
    assert store.row("batch", batch_id=batch["batch_id"])["documents"] == 2  # type: ignore[index]
    for bad in ([{"chunk_text": "x"}], [{"document_id": "d"}], [7]):
        with pytest.raises(ValueError, match="chunk 0"):
            tasks.batch_metadata_generation(bad)
    # A chunk that nobody stored is the caller's own.
    assert tasks.generate_metadata_with_retry("mine", TEXT, "e")["metadata"]["language"] == "en"


def test_every_task_has_both_names_and_the_queue() -> None:
    app = TaskManager().app
    from ironbeat.workloads.documents import TASKS

    for name in TASKS:
        for called in (name, ALIAS + name):
            assert app.tasks[called].durable
            assert app.amqp.router.route({}, called)["queue"].name == QUEUE
    task = app.tasks["generate_metadata_for_chunk"]
    assert (task.max_retries, task.default_retry_delay) == (3, 60)
    assert (task.soft_time_limit, task.time_limit) == (1500, 1800)
    queues = {queue.name: queue.routing_key for queue in app.amqp.queues.values()}
    assert queues[QUEUE] == "metadata" and queues["priority_queue"] == "priority"
    assert TaskManager().prepare(_submit()).queue == QUEUE


def _submit():  # type: ignore[no-untyped-def]
    from ironbeat.dispatch.manager import Submit

    return Submit("generate_metadata_for_chunk", ["c", TEXT, "d"])
