"""Progress of a long task, readable while it runs."""

from __future__ import annotations

from typing import Any

import orjson
from celery import current_task

from ironbeat.execution import attempt, runtime


def report_progress(progress: int, current_step: str, **more: Any) -> None:
    """Say how far the current task is: ``progress`` in percent, ``current_step`` in words.

    The state becomes ``PROGRESS`` with ``{progress, current_step, …}`` in the result backend, and
    the ledger keeps the latest report. Outside a running task this does nothing. Raises
    :class:`ValueError` for a percentage outside 0 to 100.
    """
    if not 0 <= progress <= 100:
        raise ValueError(f"progress is a percentage from 0 to 100, not {progress!r}")
    request = getattr(current_task, "request", None)
    if request is None or request.id is None or request.is_eager:
        return
    report = {"progress": progress, "current_step": current_step, **more}
    if not attempt.ignores_result(current_task, request):
        current_task.update_state(state="PROGRESS", meta=report)
    active, number = runtime.current(), attempt.attempt_of(request)
    if active is not None and number is not None:
        text = orjson.dumps(report, default=str).decode()
        active.recorder.progress(request.id, number, text)
