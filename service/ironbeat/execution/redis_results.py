"""Celery's Redis result backend, writing a worker's results with the batch they belong to.

As it comes, the backend makes two round trips to store a state: it reads the one that is there,
lest a late copy overwrite a success, and writes. The guard has refused such copies already; and
where a pool runs tasks inline, the states of a batch go out in one step. They do before the
batch's acknowledgements, at the next wait for messages, or from the pool's watchdog while a task
takes long: a state is at most some hundredths of a second late.

Results are a convenience beside the ledger, which has every outcome: while no store takes them they
wait here, ``MAX_WAITING`` at most, and hold back no acknowledgement.

:mod:`ironbeat.execution.results` has the backends.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from time import monotonic
from typing import Any
from weakref import WeakSet

import orjson
from celery import states
from celery.exceptions import BackendStoreError

from ironbeat.execution import deliveries
from ironbeat.execution.custody import BACK_OFF_SECONDS, BROKER_ERRORS, consumption

logger = logging.getLogger(__name__)

STORE = deliveries.lua("store_results")

BATCH = 500
MAX_WAITING = 10_000

# Results that need no encoding of Celery's own, and that orjson spells as Python's json does.
_PLAIN = (type(None), bool, int, str)

Entry = tuple[str, bytes | str, int]

_collections: WeakSet[Collection] = WeakSet()


def flush_all() -> None:
    """Write what every backend of this process has collected; an outage raises nothing."""
    for collection in tuple(_collections):
        collection.flush()


class Collection:
    """States that wait to be written, in the order in which they came."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._waiting: deque[Entry] = deque()
        self._writing = threading.Lock()
        self._held_back_until = 0.0
        _collections.add(self)

    def add(self, key: str, value: bytes | str, expires: int) -> None:
        """Write ``value`` soon; ``expires`` is in seconds, 0 for never."""
        self._waiting.append((key, value, expires))
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            logger.error("a result was dropped: its Redis has been away for too long")

    def find(self, key: str) -> bytes | None:
        """The latest value of ``key`` that waits, if one does."""
        for each, value, _ in reversed(tuple(self._waiting)):
            if each == key:
                return value.encode() if isinstance(value, str) else value
        return None

    def flush(self) -> None:
        """Write what waits; what could not be written waits on."""
        if not self._waiting or monotonic() < self._held_back_until:
            return
        with self._writing:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                try:
                    self._backend.write_states(batch)
                except BROKER_ERRORS as error:
                    self._waiting.extendleft(reversed(batch))
                    self._held_back_until = monotonic() + BACK_OFF_SECONDS
                    logger.warning("%d results wait for their Redis: %s", len(batch), error)
                    return


class Collecting:
    """Mixed into a Redis backend: collects states where tasks run inline."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._collection = Collection(self)
        self._script: Any = None

    @property
    def store_script(self) -> Any:
        """The script that writes a batch, bound to this backend's client."""
        if self._script is None:
            self._script = self.client.register_script(STORE)  # type: ignore[attr-defined]
        return self._script

    def write_states(self, batch: Sequence[Entry]) -> None:
        """Write a batch in one step. Raises the broker's errors."""
        self.store_script(args=[part for entry in batch for part in entry])

    def get(self, key: Any) -> Any:
        """As Redis has it, or is about to."""
        text = key.decode() if isinstance(key, bytes) else key
        return self._collection.find(text) or super().get(key)  # type: ignore[misc]

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Store a task's state; where tasks run inline, soon."""
        if not consumption.inline:
            return super().store_result(  # type: ignore[misc]
                task_id, result, state, traceback=traceback, request=request, **kwargs
            )
        backend: Any = self
        value = self._plain(task_id, result, state, request)
        if value is None:
            result = backend.encode_result(result, state)
            meta = backend._get_result_meta(
                result=result, state=state, traceback=traceback, request=request
            )
            meta["task_id"] = task_id
            value = backend.encode(meta)
        if len(value) > backend._MAX_STR_VALUE_SIZE:
            raise BackendStoreError(
                "value too large for Redis backend", state=state, task_id=task_id
            )
        expires = backend.failure_expires if state == states.FAILURE else None
        key = backend.get_key_for_task(task_id)
        text = key.decode() if isinstance(key, bytes) else key
        self._collection.add(text, value, int(expires or backend.expires or 0))
        return result

    def _plain(self, task_id: str, result: Any, state: str, request: Any) -> bytes | None:
        """What is stored of a success with a simple result, as Celery spells it; else ``None``."""
        if not self._encodes_plainly or type(result) not in _PLAIN or state != states.SUCCESS:
            return None
        meta = {
            "status": state,
            "result": result,
            "traceback": None,
            "children": [child.as_tuple() for child in getattr(request, "children", None) or ()],
            "date_done": datetime.now(UTC).isoformat(),
        }
        if request is not None:
            if request.group:
                meta["group_id"] = request.group
            if request.parent_id:
                meta["parent_id"] = request.parent_id
        meta["task_id"] = task_id
        try:
            return orjson.dumps(meta)
        except TypeError:
            return None

    @cached_property
    def _encodes_plainly(self) -> bool:
        """Whether nothing but JSON is asked for: no compression, no extended results."""
        backend: Any = self
        conf = backend.app.conf
        return (
            backend.serializer == "json"
            and not getattr(backend, "compression", None)
            and not conf.find_value_for_key("extended", "result")
        )
