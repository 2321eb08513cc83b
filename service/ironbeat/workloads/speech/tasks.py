"""The tasks, by the names their owners call them.

Each may run again at any time: an analysis of the same version replaces the earlier one, and what
is cleaned up or pending is no longer so afterwards. Losing the database is retried three times; a
recording that cannot be judged is no failure but a result, with its reason.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import psycopg
import structlog
from celery import shared_task
from celery.signals import worker_init

from ironbeat import report_progress
from ironbeat.workloads.speech import store

log = structlog.get_logger(__name__)

# Analyses that are not the last of their recording are kept so long.
KEEP_DAYS = 90

# Who uploads asks for the analysis by itself; after this long it is asked for.
PENDING_AFTER_SECONDS = 120
PENDING_BATCH = 100

# A recording takes at most a minute to hear, and seconds to analyse.
_LIMITS: dict[str, int] = {"soft_time_limit": 120, "time_limit": 180}

_RETRIED: dict[str, Any] = {
    "autoretry_for": (psycopg.OperationalError,),
    "max_retries": 3,
    "retry_backoff": 2,
    "retry_backoff_max": 20,
    "retry_jitter": True,
}


@worker_init.connect
def _load_models(sender: Any = None, **_: Any) -> None:
    """Load the models before the pool starts: children of a fork share them, no task waits."""
    if sender is not None and "ai_analysis" in sender.app.amqp.queues.consume_from:
        from ironbeat.workloads.speech import models

        models.warm()


@shared_task(name="analyze_audio_task", **_LIMITS, **_RETRIED)
def analyze_audio_task(
    practice_record_id: int, params: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Judge a practice recording against its exercise, and store what was found.

    ``params``: ``model_version`` and ``analysis_type``. Returns ``overall_score`` (0 to 100) and
    its parts, ``confidence`` (0 to 1) and ``analysis_id``; for a recording that cannot be judged
    ``status`` is ``rejected``, with a ``reason`` for the clinician. Raises
    :class:`store.PracticeRecordNotFound`, and ``ValueError`` for params that do not exist.
    """
    from ironbeat.workloads.speech import analysis, models
    from ironbeat.workloads.speech.recording import Rejected
    from ironbeat.workloads.speech.spelling import UnknownSpelling

    version, kind = analysis.check(params or {})
    practice = store.practice(practice_record_id)
    exercise = analysis.Exercise(
        practice.text, practice.language, practice.reference, practice.sounds
    )
    about = {"model_version": version, "analysis_type": kind}
    try:
        found = analysis.analyse(
            practice.content, exercise, **about, report=_report(practice_record_id)
        )
    except (Rejected, UnknownSpelling) as refused:
        code = refused.code if isinstance(refused, Rejected) else "exercise_text"
        id = store.store(
            practice_record_id, **about, status="rejected", reason_code=code, reason=str(refused),
            engine=models.engine(), details={},
        )  # fmt: skip
        log.info("recording rejected", practice_record_id=practice_record_id, reason=code)
        return {
            "practice_record_id": practice_record_id,
            "analysis_id": id,
            "status": "rejected",
            "reason_code": code,
            "reason": str(refused),
            **about,
        }
    scores = {
        "overall_score": found.overall_score,
        "pronunciation": found.pronunciation,
        "fluency": found.fluency,
        "pitch": found.pitch,
        "voice_quality": found.voice_quality,
        "confidence": found.confidence,
    }
    report_progress(97, "storing the result", practice_record_id=practice_record_id)
    id = store.store(
        practice_record_id, **about, **scores, status="completed", engine=found.engine,
        details=found.details, picture=found.picture,
    )  # fmt: skip
    log.info("recording analysed", practice_record_id=practice_record_id, score=found.overall_score)
    return {
        "practice_record_id": practice_record_id,
        "analysis_id": id,
        "status": "completed",
        **about,
        **scores,
        "certain": found.details["certain"],
    }


def _report(practice_record_id: int) -> Any:
    def report(percent: int, step: str) -> None:
        report_progress(percent, step, practice_record_id=practice_record_id)

    return report


@shared_task(name="analyze_pending_task", **_RETRIED)
def analyze_pending_task(older_than_seconds: int = PENDING_AFTER_SECONDS) -> dict[str, Any]:
    """Ask for the analysis of recordings that nobody has analysed; returns how many.

    Each is asked for once an hour at most, whoever runs this.
    """
    from ironbeat.workloads.speech.manager import TaskManager

    with store.transaction() as cursor:
        waiting = store.run(
            cursor, "pending", older_than_seconds=older_than_seconds, batch=PENDING_BATCH
        ).fetchall()
    manager = TaskManager()
    ids = {
        manager.submit(
            "analyze_audio_task",
            kwargs={"practice_record_id": row["id"], "params": {}},
            idempotency_key=f"speech-pending-{row['id']}",
            idempotency_window=3600.0,
        )
        for row in waiting
    }
    return {"submitted": len(ids), "more": len(waiting) == PENDING_BATCH}


@shared_task(name="cleanup_old_analyses_task", **_RETRIED)
def cleanup_old_analyses_task(days: int = KEEP_DAYS) -> dict[str, Any]:
    """Remove analyses older than ``days`` days, except each recording's last; and stray sound.

    ``analyses`` and ``recordings``: how many were removed.
    """
    if days < 1:
        raise ValueError(f"days is {days}; it must be at least 1")
    counts = {
        "analyses": _in_batches("cleanup", days=days),
        "recordings": _in_batches("orphans"),
    }
    log.info("old analyses removed", **counts)
    return counts


def _in_batches(query: str, **parameters: Any) -> int:
    total, last = 0, store.BATCH_ROWS
    while last == store.BATCH_ROWS:
        with store.transaction() as cursor:
            last = store.run(cursor, query, batch=store.BATCH_ROWS, **parameters).rowcount
        total += last
    return total


@shared_task(name="health_check_task")
def health_check_task(asked_at: str | None = None) -> dict[str, Any]:
    """Travel the queue and look at what an analysis needs: the tables, and the models.

    ``asked_at`` (ISO 8601): when it was sent, to tell how long it waited. Raises what is broken.
    """
    from ironbeat.workloads.speech import models

    started = time.monotonic()
    with store.transaction() as cursor:
        figures = store.run(cursor, "figures").fetchone() or {}
    database_seconds = time.monotonic() - started
    models.warm()
    waited = None
    if asked_at is not None:
        waited = (datetime.now(UTC) - datetime.fromisoformat(asked_at)).total_seconds()
    return {
        "status": "healthy",
        "database_seconds": round(database_seconds, 4),
        "models_seconds": round(time.monotonic() - started - database_seconds, 4),
        "waited_seconds": None if waited is None else round(waited, 4),
        "engine": models.engine(),
        **figures,
    }
