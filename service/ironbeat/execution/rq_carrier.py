"""RQ, the second carrier of messages, beside Celery's transport.

A queue of RQ's is called ``rq:NAME`` everywhere in Ironbeat: in the ledger, the reports and the
commands; RQ itself knows it as ``NAME``. What is sent to such a queue, by whatever call, becomes a
job named after the run, whose one argument is the message as the ledger keeps it. So the
guard, the outbox, retries, replay and takeovers hold for RQ as they do for Celery, and a run whose
message both carriers have is executed once.

The jobs are JSON: RQ's own default, pickle, would run whatever somebody writes into Redis.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from ironbeat.settings import Settings, client_url

# RQ takes as long to import as the rest of a command does.
if TYPE_CHECKING:
    from redis import Redis
    from rq import Queue

PREFIX = "rq:"
PERFORM = "ironbeat.execution.rq_worker.perform"
# A job that is given no limit of its own.
DEFAULT_TIMEOUT_SECONDS = 900
DESCRIPTION_CHARACTERS = 200


def carries(queue: str | None) -> bool:
    """Whether RQ carries the messages of ``queue``."""
    return bool(queue) and str(queue).startswith(PREFIX)


def job_id(id: str, retries: int = 0, replacements: int = 0) -> str:
    """What RQ calls one attempt of a run.

    A retry is sent while RQ still keeps the books of the attempt that asked for it, and would write
    the old message over the new one if both had one name.
    """
    return id if not (retries or replacements) else f"{id}-{retries}-{replacements}"


def own_name(queue: str) -> str:
    """What RQ itself calls ``queue``."""
    return queue.removeprefix(PREFIX)


def list_key(queue: str) -> str:
    """The list in which the jobs of ``queue`` wait."""
    return f"rq:queue:{own_name(queue)}"


# A run's id, how often it was retried, and how often replaced: what tells one message from another.
Attempt = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class RQCounts:
    """One of RQ's queues: jobs that wait, that RQ holds as failed, and workers that listen."""

    waiting: int
    failed: int
    workers: int


class RQCarrier:
    """Hands messages to RQ and looks after its queues.

    All methods raise what redis-py raises when the server cannot be reached in time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: tuple[int, Redis] | None = None

    @property
    def client(self) -> Redis:
        """A client of this process, bounded in time and in connections."""
        if self._client is None or self._client[0] != os.getpid():
            self._client = (
                os.getpid(),
                connect(self._settings, seconds=self._settings.broker_timeout_seconds),
            )
        return self._client[1]

    def publish(self, messages: Sequence[tuple[str, Mapping[str, Any] | str]]) -> None:
        """Hand ``(id, message)`` pairs over, the message as a value or as JSON text.

        One round trip for each queue. A job that RQ has already stands in the queue once more; the
        guard lets it be executed once.
        """
        by_queue: dict[str, dict[str, Mapping[str, Any]]] = {}
        for id, found in messages:
            message = orjson.loads(found) if isinstance(found, str) else found
            by_queue.setdefault(message["routing_key"], {})[id] = message
        for name, jobs in by_queue.items():
            queue = self.queue(name)
            queue.enqueue_many([self._job(queue, id, message) for id, message in jobs.items()])

    def _job(self, queue: Queue, id: str, message: Mapping[str, Any]) -> Any:
        headers = message["headers"]
        called = f"{headers['task']}{headers.get('argsrepr') or ''}"
        limits = headers.get("timelimit") or [None, None]
        # What a task may take on Celery's side may be more; RQ's workers are stopped by this one.
        longest = self._settings.rq_job_timeout
        return queue.prepare_data(
            PERFORM,
            (dict(message),),
            timeout=min(limits[0] or longest, longest),
            result_ttl=self._settings.rq_result_ttl,
            failure_ttl=self._settings.rq_failure_ttl,
            description=called[:DESCRIPTION_CHARACTERS],
            job_id=job_id(
                id, headers.get("retries") or 0, headers.get("replaced_task_nesting") or 0
            ),
        )

    def queue(self, name: str) -> Queue:
        """RQ's queue for ``name``, with or without the prefix."""
        from rq import Queue
        from rq.serializers import JSONSerializer

        return Queue(
            own_name(name),
            connection=self.client,
            serializer=JSONSerializer,
            default_timeout=DEFAULT_TIMEOUT_SECONDS,
        )

    def counts(self, name: str) -> RQCounts:
        """How one queue stands."""
        from rq import Worker

        queue = self.queue(name)
        return RQCounts(
            waiting=queue.count,
            failed=queue.failed_job_registry.get_job_count(cleanup=False),
            workers=Worker.count(queue=queue),
        )

    def purge(self, name: str) -> int:
        """Take every waiting job out of one queue; returns how many."""
        return int(self.queue(name).empty() or 0)

    def forget(self, name: str, attempts: Sequence[Attempt]) -> int:
        """Take these waiting jobs out of a queue; returns how many were there."""
        key = self.queue(name).key
        pipe = self.client.pipeline(transaction=False)
        for attempt in attempts:
            pipe.lrem(key, 0, job_id(*attempt))
        return sum(int(found) for found in pipe.execute())

    def strays(self, name: str, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Those of ``attempts`` that RQ has neither waiting nor under way."""
        pipe = self.client.pipeline(transaction=False)
        for attempt in attempts:
            pipe.hget(f"rq:job:{job_id(*attempt)}", "status")
        states = [state.decode() if state else "" for state in pipe.execute()]
        listed = cast("list[bytes]", self.client.lrange(self.queue(name).key, 0, -1))
        waiting = {each.decode() for each in listed}
        return [
            attempt
            for attempt, state in zip(attempts, states, strict=True)
            if job_id(*attempt) not in waiting and state not in ("started", "scheduled", "deferred")
        ]


def connect(settings: Settings, *, seconds: float | None = None) -> Redis:
    """A client of the broker's server with as many connections as RQ's owners allow.

    ``seconds`` bounds each wait; a worker, which waits for jobs, has no such bound.
    """
    from redis import Redis

    # redis-py tries again after a time-out by itself; `retry_on_timeout` says nothing more to it.
    return Redis.from_url(
        client_url(settings.broker_url.get_secret_value()),
        max_connections=settings.rq_max_connections,
        socket_connect_timeout=seconds or 5.0,
        socket_timeout=seconds,
        socket_keepalive=True,
    )
