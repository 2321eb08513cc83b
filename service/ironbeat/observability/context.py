"""What every log line, error report and check-in is about: the process, the task, the run.

Three sources, the later winning: what :func:`set_process` says of the process; what Celery says of
the task that runs on this thread, read only when a line is written, so that a task that logs
nothing pays nothing; and what :func:`bound` and :mod:`structlog.contextvars` have bound.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any

import structlog

_process: dict[str, Any] = {}
_bound: ContextVar[Mapping[str, Any] | None] = ContextVar("ironbeat_context", default=None)


def set_process(**fields: Any) -> None:
    """Say what holds for every line of this process: ``program``, ``worker``."""
    _process.update({name: value for name, value in fields.items() if value is not None})


def bind(**fields: Any) -> Token[Mapping[str, Any] | None]:
    """Bind ``fields`` (``run_id``, ``schedule``, ``workload``, ``attempt``…) until :func:`unbind`.

    One context variable holds them all, so binding costs about a microsecond.
    """
    return _bound.set({**(_bound.get() or {}), **fields})


def unbind(token: Token[Mapping[str, Any] | None]) -> None:
    """Undo the :func:`bind` that returned ``token``."""
    _bound.reset(token)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """:func:`bind` for a block."""
    token = bind(**fields)
    try:
        yield
    finally:
        unbind(token)


def current() -> dict[str, Any]:
    """What a line written here and now is about."""
    found = {**_process, "pid": os.getpid(), **current_task()}
    found.update(structlog.contextvars.get_contextvars())
    found.update(_bound.get() or {})
    return found


def current_task() -> dict[str, Any]:
    """The task that runs on this thread, as its request and Ironbeat's header describe it."""
    state = sys.modules.get("celery._state")
    # Another thread may just be importing it.
    current_task_of = getattr(state, "get_current_task", None)
    task = current_task_of() if current_task_of is not None else None
    if task is None:
        return {}
    request = task.request
    if request.id is None:
        return {}
    # What the guard let proceed; a task that never passed it counts by its retries.
    verdict = vars(request).get("_ironbeat_attempt")
    found = {
        "task": task.name,
        "task_id": request.id,
        "run_id": request.id,
        "attempt": getattr(verdict, "attempt", None) or (request.retries or 0) + 1,
    }
    if request.root_id and request.root_id != request.id:
        found["root_id"] = request.root_id
    if request.hostname:
        found["worker"] = request.hostname
    header = vars(request).get("ironbeat") or (request.headers or {}).get("ironbeat")
    if isinstance(header, Mapping):
        for name in ("workload", "schedule", "scheduled_for"):
            if header.get(name):
                found[name] = header[name]
    platform = getattr(task.app, "ironbeat", None)
    if "workload" not in found and platform is not None:
        # A message of another producer's; the application knows whose task it is.
        workload = platform.workload_of(task.name)
        if workload:
            found["workload"] = workload
    return found
