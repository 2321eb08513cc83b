"""The analytics tasks, under the names by which their owners call them.

Each may run at any time, any number of times and in several workers at once. What a run has done
stays done when it is stopped, and the next one goes on. Losing the database is retried.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg
import sqlalchemy.exc
import structlog
from celery import shared_task

from ironbeat import report_progress
from ironbeat.workloads.analytics import classification, payload, vectors, warm
from ironbeat.workloads.analytics.database import transaction, written

log = structlog.get_logger()

ROLES = ("user", "assistant")

_NAMES = "library.rvt_analytics.tasks"

_RETRIED: dict[str, Any] = {
    # What passes: the server restarts, a lock or a connection is waited for too long, a deadlock.
    "autoretry_for": (
        psycopg.OperationalError,
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.TimeoutError,
    ),
    "max_retries": 3,
    "retry_backoff": 2,
    "retry_backoff_max": 20,
    "retry_jitter": True,
}


@shared_task(name=f"{_NAMES}.rebuild_chat_vectors", bind=True, **_RETRIED)
def rebuild_chat_vectors(
    self: Any, force_rebuild: bool = False, user_role: str = "user", min_length: int = 5
) -> dict[str, Any]:
    """Embed the messages of ``user_role`` with at least ``min_length`` characters.

    Only those that have no vector yet, or with ``force_rebuild`` all, each one's old vector staying
    until its new one is there. A run that has spent its time submits another one that goes on
    (``continued``). Returns how many were ``embedded``, how many texts were ``computed`` by the
    model, and how many messages are ``remaining``.
    """
    if user_role not in ROLES:
        raise ValueError(f"user_role is {user_role!r}; it is one of {', '.join(ROLES)}")
    if min_length < 1:
        raise ValueError(f"min_length is {min_length}; it must be at least 1")
    result = vectors.rebuild(
        role=user_role,
        min_length=min_length,
        force=force_rebuild,
        progress=lambda done, left: report_progress(50, f"{done} messages embedded"),
    )
    # What was forced is noted in the database, and must not be begun again.
    result["continued"] = bool(result["more"] and result["embedded"])
    if result["continued"] and self.request.id:
        self.apply_async(
            kwargs={"force_rebuild": False, "user_role": user_role, "min_length": min_length}
        )
    log.info("chat vectors rebuilt", role=user_role, **result)
    return result


@shared_task(name=f"{_NAMES}.precompute_question_classifications", **_RETRIED)
def precompute_question_classifications(
    user_role: str = "user", full: bool = False, day: str | None = None
) -> dict[str, Any]:
    """Group similar questions, rank them as of ``day`` (ISO; default: today), refresh the payload.

    ``full``: group everything from scratch, not only what is new. Returns counts, the hottest
    questions and the seconds of each stage.
    """
    if user_role not in ROLES:
        raise ValueError(f"user_role is {user_role!r}; it is one of {', '.join(ROLES)}")
    return classification.classify(
        role=user_role,
        full=full,
        day=date.fromisoformat(day) if day else None,
        progress=lambda percent, step: report_progress(percent, step),
    )


@shared_task(name=f"{_NAMES}.preload_vector_services", bind=True, **_RETRIED)
def preload_vector_services(self: Any) -> dict[str, Any]:
    """Load model and index in every worker process that serves them; which, and in what time."""
    result = warm.everywhere(self.app)
    log.info("vector services preloaded", **result)
    if result["failed"]:
        raise RuntimeError(f"not every worker could load the model: {result['failed']}")
    return result


@shared_task(name=f"{_NAMES}.cleanup_cache", **_RETRIED)
def cleanup_cache() -> dict[str, Any]:
    """Drop cached payloads whose time is over, and the vectors of models that have retired."""
    counts: dict[str, Any] = payload.clean_up()
    counts["models_dropped"] = vectors.drop_retired()
    with transaction() as cursor:
        written(cursor, "forget_warm")
    log.info("analytics cache cleaned", **counts)
    return counts


@shared_task(name=f"{_NAMES}.find_similar_questions", **_RETRIED)
def find_similar_questions(
    text: str, number: int = 10, user_role: str = "user"
) -> list[dict[str, Any]]:
    """The ``number`` questions nearest to ``text``, in any language, with similarity and group."""
    if not text.strip():
        raise ValueError("text is empty: say what to look for")
    if not 1 <= number <= 100:
        raise ValueError(f"number is {number}; it must be from 1 to 100")
    return vectors.similar(text, role=user_role, number=number)
