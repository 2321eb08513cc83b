"""The short way from a message to its task, for plain messages of tasks that run inline.

Celery's own way is made for pools of other processes: promises for an acknowledgement that may come
from another thread, a call put together for a pipe and taken apart again, three events that each
ask whether anybody listens. With an inline pool a message runs where it is handed over, and most
are plain: protocol 2, JSON, due now, not revoked, with no rate limit, and nobody listening. Those
go this way; every other message, and whatever does not work out here, goes Celery's. Either way
ends in the same tracer and leaves the same traces in the worker's state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic, time
from typing import Any

from celery import signals
from celery.app.task import Context
from celery.app.task import Task as StockTask
from celery.worker import state

from ironbeat.execution.events import TOGETHER, unheard
from ironbeat.execution.limits import TimeLimits
from ironbeat.execution.messages import JSON, REQUEST, Request

#: The logger, and the module, of the way that all other messages go.
CELERYS_WAY = "celery.worker.strategy"
# What makes a message wait, or be thrown away, is Celery's to look at.
_NOT_PLAIN = ("eta", "expires", "stamped_headers")
# What a task finds on its request, and not in the request's headers.
_CELERYS_OWN = frozenset(
    (*Context.__dict__, "lang", "task", "argsrepr", "kwargsrepr", "compression")
)


class PlainRequest(Request):
    """A request that is run at once, with nobody who listens to its events."""

    remembers_success = False

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """The task is about to begin."""
        self.worker_pid = pid
        self.time_start = time() - (monotonic() - time_accepted)
        state.task_accepted(self)
        if not self.task.acks_late:
            self.acknowledge()
        if self._terminate_on_ack is not None:
            self.terminate(*self._terminate_on_ack)

    def on_success(self, failed__retval__runtime: Any, **options: Any) -> Any:
        """The tracer has returned: acknowledge, unless the task has failed."""
        if failed__retval__runtime[0]:
            return super().on_success(failed__retval__runtime, **options)
        state.task_ready(self, successful=self.remembers_success)
        if self.task.acks_late:
            self.acknowledge()
        return None


@dataclass(slots=True)
class Way:
    """What is known of a task before its messages come."""

    task: Any
    limits: TimeLimits


class ShortWay:
    """Takes a consumer's messages; ``stock`` is Celery's handler of them."""

    def __init__(self, consumer: Any, stock: Callable[[Any], Any]) -> None:
        self._consumer = consumer
        self._stock = stock
        self._ways: dict[str, Way | None] = {}
        self._revoked = consumer.controller.state.revoked
        self._remembers = bool(consumer.app.conf.worker_deduplicate_successful_tasks)

    def __call__(self, message: Any) -> Any:
        """Run the message's task, or hand it to Celery's handler."""
        way = self._way(message)
        if way is None or not self._open():
            return self._stock(message)
        try:
            request = self._request(way, message)
        except Exception:
            # Whatever is wrong with it, Celery's handler finds and answers it.
            return self._stock(message)
        state.task_reserved(request)
        for callback in self._consumer.on_task_message:
            callback(request)
        body = request.body
        fields = request.request_dict
        fields["is_eager"] = False
        if custom := {k: v for k, v in message.headers.items() if k not in _CELERYS_OWN}:
            # Celery would look for them in a set that it makes anew for each task.
            fields["headers"] = custom
        if body[2]:
            fields.update(body[2])
        self._consumer.pool.run(request, _trace, (way.task, request), _limits(way, request))
        return None

    def _way(self, message: Any) -> Way | None:
        headers = message.headers
        try:
            name = headers["task"]
            way = self._ways[name]
        except KeyError:
            self._look_up(headers)
            return None
        except TypeError:
            return None
        if way is None or message.content_type != JSON or message.errors:
            return None
        for header in _NOT_PLAIN:
            if headers.get(header):
                return None
        return None if headers.get("id") in self._revoked else way

    def _look_up(self, headers: Any) -> None:
        """Learn what a task's next messages need; this one goes Celery's way."""
        name = headers.get("task")
        task = self._consumer.app.tasks.get(name) if isinstance(name, str) else None
        if task is not None:
            self._ways[name] = self._learn(task)

    def _learn(self, task: Any) -> Way | None:
        if task.Strategy != StockTask.Strategy or task.Request != REQUEST:
            return None
        if logging.getLogger(CELERYS_WAY).isEnabledFor(logging.INFO):
            # It says of each message that it was received.
            return None
        limits = TimeLimits(task.soft_time_limit, task.time_limit)
        return Way(task, TimeLimits.of(limits, self._consumer.pool.limits))

    def _open(self) -> bool:
        """Whether nothing stands in the way of plain messages now."""
        consumer = self._consumer
        if signals.task_received.receivers:
            return False
        if consumer.restart_count > 0 and not consumer._maximum_prefetch_restored:
            return False
        eventer = consumer.event_dispatcher
        if eventer is None or not eventer.enabled:
            return True
        if eventer.groups and "task" not in eventer.groups:
            # Without `-E` only the worker's own events are sent.
            return True
        producer = eventer.producer
        return producer is not None and unheard(producer.channel, TOGETHER)

    def _request(self, way: Way, message: Any) -> PlainRequest:
        consumer = self._consumer
        if not consumer.disable_rate_limits and consumer.task_buckets[way.task.name]:
            raise LookupError("it has a rate limit")
        if not isinstance(message.payload, list):
            raise TypeError("not of protocol 2")
        request = PlainRequest(
            message,
            on_ack=partial(consumer.call_soon_ack, message.ack_log_error),
            on_reject=partial(consumer.call_soon_ack, message.reject_log_error),
            app=consumer.app,
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            task=way.task,
            connection_errors=consumer.connection_errors,
            body=message.body,
            headers=message.headers,
        )
        request.remembers_success = self._remembers
        return request


def _limits(way: Way, request: PlainRequest) -> TimeLimits:
    hard, soft = request.time_limits
    return TimeLimits.of(TimeLimits(soft, hard), way.limits) if hard or soft else way.limits


def _trace(task: Any, request: PlainRequest) -> tuple[int, Any, Any]:
    """Run the task through Celery's tracer; what a pool's callback takes is returned."""
    fields = request.request_dict
    value, info, runtime, text = task.__trace__(
        request.id, fields["args"], fields["kwargs"], fields
    )
    return (1, value, runtime) if info else (0, text, runtime)
