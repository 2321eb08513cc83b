"""The pipeline of a document: its chunks are handed out, done in parallel, and joined at the end.

It is a chord whose count stands in PostgreSQL (:mod:`.store`), not in the result backend: its parts
run on either queue, may be moved from one to the other or die with their messages, and a document
of 10,000 chunks must not put 10,000 messages into the broker at once. So only a *window* of chunks
is out at a time: whoever ends one hands out the next, and whoever ends the last one submits the
end. Nothing waits inside a task.
"""

from __future__ import annotations

import json
from typing import Any

from ironbeat import Call, HybridTaskManager, QueueFull, Submitted
from ironbeat.workloads.documents import store

CHUNK_TASK = "generate_metadata_for_chunk"
# So many chunks of a document are out at most; new ones follow when half of them have come back.
WINDOW = 200

_manager: HybridTaskManager | None = None


def manager() -> HybridTaskManager:
    """What hands tasks to either queue, one for this process: it remembers the ratio."""
    global _manager
    if _manager is None:
        _manager = HybridTaskManager()
    return _manager


def forget_manager() -> None:
    """Let the next call make a new one: of an application with other settings."""
    global _manager
    _manager = None


def start(document_id: str, *, use_celery: bool = False) -> str:
    """Submit the pipeline of a stored document; returns the id of its first run."""
    stands = store.row("document", id=document_id)
    if stands is None:
        raise LookupError(f"no document has the id {document_id!r}")
    return _control("preprocess_document", document_id, stands, use_celery)


def hand_out(document_id: str, *, window: int = WINDOW) -> int:
    """Submit chunks of a document until its window is full; returns how many.

    They are submitted inside the transaction that marks them: should this process die between the
    two, they are submitted again under the same keys, which is the same runs.
    """
    with store.transaction() as cursor:
        stands = store.execute(cursor, "lock_document", id=document_id).fetchone()
        if stands is None or stands["status"] != "processing":
            return 0
        room = window - (stands["submitted"] - stands["done"] - stands["failed"])
        if room <= 0:
            return 0
        waiting = store.execute(cursor, "next_waiting", id=document_id, limit=room).fetchall()
        if not waiting:
            return 0
        calls = [
            Call(
                CHUNK_TASK,
                [each["id"], each["text"], document_id],
                key=each["id"],
                again=each["again"],
            )
            for each in waiting
        ]
        submitted = _as_many_as_may(calls, use_celery=stands["use_celery"])
        runs = [
            {"id": each["id"], "run_id": run.id, "side": run.side}
            for each, run in zip(waiting, submitted, strict=False)
        ]
        store.execute(cursor, "mark_submitted", id=document_id, runs=json.dumps(runs))
    return len(submitted)


def _as_many_as_may(calls: list[Call], *, use_celery: bool) -> list[Submitted]:
    """Submit the first of ``calls`` that the queue's cap lets in.

    The others go out when a chunk ends, or when somebody looks after the document.
    """
    while calls:
        try:
            return manager().submit_tasks(calls, use_celery=use_celery)
        except QueueFull as full:
            calls = calls[: min(len(calls) - 1, max(0, full.limit - full.waiting))]
    return []


def join(stands: store.Standing | None) -> None:
    """A chunk has ended: hand out more, or submit the end; ``None``: it had ended before."""
    if stands is None:
        return
    if stands.ended:
        submit_end(stands.document_id)
    elif stands.waiting and stands.open <= WINDOW // 2:
        hand_out(stands.document_id)


def submit_end(document_id: str) -> None:
    """Submit the end of a document; submitted twice, it is the same run while it waits."""
    document = store.row("document", id=document_id)
    if document is not None:
        _control("postprocess_results", document_id, document, document["use_celery"], goes_on=True)


def _control(
    task: str,
    document_id: str,
    document: dict[str, Any],
    use_celery: bool,
    *,
    goes_on: bool = False,
) -> str:
    # A document that is begun anew ends anew.
    call = Call(task, [document_id], key=document_id, again=document["begun"])
    return manager().submit_tasks([call], use_celery=use_celery, goes_on=goes_on)[0].id
