"""Model and index in memory before they are asked for, in every worker process that serves them.

A task runs in one process only. So the preload goes to all of them as a remote control command,
which a worker answers on a thread of its own, even while it is busy. A process that starts within a
day of a preload (a recycled worker, a child of a pool that forks) warms itself.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import structlog
from celery import signals
from celery.worker.control import control_command

from ironbeat.workloads.analytics.clustering import load_libraries
from ironbeat.workloads.analytics.database import one, transaction, written
from ironbeat.workloads.analytics.embedder import ModelUnusable, configured
from ironbeat.workloads.analytics.vectors import similar

log = structlog.get_logger()

COMMAND = "analytics_warm"
QUEUE = "analytics"

# The first call of any code is slower than the later ones: so it is done here, in each language.
_REHEARSAL = ("怎麼重設密碼？", "怎么重置密码", "How do I reset my password?")

# How long the preload waits to learn who is there, and for them to have loaded.
ROLL_CALL_SECONDS = 5.0
LOADING_SECONDS = 120.0

_once = threading.Lock()


def warm(process: str) -> dict[str, Any]:
    """Load the model into this process, run it, read the index, and note that it is done."""
    started = time.monotonic()
    with _once:
        embedder = configured()
        embedder.embed(_REHEARSAL)
        load_libraries()
        # While one model takes over from another, there may be nothing to search with yet.
        with suppress(ModelUnusable):
            for text in _REHEARSAL:
                similar(text)
    seconds = round(time.monotonic() - started, 3)
    with transaction() as cursor:
        written(
            cursor,
            "note_warm",
            process=process,
            pid=os.getpid(),
            model=f"{embedder.name} {embedder.version}",
            seconds=seconds,
        )
    return {"process": process, "pid": os.getpid(), "seconds": seconds}


@control_command(name=COMMAND)
def answer(state: Any) -> dict[str, Any]:
    """Warm this worker, if it consumes the queue of this workload; else say so."""
    queues = [queue.name for queue in getattr(state.consumer.task_consumer, "queues", ())]
    if QUEUE not in queues:
        return {"serves": False}
    try:
        return {"serves": True, **warm(state.hostname)}
    except Exception as error:
        log.exception("warming failed")
        return {"serves": True, "error": repr(error)}


def everywhere(app: Any) -> dict[str, Any]:
    """Have every worker warm itself, and wait for all of them.

    Returns ``warmed``: the processes with the seconds each took; ``idle``: workers that serve other
    queues; ``failed``: those that could not, with the error; ``silent``: how many did not answer.
    """
    present = len(app.control.ping(timeout=ROLL_CALL_SECONDS))
    answers: dict[str, Any] = {}
    if present:
        for reply in app.control.broadcast(
            COMMAND, reply=True, timeout=LOADING_SECONDS, limit=present
        ):
            answers.update(reply)
    serving = {name: found for name, found in answers.items() if found.get("serves")}
    return {
        "warmed": {n: f["seconds"] for n, f in sorted(serving.items()) if "seconds" in f},
        "idle": sorted(name for name, found in answers.items() if not found.get("serves")),
        "failed": {n: f["error"] for n, f in sorted(serving.items()) if "error" in f},
        "silent": present - len(answers),
    }


def _warm_if_asked_lately(process: str) -> None:
    try:
        with transaction() as cursor:
            wanted = one(cursor, "preloaded_lately")["lately"]
        if wanted:
            warm(process)
    except Exception as error:
        # A worker serves cold rather than not at all.
        log.warning("not warmed at start", error=repr(error))


@signals.worker_ready.connect
def _worker_is_ready(sender: Any = None, **_: Any) -> None:
    queues = [queue.name for queue in getattr(getattr(sender, "task_consumer", None), "queues", ())]
    if QUEUE in queues:
        name = getattr(sender, "hostname", socket.gethostname())
        threading.Thread(
            target=_warm_if_asked_lately, args=(name,), name="warm", daemon=True
        ).start()


@signals.worker_process_init.connect
def _child_has_started(**_: Any) -> None:
    _warm_if_asked_lately(f"{socket.gethostname()}/{os.getpid()}")
