"""What waits in the broker, read from Redis' own lists.

kombu keeps one list for each priority step of a queue: ``NAME`` for step 0 and
``NAME\\x06\\x16STEP`` for the others; the oldest message is at the right end. A queue's length is
their sum. Messages that a worker holds stand in the hash ``unacked`` and are part of the backlog.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import redis

from ironbeat.execution.rq_carrier import carries, list_key

PRIORITY_STEPS = (0, 3, 6, 9)
SEPARATOR = "\x06\x16"
UNACKED_INDEX = "unacked_index"
# Where the transport puts what no worker can read.
UNREADABLE = "ironbeat.unreadable"
# So many messages are opened at most for one look at a queue.
OPENED_AT_MOST = 200


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message in the broker. ``age_seconds`` is ``None`` for one that does not tell its age."""

    id: str
    task: str
    priority: int
    age_seconds: float | None
    schedule: str | None = None
    argsrepr: str | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue: its length, by priority step, and the message that has waited longest."""

    name: str
    length: int
    by_priority: Mapping[int, int]
    oldest: Waiting | None

    @property
    def oldest_age_seconds(self) -> float | None:
        """The age of the message that has waited longest."""
        return self.oldest.age_seconds if self.oldest else None


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker's own state. ``max_memory_mb`` 0 means no ceiling.

    ``unacked``: messages that workers hold. ``unreadable``: those that were put aside because no
    worker could make sense of them.
    """

    version: str
    used_memory_mb: float
    max_memory_mb: float
    policy: str
    append_only: bool
    clients: int
    unacked: int
    unreadable: int


def key(queue: str, step: int) -> str:
    """The Redis key of the messages of ``queue`` at a priority step; RQ has no steps."""
    if carries(queue):
        queue = list_key(queue)
    return f"{queue}{SEPARATOR}{step}" if step else queue


def read_queues(client: redis.Redis, names: Iterable[str]) -> tuple[Queue, ...]:
    """Length and oldest message of each named queue, in one round trip.

    Steps are the numbers that the messages were sent with: the lower goes first.
    """
    wanted = list(dict.fromkeys(names))
    pipe = client.pipeline(transaction=False)
    for name in wanted:
        for step in PRIORITY_STEPS:
            pipe.llen(key(name, step))
            pipe.lindex(key(name, step), -1)
    answers = iter(pipe.execute())
    now = datetime.now(UTC)
    found = []
    for name in wanted:
        by_priority: dict[int, int] = {}
        oldest: Waiting | None = None
        for step in PRIORITY_STEPS:
            by_priority[step] = int(next(answers))
            raw = next(answers)
            if raw is not None:
                oldest = _older(oldest, opened(raw, step, now))
        found.append(Queue(name, sum(by_priority.values()), by_priority, oldest))
    return tuple(found)


def next_messages(client: redis.Redis, queue: str, limit: int = 20) -> tuple[Waiting, ...]:
    """The messages of ``queue`` that are next in line, at most ``limit`` (and at most 200)."""
    limit = max(0, min(limit, OPENED_AT_MOST))
    if not limit:
        return ()
    pipe = client.pipeline(transaction=False)
    for step in PRIORITY_STEPS:
        pipe.lrange(key(queue, step), -limit, -1)
    now = datetime.now(UTC)
    found: list[Waiting] = []
    for step, raws in zip(PRIORITY_STEPS, pipe.execute(), strict=True):
        found.extend(opened(raw, step, now) for raw in reversed(raws))
    return tuple(found[:limit])


def read_broker(client: redis.Redis) -> Broker:
    """The broker's own state."""
    pipe = client.pipeline(transaction=False)
    pipe.info()
    pipe.zcard(UNACKED_INDEX)
    pipe.llen(UNREADABLE)
    info, unacked, unreadable = cast("tuple[Mapping[str, Any], int, int]", tuple(pipe.execute()))
    return Broker(
        version=str(info.get("valkey_version") or info.get("redis_version") or ""),
        used_memory_mb=info.get("used_memory", 0) / 1e6,
        max_memory_mb=info.get("maxmemory", 0) / 1e6,
        policy=str(info.get("maxmemory_policy", "")),
        append_only=bool(info.get("aof_enabled", 0)),
        clients=int(info.get("connected_clients", 0)),
        unacked=int(unacked),
        unreadable=int(unreadable),
    )


def opened(raw: bytes | str, priority: int, now: datetime) -> Waiting:
    """What a message says of itself; a message of another making says less."""
    try:
        message = json.loads(raw)
        headers = message.get("headers") or {}
        own = headers.get("ironbeat") or {}
        sent = datetime.fromisoformat(own["created_at"]) if own.get("created_at") else None
        eta = datetime.fromisoformat(headers["eta"]) if headers.get("eta") else None
    except (ValueError, TypeError, AttributeError):
        return Waiting("", "", priority, None)
    # A message that was sent for later waits from then on.
    since = max((t for t in (sent, eta) if t is not None and t.tzinfo is not None), default=None)
    return Waiting(
        id=str(headers.get("id", "")),
        task=str(headers.get("task", "")),
        priority=priority,
        age_seconds=None if since is None else max(0.0, (now - since).total_seconds()),
        schedule=own.get("schedule"),
        argsrepr=headers.get("argsrepr"),
    )


def _older(one: Waiting | None, other: Waiting) -> Waiting:
    if one is None:
        return other
    if other.age_seconds is None or (one.age_seconds or 0.0) >= other.age_seconds:
        return one
    return other
