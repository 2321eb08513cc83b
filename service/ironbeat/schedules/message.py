"""The broker message of a scheduled run, as Celery's task protocol 2 has it. Pure."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kombu.utils.json import dumps as kombu_dumps

REPR_CHARACTERS = 1024
_ORIGIN = f"beat{os.getpid()}@{socket.gethostname()}"


def shortened(value: Any) -> str:
    """How arguments are shown: their ``repr``, cut where it is long."""
    text = repr(value)
    return text if len(text) <= REPR_CHARACTERS else text[: REPR_CHARACTERS - 1] + "…"


def build(
    *,
    id: str,
    task: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    headers: Mapping[str, Any],
    queue: str,
    priority: int | None,
    expires_at: datetime | None,
    header: Mapping[str, Any],
    argsrepr: str,
    kwargsrepr: str,
) -> dict[str, Any]:
    """The message of one run.

    ``headers`` are the schedule's, ``header`` is the platform's (``ironbeat.execution.header``).
    """
    properties: dict[str, Any] = {"correlation_id": id, "reply_to": ""}
    if priority is not None:
        properties["priority"] = priority
    return {
        "body": [
            list(args),
            dict(kwargs),
            {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
        ],
        "headers": {
            **headers,
            "lang": "py",
            "task": task,
            "id": id,
            "shadow": None,
            "eta": None,
            "expires": expires_at.isoformat() if expires_at is not None else None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [None, None],
            "root_id": id,
            "parent_id": None,
            "argsrepr": argsrepr,
            "kwargsrepr": kwargsrepr,
            "origin": _ORIGIN,
            "ignore_result": None,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
            "ironbeat": header,
        },
        "properties": properties,
        "exchange": "",
        "routing_key": queue,
    }


def text(message: Mapping[str, Any]) -> str:
    """The message as JSON text."""
    return kombu_dumps(message)
