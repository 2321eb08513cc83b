"""Submissions of one kind, prepared by filling a form instead of by Celery's sender each time.

``Task.apply_async`` spends some 300 µs on a message, of which all but its id and arguments is the
same for the next one. A :class:`Template` is cut from one message that Celery did make, and fills
in what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
from celery import Task, signals
from celery.utils.saferepr import saferepr
from kombu.utils.json import dumps as kombu_dumps

from ironbeat.execution import header, sealing
from ironbeat.runs.model import NewRun


def can_be_cut(app: Any, task: Any) -> bool:
    """Whether messages of ``task`` differ in their id and arguments alone.

    They do not where anybody looks at each: a sender of the task's own, sealed arguments, a route
    that is a function, a receiver of Celery's signal.
    """
    routes = app.conf.task_routes
    return (
        getattr(type(task).apply_async, "__func__", type(task).apply_async) is Task.apply_async
        and not sealing.names_of(task)
        and not signals.before_task_publish.receivers
        and (not routes or isinstance(routes, Mapping))
        and not app.conf.task_always_eager
    )


class Template:
    """Makes runs like ``sample``, which Celery made from a submission of the same kind."""

    def __init__(self, app: Any, sample: NewRun) -> None:
        message = orjson.loads(sample.message or "{}")
        self._fields = {each.name: getattr(sample, each.name) for each in fields(sample)}
        self._headers: dict[str, Any] = message["headers"]
        self._embed = message["body"][2]
        self._properties: dict[str, Any] = message.get("properties") or {}
        self._rest = {
            "exchange": message.get("exchange") or "",
            "routing_key": message["routing_key"],
        }
        self._roots_itself = self._headers.get("root_id") == sample.id
        self._longest = app.amqp.argsrepr_maxsize, app.amqp.kwargsrepr_maxsize
        self._levels = app.conf.task_repr_maxlevels

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NewRun:
        """A run of its own id with these arguments.

        Raises :class:`TypeError` or :class:`ValueError` for what is no JSON.
        """
        id = str(uuid4())
        created_at = datetime.now(UTC)
        argsrepr = saferepr(tuple(args), self._longest[0], maxlevels=self._levels)
        kwargsrepr = saferepr(dict(kwargs), self._longest[1], maxlevels=self._levels)
        own = {**self._headers[header.NAME], "created_at": created_at.isoformat()}
        headers = {
            **self._headers,
            "id": id,
            "argsrepr": argsrepr,
            "kwargsrepr": kwargsrepr,
            header.NAME: own,
        }
        properties = {**self._properties, "correlation_id": id}
        if self._roots_itself:
            headers["root_id"] = id
        body = kombu_dumps([list(args), dict(kwargs), self._embed])
        message = (
            f'{{"body": {body}, "headers": {_json(headers)}, "properties": {_json(properties)}, '
            f'"exchange": {_json(self._rest["exchange"])}, '
            f'"routing_key": {_json(self._rest["routing_key"])}}}'
        )
        own_fields = {
            "id": id,
            "created_at": created_at,
            "root_id": id if self._roots_itself else self._fields["root_id"],
            "argsrepr": argsrepr,
            "kwargsrepr": kwargsrepr,
            "message": message,
        }
        return NewRun(**{**self._fields, **own_fields})


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Lone surrogates, which JSON text can carry escaped.
        return str(kombu_dumps(value))
