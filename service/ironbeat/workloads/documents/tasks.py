"""The tasks of `documents`, under the names by which their owners call them.

Each is registered twice: under its own name, and as ``app.metadata.celery_tasks.NAME``. All may be
delivered by RQ or by Celery and run any number of times: a chunk that has its metadata keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import psycopg
import structlog
from celery import Task, shared_task, signals
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.exceptions import SoftTimeLimitExceeded

from ironbeat import TaskManager, report_progress
from ironbeat.workloads.documents import ALIAS, metadata, pipeline, store
from ironbeat.workloads.documents.store import StoredChunk

log = structlog.get_logger()

MAX_RETRIES = 3
RETRY_SECONDS = 60
# A document in which nothing has happened for so long is looked at.
IDLE_SECONDS = 60
DOCUMENTS_AT_ONCE = 200
CHUNKS_AT_ONCE = 500

Body = Callable[..., dict[str, Any]]


def _task(**options: Any) -> Callable[[Body], Any]:
    """Register a task under both its names; durable, as it is a step of something larger."""

    def register(body: Body) -> Any:
        common = {"durable": True, "acks_late": True, **options}
        shared_task(name=ALIAS + body.__name__, **common)(body)
        return shared_task(name=body.__name__, **common)(body)

    return register


# -- one chunk


@_task(bind=True, max_retries=MAX_RETRIES, default_retry_delay=RETRY_SECONDS)
def generate_metadata_for_chunk(
    self: Task, chunk_id: str, chunk_text: str, document_id: str
) -> dict[str, Any]:
    """Summary, keywords, language, entities and token count of one chunk.

    Retried 3 times after 60 s; a chunk that cannot have metadata (no text) fails at once. Returns
    ``{chunk_id, document_id, status: "completed", metadata, result}``, the last two the same.
    """
    return _chunk(self, chunk_id, chunk_text, document_id)


@_task(bind=True, max_retries=MAX_RETRIES, default_retry_delay=RETRY_SECONDS)
def generate_metadata_with_retry(
    self: Task, chunk_id: str, chunk_text: str, document_id: str
) -> dict[str, Any]:
    """As ``generate_metadata_for_chunk``, under the name of its owners' retrying variant."""
    return _chunk(self, chunk_id, chunk_text, document_id)


def _chunk(task: Task, chunk_id: str, chunk_text: str, document_id: str) -> dict[str, Any]:
    def report(stage: str) -> None:
        report_progress(metadata.STAGES[stage], stage, chunk_id=chunk_id, stage=stage)

    report("initializing")
    found = store.row("stored_metadata", id=chunk_id)
    if found is not None and found["status"] == "completed":
        return _result(chunk_id, document_id, found["metadata"])
    try:
        made = metadata.generate(chunk_text, report=report, endpoint=metadata.configured_endpoint())
        # A chunk that nobody stored is a caller's own, who gets the result and nothing else.
        stands = store.complete(chunk_id, made, _side(task))
    except metadata.BadChunk as error:
        _give_up(chunk_id, error)
        raise
    except Exception as error:
        if task.request.retries >= MAX_RETRIES or isinstance(error, SoftTimeLimitExceeded):
            _give_up(chunk_id, error)
            raise
        raise task.retry(exc=error) from error
    _join(chunk_id, stands)
    return _result(chunk_id, document_id, made)


def _side(task: Task) -> str | None:
    """The queue that brought this run: of RQ's the names begin so."""
    delivery = task.request.delivery_info or {}
    key = str(delivery.get("routing_key") or "")
    return None if not key else "rq" if key.startswith("rq:") else "celery"


def _give_up(chunk_id: str, error: BaseException) -> None:
    try:
        stands = store.give_up(chunk_id, f"{type(error).__name__}: {error}")
    except psycopg.Error as problem:
        # Its run says that it failed; settle_documents gives the chunk up by that.
        log.warning("a failed chunk is noted later", action="give up", reason=str(problem))
        return
    _join(chunk_id, stands)


def _join(chunk_id: str, stands: store.Standing | None) -> None:
    """Go on with the chunk's document. Whatever becomes of that, the chunk has come to its end."""
    try:
        pipeline.join(stands)
    except Exception as problem:
        log.warning(
            "settle_documents goes on with the document",
            action="join",
            chunk=chunk_id,
            reason=f"{type(problem).__name__}: {problem}",
        )


def _result(chunk_id: str, document_id: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "chunk_id": chunk_id,
        "document_id": document_id,
        "status": "completed",
        "metadata": found,
        "result": found,
    }


# -- one document


@_task()
def process_document_pipeline(
    document_id: str, chunks: Sequence[Any] | None = None
) -> dict[str, Any]:
    """Store a document's chunks and begin its pipeline: preprocess, one task a chunk, postprocess.

    ``chunks`` are texts, or mappings with ``text`` (or ``chunk_text``) and perhaps ``chunk_id``;
    none: those that are stored already. Returns ``{document_id, task_id, task_count, status}``.
    """
    if chunks is not None:
        store.add_document(document_id, _given(document_id, chunks), path=f"task:{document_id}")
    stands = store.row("document", id=document_id)
    if stands is None:
        raise ValueError(f"no document has the id {document_id!r}; give its chunks")
    return {
        "document_id": document_id,
        "task_id": pipeline.start(document_id),
        "task_count": stands["total"],
        "status": "submitted",
    }


@_task()
def preprocess_document(document_id: str) -> dict[str, Any]:
    """Begin a stored document: what failed before has another chance; chunks follow."""
    if not store.begin(document_id):
        return {"document_id": document_id, "status": "completed"}
    handed = generate_batch_metadata.run(document_id)["submitted"]
    return {"document_id": document_id, "status": "processing", "submitted": handed}


@_task()
def generate_batch_metadata(document_id: str) -> dict[str, Any]:
    """Hand out chunks of a document, as many as its window has room for."""
    handed = pipeline.hand_out(document_id)
    stands = store.row("document", id=document_id)
    if stands is not None and not stands["total"]:
        pipeline.submit_end(document_id)
    return {"document_id": document_id, "submitted": handed}


@_task()
def postprocess_results(document_id: str) -> dict[str, Any]:
    """The end of a document: its language and keywords, from those of its chunks.

    Returns ``{document_id, final_status, processed_chunks, failed_chunks}``.
    """
    ended = store.finish(document_id)
    stands = ended or store.row("document", id=document_id)
    if stands is None:
        raise ValueError(f"no document has the id {document_id!r}")
    log.info("document ended", action="postprocess", document=document_id, status=stands["status"])
    return {
        "document_id": document_id,
        "final_status": stands["status"],
        "processed_chunks": stands["done"],
        "failed_chunks": stands["failed"],
    }


def _given(document_id: str, chunks: Sequence[Any]) -> list[StoredChunk]:
    """A caller's chunks. Raises ``ValueError`` naming the one that is none."""
    found = []
    for position, each in enumerate(chunks):
        values = {"text": each} if isinstance(each, str) else each
        if not isinstance(values, Mapping):
            raise ValueError(f"chunk {position} is a {type(each).__name__}, not a text or mapping")
        text = values.get("text", values.get("chunk_text", values.get("content")))
        if not isinstance(text, str):
            raise ValueError(f"chunk {position} has no text")
        id = str(values.get("chunk_id") or store.chunk_id(document_id, position, text))
        place = values.get("position", position)
        found.append(StoredChunk(id, int(place), str(values.get("heading") or ""), text))
    return found


# -- many chunks


@_task()
def batch_metadata_generation(chunk_data_list: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Store chunks of any documents as a batch and submit them, a window of each at a time.

    Each has ``chunk_text`` (or ``text``) and ``document_id``, and perhaps ``chunk_id``. Returns
    ``{batch_id, task_count, status: "submitted"}``; ``ironbeat documents batch ID`` follows it.
    """
    by_document: dict[str, list[Mapping[str, Any]]] = {}
    for number, each in enumerate(chunk_data_list):
        if not isinstance(each, Mapping) or not each.get("document_id"):
            raise ValueError(f"chunk {number} has no document_id")
        by_document.setdefault(str(each["document_id"]), []).append(each)
    given = {id: _given(id, chunks) for id, chunks in by_document.items()}
    batch_id = str(uuid4())
    store.add_batch(batch_id, f"batch of {len(chunk_data_list)} chunks")
    for id, chunks in given.items():
        store.add_document(id, chunks, batch_id=batch_id, path=f"batch:{id}")
        pipeline.start(id)
    return {"batch_id": batch_id, "task_count": len(chunk_data_list), "status": "submitted"}


@_task()
def settle_documents(idle_seconds: float = IDLE_SECONDS) -> dict[str, int]:
    """Look after documents in which nothing has happened for a while.

    A chunk whose run was cancelled, expired or died has failed; one whose run is gone is handed out
    anew; what waits is handed out; what has ended is joined.
    """
    looked = failed = again = 0
    for document in store.rows("idle", age=idle_seconds, limit=DOCUMENTS_AT_ONCE):
        id, looked = document["id"], looked + 1
        lost: list[str] = []
        for chunk in store.rows("out", id=id, age=idle_seconds, limit=CHUNKS_AT_ONCE):
            problem = _problem(chunk["run_id"])
            if problem is None:
                continue
            if problem:
                failed += 1
                store.give_up(chunk["id"], problem)
            else:
                lost.append(chunk["id"])
        if lost:
            again += len(lost)
            store.take_back(id, lost)
        with store.transaction() as cursor:
            store.execute(cursor, "touch", id=id)
            stands = store.execute(cursor, "document", id=id).fetchone()
        if stands is not None and stands["done"] + stands["failed"] >= stands["total"]:
            pipeline.submit_end(id)
        else:
            pipeline.hand_out(id)
    return {"documents": looked, "failed": failed, "again": again}


def _problem(run_id: str | None) -> str | None:
    """Why a chunk's run brings no metadata; empty: it is gone; ``None``: it may still."""
    if run_id is None:
        return ""
    try:
        run = TaskManager().status(run_id)
    except LookupError:
        return ""
    if not run.ended:
        return None
    # Its outcome and the chunk are two transactions; the chunk's comes first.
    return "" if run.state == "succeeded" else f"its run is {run.state}: {run.error or run.reason}"


@signals.worker_init.connect
def _warm_before_forking(sender: Any = None, **_: Any) -> None:
    """Load the models once, where every task runs in a child that is forked from this process."""
    pool = getattr(sender, "pool_cls", None)
    forks = getattr(sender, "forks", False) or (
        isinstance(pool, type) and issubclass(pool, PreforkPool)
    )
    queues = {str(name).removeprefix("rq:") for name in _queues_of(sender)}
    if forks and (not queues or "metadata_queue" in queues):
        metadata.warm()


def _queues_of(worker: Any) -> Sequence[str]:
    if hasattr(worker, "queue_names"):
        return list(worker.queue_names())
    return list(worker.app.amqp.queues.consume_from) if hasattr(worker, "app") else []
