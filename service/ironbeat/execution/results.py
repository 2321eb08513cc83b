"""Celery's result backends: results wherever there is a store, chords always in the ledger.

:class:`LedgerBackend` (``ledger://``) keeps results in PostgreSQL; it serves installations without
Redis. :class:`RedisBackend` keeps them in Redis, as Celery does, and in PostgreSQL while Redis is
gone; a worker moves those to Redis when it has returned, where whoever waits is told. What neither
has is told from the run itself, as far as the ledger knows it.

Both count the parts of a chord in PostgreSQL, by the parts' ids. A chord may begin before Redis
dies and end after it, or be half done when it returns with its last second missing; a count that
lies in one place throughout is right in all of these, and a part that runs twice is counted once.
It costs one committed statement a part. The body is committed to the ledger before the chord is
closed, so it is lost by no death in between, and its fixed id keeps it from running twice.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from celery import states
from celery.backends.base import (
    KeyValueStoreBackend,
    SyncBackendMixin,
    _create_chord_error_with_cause,
)
from celery.backends.redis import RedisBackend as StockRedisBackend
from celery.backends.redis import ResultConsumer as StockResultConsumer
from celery.backends.redis import SentinelBackend as StockSentinelBackend
from celery.canvas import maybe_signature
from celery.exceptions import ChordError, TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import GroupResult, result_from_tuple
from kombu.utils.encoding import bytes_to_str, ensure_bytes
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry

from ironbeat.execution import runtime
from ironbeat.execution.custody import consumption
from ironbeat.execution.redis_results import Collecting, Entry
from ironbeat.runs.kept import Chords, Part, Shelf
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import LedgerUnavailable, Run, RunNotFound

logger = logging.getLogger(__name__)

T = TypeVar("T")

REDIS_ERRORS = (RedisError, OSError)
# What Celery raises when it could not subscribe anew.
GIVEN_UP = (*REDIS_ERRORS, RuntimeError)

# After Redis did not answer, it is left alone for so long.
PAUSE_SECONDS = 5.0
POLL_SECONDS = 0.25
# What a worker spools of a chord's part when PostgreSQL is gone.
CHORD_PART = "chord_part"

#: For a loader's ``override_backends``.
BACKENDS = {
    "redis": f"{__name__}:RedisBackend",
    "rediss": f"{__name__}:RedisBackend",
    "sentinel": f"{__name__}:SentinelBackend",
    "ledger": f"{__name__}:LedgerBackend",
}


class InLedger:
    """Mixed into a backend: chords, and what a run's row tells of its result."""

    app: Any
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    encode_result: Callable[[Any, str], Any]
    exception_to_python: Callable[[Any], Any]
    chord_error_from_stack: Callable[..., Any]
    meta_from_decoded: Callable[[dict[str, Any]], dict[str, Any]]

    @property
    def ledger(self) -> Ledger:
        """The application's ledger."""
        found: Ledger = self.app.ironbeat.ledger
        return found

    @property
    def shelf(self) -> Shelf:
        """Where results are kept in PostgreSQL."""
        return Shelf(self.ledger)

    @property
    def chords(self) -> Chords:
        """Where chords are counted."""
        return Chords(self.ledger)

    # -- chords ------------------------------------------------------------------------------------

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Celery says how many parts a chord has, just before it sends the last one."""
        self.chords.set_size(group_id, chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """A part of a chord adds another one."""
        self.chords.add(chord_id)

    def apply_chord(self, header_result_args: Any, body: Any, **_: Any) -> None:
        """A chord is about to be sent: note its structure if it has one."""
        results = header_result_args[1]
        if isinstance(results, list | tuple) and any(isinstance(r, GroupResult) for r in results):
            header = self.app.GroupResult(*header_result_args)
            self.chords.set_structure(header.id, json.dumps(header.as_tuple()))

    def on_chord_part_return(self, request: Any, state: str, result: Any, **_: Any) -> None:
        """A part of a chord has ended; the last one submits the body.

        Where PostgreSQL is gone the part goes into the worker's spool with the run's outcome.
        """
        if not request.group or not request.id or not request.chord:
            return
        part = {
            "chord": request.group,
            "run": request.id,
            "place": request.group_index,
            "state": state,
            "result": bytes_to_str(self.encode(self.encode_result(result, state))),
            "body": json.loads(json.dumps(request.chord, default=str)),
        }
        try:
            self.count_part(part)
        except LedgerUnavailable as error:
            active = runtime.current()
            if active is None:
                raise
            logger.warning("part %s of a chord waits for the ledger: %s", request.id, error)
            active.recorder.postpone(CHORD_PART, part)

    def count_part(self, part: dict[str, Any]) -> None:
        """Count a part, and submit the body of a chord that is complete.

        Repeating it does no harm. Raises :class:`LedgerUnavailable`.
        """
        chord = part["chord"]
        ended = Part(part["run"], part["state"], part["result"])
        counted = self.chords.count(chord, ended, part["place"])
        if not counted.complete:
            return
        body = maybe_signature(part["body"], app=self.app)
        try:
            values = self._values(self.chords.parts(chord), counted.structure)
            body.apply_async((values,), durable=True)
        except LedgerUnavailable:
            raise
        except ChordError as error:
            logger.warning("chord %s failed: %s", chord, error)
            self.chord_error_from_stack(body, error)
        except Exception as error:
            logger.exception("chord %s: its body cannot be submitted", chord)
            self.chord_error_from_stack(body, ChordError(f"Callback error: {error!r}"))
        self.chords.end(chord)

    def _values(self, parts: Sequence[Part], structure: str | None) -> list[Any]:
        if structure is None:
            return [self._value(part) for part in parts]
        by_id = {part.run_id: part for part in parts}
        return self._nested(result_from_tuple(json.loads(structure), self.app), by_id)

    def _nested(self, node: Any, parts: dict[str, Part]) -> list[Any]:
        values: list[Any] = []
        for child in node.results:
            if isinstance(child, GroupResult):
                values.append(self._nested(child, parts))
            elif child.id in parts:
                values.append(self._value(parts[child.id]))
            else:
                values.append(child.result)
        return values

    def _value(self, part: Part) -> Any:
        value = self.decode(part.result)
        if part.state in states.EXCEPTION_STATES:
            value = self.exception_to_python(value)
        if part.state in states.PROPAGATE_STATES:
            raise _create_chord_error_with_cause(
                message=f"Dependency {part.run_id} raised {value!r}", original_exc=value
            )
        return value

    # -- what the ledger knows ---------------------------------------------------------------------

    def meta_from_ledger(self, task_id: str) -> dict[str, Any]:
        """A task's state and result as the ledger has them; pending, for what it does not know."""
        try:
            meta = _meta(self.ledger.get(task_id))
        except RunNotFound:
            meta = {"status": states.PENDING, "result": None}
        return self.meta_from_decoded(meta | {"task_id": task_id, "children": []})


class LedgerBackend(InLedger, KeyValueStoreBackend):
    """Results in PostgreSQL, for ``result_expires`` seconds."""

    supports_autoexpire = True

    def __init__(self, *args: Any, url: str | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("expires_type", int)
        super().__init__(*args, url=url or "ledger://", **kwargs)

    def get(self, key: Any) -> bytes | None:
        """The value of a key."""
        name = bytes_to_str(key)
        return self.shelf.get([name]).get(name)

    def mget(self, keys: Any) -> list[bytes | None]:
        """The values of some keys."""
        names = [bytes_to_str(key) for key in keys]
        found = self.shelf.get(names)
        return [found.get(name) for name in names]

    def set(self, key: Any, value: Any) -> None:
        """Keep a value."""
        self.shelf.set(bytes_to_str(key), ensure_bytes(value), self.expires or None)

    def delete(self, key: Any) -> None:
        """Forget a key."""
        self.shelf.delete(bytes_to_str(key))

    def _store_result(
        self,
        task_id: Any,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **_: Any,
    ) -> Any:
        if state == states.STARTED:
            return result  # The ledger says so.
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = bytes_to_str(task_id)
        self.shelf.set(
            bytes_to_str(self.get_key_for_task(task_id)),
            ensure_bytes(self.encode(meta)),
            self.expires or None,
            final=state == states.SUCCESS,
        )
        return result

    def _get_task_meta_for(self, task_id: Any) -> dict[str, Any]:
        kept = self.get(self.get_key_for_task(task_id))
        if kept:
            found: dict[str, Any] = self.decode_result(kept)
            return found
        return self.meta_from_ledger(bytes_to_str(task_id))


class ResultConsumer(StockResultConsumer):
    """Celery's, which lets nobody wait for a Redis that does not answer.

    Submitting subscribes to the result. Where the broker was silent a moment ago that is left to
    whoever waits for the result; and only where a connection has died it is made anew.
    """

    def consume_from(self, task_id: str) -> None:
        """Subscribe to a result that somebody may wait for."""
        if not self.app.ironbeat.submission.breaker.open:
            self.subscribe(task_id)

    def subscribe(self, task_id: str) -> None:
        """Subscribe to a result that is waited for. Raises Redis' errors."""
        super().consume_from(task_id)

    def _reconnect(self) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, RedisTimeout):
            # It has been waited for already, and once is enough: whoever submits waits with it.
            raise error
        super()._reconnect()


class RedisBackend(InLedger, Collecting, StockRedisBackend):
    """Results in Redis; while it is gone, in PostgreSQL."""

    ResultConsumer = ResultConsumer

    @property
    def retry_policy(self) -> dict[str, Any]:
        """How often Celery subscribes anew; whoever waits asks the ledger then."""
        return {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._down_until = 0.0
        # Nobody waits long for a result to be kept: the ledger takes it as well.
        seconds = self.app.ironbeat.settings.broker_timeout_seconds
        for name in ("socket_timeout", "socket_connect_timeout"):
            if name in self.connparams:
                self.connparams[name] = min(self.connparams[name] or seconds, seconds)
        # A connection that died while it lay in the pool is worth a second try, and no more.
        self.connparams["retry"] = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))

    @property
    def down(self) -> bool:
        """Whether Redis did not answer a moment ago."""
        return time.monotonic() < self._down_until or consumption.broker_lost()

    @property
    def supports_native_join(self) -> bool:
        """Whether results are waited for by subscribing to them."""
        return not self.down

    def _asking(self, ask: Callable[..., T], *args: Any, otherwise: Callable[[], T]) -> T:
        if not self.down:
            try:
                return ask(*args)
            except GIVEN_UP as error:
                self._take_down(error)
        return otherwise()

    def _take_down(self, error: BaseException) -> None:
        if isinstance(error, RuntimeError) and not isinstance(error.__cause__, REDIS_ERRORS):
            raise error
        self._down_until = time.monotonic() + PAUSE_SECONDS
        # What was subscribed to is asked for; the next subscription begins with a new connection.
        self.result_consumer._pubsub = None
        self.result_consumer.subscribed_to.clear()
        logger.warning("results are in the ledger, Redis does not answer: %s", error)

    def get(self, key: Any) -> Any:
        """The value of a key."""
        name = bytes_to_str(key)
        return self._asking(
            super().get,
            key,
            otherwise=lambda: self._collection.find(name) or self.shelf.get([name]).get(name),
        )

    def mget(self, keys: Any) -> Any:
        """The values of some keys."""
        names = [bytes_to_str(key) for key in keys]

        def kept() -> list[bytes | None]:
            found = self.shelf.get(names)
            return [found.get(name) for name in names]

        return self._asking(super().mget, keys, otherwise=kept)

    def set(self, key: Any, value: Any, expires: Any = None, **_: Any) -> Any:
        """Keep a value, and tell whoever waits for it."""
        return self._asking(
            self._set, key, value, expires, otherwise=lambda: self._keep(key, value, expires)
        )

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        expires = self.failure_expires if state == states.FAILURE else None
        final = state == states.SUCCESS
        return self._asking(
            self._set,
            key,
            value,
            expires,
            otherwise=lambda: self._keep(key, value, expires, final=final),
        )

    def _keep(self, key: Any, value: Any, expires: Any, *, final: bool = False) -> None:
        seconds = self.expires if expires is None else expires
        self.shelf.set(bytes_to_str(key), ensure_bytes(value), seconds or None, final=final)

    def write_states(self, batch: Sequence[Entry]) -> None:
        """Write a batch of states: to Redis, or else to the ledger. Raises an error of neither."""

        def keep() -> None:
            for key, value, expires in batch:
                self.shelf.set(key, ensure_bytes(value), expires or None)

        self._asking(super().write_states, batch, otherwise=keep)

    def delete(self, key: Any) -> Any:
        """Forget a key."""
        return self._asking(
            super().delete, key, otherwise=lambda: self.shelf.delete(bytes_to_str(key))
        )

    def move_back(self) -> int:
        """Put into Redis what was kept while it was gone; returns how many values.

        Raises the errors of either store; what was not moved stays where it is.
        """
        moved = 0
        while found := self.shelf.move(self._put):
            moved += found
        return moved

    def _put(self, key: str, value: bytes, seconds: float | None) -> None:
        client = self.client
        meta = self.decode(value)
        stored = client.get(key) if isinstance(meta, dict) and "status" in meta else None
        if stored and self.decode_result(stored)["status"] == states.SUCCESS:
            return
        with client.pipeline() as pipe:
            pipe.set(key, value, px=None if seconds is None else max(1, int(seconds * 1000)))
            pipe.publish(key, value)
            pipe.execute()

    def _get_task_meta_for(self, task_id: Any) -> dict[str, Any]:
        found: dict[str, Any] = super()._get_task_meta_for(task_id)
        if found["status"] == states.PENDING and self.down:
            return self.meta_from_ledger(bytes_to_str(task_id))
        return found

    # -- waiting -----------------------------------------------------------------------------------

    wait_for = SyncBackendMixin.wait_for

    def _add_pending_result(self, task_id: str, result: Any, weak: bool = False) -> None:
        self._asking(super()._add_pending_result, task_id, result, weak, otherwise=lambda: None)

    def remove_pending_result(self, result: Any) -> Any:
        """Nobody waits for this result any more; called from finalizers too."""
        try:
            super().remove_pending_result(result)
        except Exception as error:
            logger.debug("subscription not ended: %r", error)
        return result

    def wait_for_pending(self, result: Any, **options: Any) -> Any:
        """Wait for a result: subscribed in Redis, asking again and again while it is gone."""
        deadline = _deadline(options.get("timeout"))
        if not self.down:
            try:
                self.result_consumer.subscribe(result.id)
                return super().wait_for_pending(result, **options)
            except CeleryTimeout:
                raise
            except GIVEN_UP as error:
                self._take_down(error)
        if deadline is not None:
            options["timeout"] = max(0.0, deadline - time.monotonic())
        options["interval"] = POLL_SECONDS
        return SyncBackendMixin.wait_for_pending(self, result, **options)

    def iter_native(self, result: Any, **options: Any) -> Iterator[Any]:
        """Yield results as they come."""
        if not self.down:
            try:
                for node in result.results:
                    if not isinstance(node, GroupResult):
                        self.result_consumer.subscribe(node.id)
            except GIVEN_UP as error:
                self._take_down(error)
            else:
                return super().iter_native(result, **options)
        return SyncBackendMixin.iter_native(self, result, **options)


class SentinelBackend(RedisBackend, StockSentinelBackend):
    """The same behind Redis Sentinel."""


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


_STATES = {
    "pending": states.PENDING,
    "published": states.PENDING,
    "running": states.STARTED,
    "retrying": states.RETRY,
    "succeeded": states.SUCCESS,
    "failed": states.FAILURE,
    "dead": states.FAILURE,
    "cancelled": states.REVOKED,
    "expired": states.REVOKED,
    "skipped": states.IGNORED,
}


def _meta(run: Run) -> dict[str, Any]:
    state = _STATES[run.state]
    result: Any = None
    if state == states.STARTED and run.progress is not None:
        state, result = "PROGRESS", run.progress
    elif state == states.SUCCESS:
        result = run.result
    elif state in (states.FAILURE, states.RETRY):
        kind, _, text = (run.error or run.reason or "failed").partition(": ")
        result = {"exc_type": kind, "exc_message": [text], "exc_module": "builtins"}
    elif state == states.REVOKED:
        result = {
            "exc_type": TaskRevokedError.__name__,
            "exc_message": [run.reason or run.state],
            "exc_module": TaskRevokedError.__module__,
        }
    return {
        "status": state,
        "result": result,
        "traceback": run.traceback,
        "date_done": run.ended_at.isoformat() if run.ended_at else None,
    }
