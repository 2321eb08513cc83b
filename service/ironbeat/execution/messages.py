"""Celery's messages and requests, each body decoded once and by a faster decoder.

As they come, kombu decodes a task's body for the worker and Celery decodes it again for the tracer,
either time with Python's ``json``. Here orjson decodes what it reads exactly as that does, and the
tracer of an inline pool is handed the values.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request as StockRequest
from kombu.transport import virtual
from kombu.utils.json import loads as kombu_loads

from ironbeat.execution.custody import consumption

JSON = "application/json"

#: The setting ``Task.Request`` of every guarded task.
REQUEST = f"{__name__}:Request"

# orjson reads a larger integer as a float.
_LONG_NUMBER = re.compile(rb"\d{19}")


def decoded(raw: bytes) -> Any:
    """The value of a JSON text, as kombu reads it. Raises :class:`ValueError`."""
    if b'"__type__"' in raw:
        return kombu_loads(raw.decode())
    if _LONG_NUMBER.search(raw) is None:
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            # Python's reads a little more (NaN), and says better what is wrong.
            pass
    return json.loads(raw)


class Message(virtual.Message):
    """The class of a channel's messages."""

    def _decode(self) -> Any:
        body = self.body
        plain = self.content_type == JSON and isinstance(body, bytes)
        if not plain or not (self.accept is None or JSON in self.accept):
            return super()._decode()
        try:
            return decoded(body)
        except ValueError:
            return super()._decode()


class Request(StockRequest):
    """A request whose body is decoded already, where its task runs in this very process."""

    def __init__(self, message: Any, **options: Any) -> None:
        try:
            super().__init__(message, **options)
        except (TypeError, ValueError) as error:
            # Celery lets it end the worker, and the message comes back to end the next one.
            raise InvalidTaskError(f"not the body of a task's message: {error}") from error
        # A body of the old protocol has been put into the form of the new one.
        if consumption.inline and message.content_type == JSON and not options.get("decoded"):
            self._body = message.payload
            self._content_type = self._content_encoding = None
