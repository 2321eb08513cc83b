"""How much may wait: caps that submitters hear of, and a broker that is never filled up.

Two bounds, both looked at before a message goes out:

* A **cap** belongs to a queue (``Queue.max_length``, or the setting ``queue_limits``). Beyond that
  many waiting runs, in the broker and in the ledger's outbox, submissions raise :class:`QueueFull`
  and nothing is written. Retries, the next step of a chain and what schedules fire are no new
  submissions: they always pass.
* The **mark** (settings ``broker_backlog`` and ``broker_memory_percent``) bounds what stands in
  Redis' memory, not what may be submitted. Runs beyond it wait in the ledger, on disk, and a beat
  publishes them as the queue drains: so a million runs at once, or arguments of a megabyte, do not
  fill the broker. Submitters stop at half the mark, so that what waits in the ledger goes first.

Both hold for RQ's side of a queue (``rq:NAME``) as well, counted by itself; a cap of its own may be
named for it.

Looking costs a round trip, so it is not done for each message: a look allows an eighth of the room
that is left, for at most a second. The bounds are therefore exact where they are nearly reached,
and never exceeded by more than an eighth of the room for each submitting process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from ironbeat.execution.deliveries import DEFAULT_LAYOUT, Layout
from ironbeat.execution.rq_carrier import carries, list_key, own_name
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import LedgerUnavailable

BROKER_ERRORS: tuple[type[BaseException], ...] = (OperationalError, RedisError, OSError)

LOOK_SECONDS = 1.0
SHARE = 8
# What a message takes in Redis beside its arguments: headers, envelope, the list's own.
MESSAGE_BYTES = 1800
MEGABYTE = 2**20

_OUTBOX = """
SELECT count(*) FROM (
    SELECT FROM ironbeat.runs
    WHERE queue = %(queue)s AND publish_at <= statement_timestamp()
    LIMIT %(most)s) AS counted
"""
_WITHOUT_BROKER = """
SELECT count(*) FROM (
    SELECT FROM ironbeat.runs
    WHERE queue = %(queue)s AND state IN ('pending', 'published', 'retrying')
    LIMIT %(most)s) AS counted
"""


class QueueFull(Exception):
    """A queue holds as many waiting runs as it may; nothing of this submission was written.

    ``submitted`` are the ids of what the same call had submitted before (``submit_many``).
    """

    def __init__(self, queue: str, waiting: int, limit: int, asked: int = 1) -> None:
        self.queue = queue
        self.waiting = waiting
        self.limit = limit
        self.submitted: list[str] = []
        what = "one more" if asked == 1 else f"{asked} more"
        super().__init__(
            f"queue {queue!r} is full: {waiting} runs wait, {limit} may, and {what} were to come. "
            "Try again when it has drained; the setting queue_limits, or max_length of the queue, "
            "changes the limit."
        )


class Broker(Protocol):
    """What is asked of Redis: a client of redis-py."""

    def pipeline(self, transaction: bool = ...) -> Any:
        """A pipeline of commands."""
        ...


@dataclass(slots=True)
class _Allowance:
    """What may still go out before the next look."""

    messages: float = 0.0
    bytes: float = 0.0
    until: float = 0.0

    def take(self, messages: int, size: int) -> bool:
        """Whether that much was left; it is gone then."""
        if time.monotonic() > self.until or self.messages < messages or self.bytes < size:
            return False
        self.messages -= messages
        self.bytes -= size
        return True


@dataclass(frozen=True, slots=True)
class Marks:
    """Bounds of what stands in Redis: messages of one queue, and memory in all.

    ``percent`` is of Redis' own ``maxmemory``, or of ``memory_mb`` where it has none. 0: no bound.
    """

    messages: int = 100_000
    percent: int = 70
    memory_mb: int = 2048


@dataclass
class Capacity:
    """The bounds of one application; safe to use from any thread, and after a fork.

    ``caps`` are by queue, 0 for none; ``connect`` makes a client of the broker, ``None`` where
    there is none.
    """

    caps: Mapping[str, int]
    marks: Marks
    ledger: Ledger
    connect: Callable[[], Broker] | None
    layout: Layout = DEFAULT_LAYOUT
    _admitted: dict[str, _Allowance] = field(default_factory=dict)
    _published: dict[str, _Allowance] = field(default_factory=dict)
    _client: Broker | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, queue: str, number: int = 1) -> None:
        """Let ``number`` runs be submitted to a queue, or raise :class:`QueueFull`.

        Where neither store answers there is nothing to count, and nothing to be submitted to.
        """
        limit = self.caps.get(queue, self.caps.get(own_name(queue)))
        if not limit:
            return
        with self._lock:
            allowance = self._admitted.setdefault(queue, _Allowance())
            if allowance.take(number, 0):
                return
            waiting = self._waiting(queue, limit + 1)
            if waiting is None:
                return
            room = limit - waiting
            if room < number:
                raise QueueFull(queue, waiting, limit, number)
            allowance.messages = max(number, room // SHARE)
            allowance.until = time.monotonic() + LOOK_SECONDS
            allowance.take(number, 0)

    def may_publish(self, queue: str, number: int, size: int) -> bool:
        """Whether a submitter may hand ``number`` messages of ``size`` bytes in all to the broker.

        ``False``: they wait in the ledger. Raises the broker's errors.
        """
        if self.connect is None:
            return True
        size += number * MESSAGE_BYTES
        with self._lock:
            allowance = self._published.setdefault(queue, _Allowance())
            if allowance.take(number, size):
                return True
            lengths, memory = self._look([queue])
            # At half the mark: what waits in the ledger already goes first.
            half = self.marks.messages / 2
            messages = half - lengths[queue] if half else float("inf")
            if messages < number or memory < size:
                return False
            allowance.messages = max(number, messages // SHARE)
            allowance.bytes = max(size, memory // SHARE)
            allowance.until = time.monotonic() + LOOK_SECONDS
            return allowance.take(number, size)

    def room(self, queues: list[str]) -> dict[str, int] | None:
        """How many messages of each queue the outbox may publish now; ``None``: any number.

        Raises the broker's errors.
        """
        if self.connect is None or not queues:
            return None
        lengths, memory = self._look(queues)
        if memory <= 0:
            return dict.fromkeys(queues, 0)
        if not self.marks.messages:
            return None
        return {q: max(0, self.marks.messages - lengths[q]) for q in queues}

    # -- looking -----------------------------------------------------------------------------------

    def _waiting(self, queue: str, most: int) -> int | None:
        """How many runs wait in a queue, counted up to ``most``."""
        sql = _WITHOUT_BROKER
        length = 0
        if self.connect is not None:
            try:
                length = self._look([queue])[0][queue]
                sql = _OUTBOX
            except BROKER_ERRORS:
                sql = _WITHOUT_BROKER
        if length >= most:
            return length
        try:
            return length + self.ledger.within(
                lambda c: (
                    c.execute(sql, {"queue": queue, "most": most - length}).fetchone() or (0,)
                )[0]
            )
        except LedgerUnavailable:
            return length if sql is _OUTBOX else None

    def _look(self, queues: list[str]) -> tuple[dict[str, int], float]:
        """The lengths of queues, and how many bytes the broker may still take."""
        assert self.connect is not None
        if self._client is not None:
            try:
                return self._ask(self._client, queues)
            except RedisTimeout:
                self._client = None
                raise
            except BROKER_ERRORS:
                # Its connection may have died while it lay there; a new one is worth a try.
                self._client = None
        client = self.connect()
        found = self._ask(client, queues)
        self._client = client
        return found

    def _ask(self, client: Broker, queues: list[str]) -> tuple[dict[str, int], float]:
        pipe = client.pipeline(transaction=False)
        lists = [(queue, key) for queue in queues for key in self._lists(queue)]
        for _, key in lists:
            pipe.llen(key)
        pipe.info("memory")
        *counts, memory = pipe.execute()
        lengths = dict.fromkeys(queues, 0)
        for (queue, _), count in zip(lists, counts, strict=True):
            lengths[queue] += count
        if not self.marks.percent:
            return lengths, float("inf")
        whole = memory.get("maxmemory") or self.marks.memory_mb * MEGABYTE
        return lengths, whole * self.marks.percent / 100 - memory.get("used_memory", 0)

    def _lists(self, queue: str) -> list[str]:
        """The lists of Redis in which messages of a queue wait."""
        if carries(queue):
            return [list_key(queue)]
        return [self.layout.list_key(queue, step) for step in self.layout.priority_steps]
