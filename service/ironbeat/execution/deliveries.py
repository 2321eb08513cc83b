"""Deliveries in Redis: what a worker has taken and not yet acknowledged.

kombu's layout is kept, so that its own producers, consumers and tools work beside ours: messages
wait in one list for each priority step of a queue; what was taken stands in the hash ``unacked``
(``tag -> [message, exchange, routing key]``) and in the sorted set ``unacked_index`` (by time).
Ours differ in their tags: ``LEASE.FETCH.NUMBER``, unique for each delivery, beginning with the
lease of the worker that holds it. So a dead worker's deliveries are known by name, and can be put
back at once, all of them and no others.

Every function takes a client and may be called by any process; each batch is one atomic step and
repeating it is harmless. Times are the Redis server's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from typing import Any, cast

import redis

# Lua cannot unpack much more than this into one command, and no other client should wait longer.
BATCH = 500

_LEASED = re.compile(rb"^[0-9a-f]{32}\.")


def lua(name: str) -> str:
    """The text of one of this package's scripts."""
    return files("ironbeat.execution").joinpath("lua", f"{name}.lua").read_text()


PUT_BACK = lua("put_back")
RENEW = lua("renew")


@dataclass(frozen=True, slots=True)
class Layout:
    """The names kombu uses in one Redis database (its transport options of the same names)."""

    prefix: str = ""
    unacked: str = "unacked"
    unacked_index: str = "unacked_index"
    separator: str = "\x06\x16"
    priority_steps: tuple[int, ...] = (0, 3, 6, 9)

    @property
    def unacked_key(self) -> str:
        """The hash of unacknowledged messages."""
        return self.prefix + self.unacked

    @property
    def index_key(self) -> str:
        """The sorted set of their tags, by the time they were taken or last renewed."""
        return self.prefix + self.unacked_index

    def list_key(self, queue: str, priority: int) -> str:
        """The list in which messages of ``queue`` with ``priority`` wait."""
        step = max((s for s in self.priority_steps if s <= priority), default=0)
        return f"{self.prefix}{queue}{self.separator}{step}" if step else self.prefix + queue


DEFAULT_LAYOUT = Layout()


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits, by queue and priority step, and what workers hold.

    ``oldest_unacked_seconds`` is how long ago the longest held delivery was taken or renewed.
    """

    waiting: dict[str, dict[int, int]]
    unacked: int
    oldest_unacked_seconds: float | None

    @property
    def total_waiting(self) -> int:
        """Messages in all lists."""
        return sum(sum(steps.values()) for steps in self.waiting.values())


def is_leased(tag: bytes) -> bool:
    """Whether a worker with a lease holds this delivery, and so renews it."""
    return _LEASED.match(tag) is not None


def restore(client: redis.Redis, lease_id: str, layout: Layout = DEFAULT_LAYOUT) -> int:
    """Put back everything that the worker with this lease held; returns how many messages.

    They come first in their queues, in their old order, marked ``redelivered``. Whoever is sure
    that the worker is dead may call it, any number of times and together with others.
    """
    found = [
        tag
        for tag, _ in client.zscan_iter(layout.index_key, match=f"{lease_id}.*", count=1000)
        if is_leased(tag)
    ]
    return put_back(client, found, layout)


def restore_overdue(
    client: redis.Redis,
    leased_seconds: float,
    foreign_seconds: float,
    layout: Layout = DEFAULT_LAYOUT,
    foreign: Callable[[bytes], None] | None = None,
) -> int:
    """Put back leased deliveries not renewed for ``leased_seconds``; returns how many.

    Consumers without a lease (kombu's own) renew nothing. Theirs become due after
    ``foreign_seconds`` and are handed to ``foreign``, since only kombu knows how to route them.
    """
    seconds, micros = client.time()
    now = seconds + micros / 1e6
    ceiling = now - leased_seconds
    moved = skipped = 0
    while True:
        page = cast(
            "list[tuple[bytes, float]]",
            client.zrange(
                layout.index_key,
                cast("int", "-inf"),
                cast("int", ceiling),
                byscore=True,
                offset=skipped,
                num=BATCH,
                withscores=True,
            ),
        )
        if not page:
            return moved
        ours = [tag for tag, _ in page if is_leased(tag)]
        for tag, score in page:
            if not is_leased(tag):
                if foreign is not None and score <= now - foreign_seconds:
                    foreign(tag)
                skipped += 1
        done = put_back(client, ours, layout, not_after=ceiling)
        # What was renewed meanwhile has left the range; what is unreadable has not.
        moved += done
        skipped += len(ours) - done


def put_back(
    client: redis.Redis,
    tags: Iterable[bytes | str],
    layout: Layout = DEFAULT_LAYOUT,
    *,
    not_after: float | None = None,
    last: bool = False,
) -> int:
    """Put these leased deliveries back into their queues as ``redelivered``; returns how many.

    ``not_after``: only those last renewed at that time or earlier. ``last``: behind all that waits
    instead of before it. Deliveries that are acknowledged or elsewhere by now are left alone.
    """
    script = client.register_script(PUT_BACK)
    ceiling = "" if not_after is None else repr(not_after)
    moved = 0
    # The latest first: each is pushed before the ones already there.
    ordered = sorted((_text(tag) for tag in tags), key=_age, reverse=not last)
    for batch in _batches(ordered):
        records = cast("list[bytes | None]", client.hmget(layout.unacked_key, batch))
        keys: dict[str, int] = {}
        arguments: list[Any] = [ceiling, "LPUSH" if last else "RPUSH"]
        for tag, record in zip(batch, records, strict=True):
            if record is not None:
                key, message = _redelivered(record, layout)
                arguments += (tag, keys.setdefault(key, len(keys)), message)
        if keys:
            moved += script(keys=[layout.unacked_key, layout.index_key, *keys], args=arguments)
    return moved


def acknowledge(client: redis.Redis, tags: Sequence[str], layout: Layout = DEFAULT_LAYOUT) -> None:
    """Forget these deliveries: they are done."""
    for batch in _batches(tags):
        pipe = client.pipeline()
        pipe.hdel(layout.unacked_key, *batch)
        pipe.zrem(layout.index_key, *batch)
        pipe.execute()


def renew(client: redis.Redis, tags: Iterable[str], layout: Layout = DEFAULT_LAYOUT) -> int:
    """Note that a living worker holds these deliveries; returns how many are still held.

    The worker names them itself rather than by its lease: a record that it does not know of (its
    acknowledgement was lost when Redis restarted) shall become overdue.
    """
    script = client.register_script(RENEW)
    return sum(script(keys=[layout.index_key], args=batch) for batch in _batches(tags))


def backlog(client: redis.Redis, queues: Iterable[str], layout: Layout = DEFAULT_LAYOUT) -> Backlog:
    """Lengths of these queues, by priority step, and how much is held, in one round trip."""
    names = list(dict.fromkeys(queues))
    pipe = client.pipeline(transaction=False)
    for name in names:
        for step in layout.priority_steps:
            pipe.llen(layout.list_key(name, step))
    pipe.hlen(layout.unacked_key)
    pipe.zrange(layout.index_key, 0, 0, withscores=True)
    pipe.time()
    *lengths, unacked, oldest, (seconds, micros) = pipe.execute()
    per_queue = len(layout.priority_steps)
    return Backlog(
        waiting={
            name: dict(
                zip(
                    layout.priority_steps, lengths[i * per_queue : (i + 1) * per_queue], strict=True
                )
            )
            for i, name in enumerate(names)
        },
        unacked=unacked,
        oldest_unacked_seconds=seconds + micros / 1e6 - oldest[0][1] if oldest else None,
    )


def _redelivered(record: bytes, layout: Layout) -> tuple[str, bytes | str]:
    """The list an unacked record goes back to, and what to put there."""
    head, queue = _split(record)
    try:
        message = json.loads(head)
        priority = message["properties"].get("priority")
        message["headers"]["redelivered"] = True
        message["properties"]["delivery_info"]["redelivered"] = True
    except (ValueError, TypeError, KeyError, AttributeError):
        # Not a message of kombu's: back as it was.
        return layout.list_key(queue, 0), head
    return layout.list_key(queue, _priority(priority)), json.dumps(message)


def _split(record: bytes) -> tuple[bytes, str]:
    """The message and the queue of a record ``[MESSAGE,"","QUEUE"]``."""
    start = record.rindex(b',"",')
    return record[1:start], json.loads(record[start + 4 : -1])


def _priority(value: Any) -> int:
    # As kombu reads it: 0 to 9, anything else is 0.
    try:
        return max(min(int(value), 9), 0)
    except (TypeError, ValueError):
        return 0


def _text(tag: bytes | str) -> str:
    return tag.decode() if isinstance(tag, bytes) else tag


def _age(tag: str) -> tuple[int, int]:
    _, fetch, number = tag.rsplit(".", 2)
    return int(fetch), int(number)


def _batches(items: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def take_out(
    client: redis.Redis, queue: str, ids: Sequence[str], layout: Layout = DEFAULT_LAYOUT
) -> int:
    """Take the messages of these runs out of a queue where they still wait; returns how many."""
    wanted, taken = frozenset(ids), 0
    for step in layout.priority_steps:
        key = layout.list_key(queue, step)
        waiting = cast("list[bytes]", client.lrange(key, 0, -1))
        found = [raw for raw in waiting if _run_of(raw) in wanted]
        for start in range(0, len(found), BATCH):
            pipe = client.pipeline(transaction=False)
            for raw in found[start : start + BATCH]:
                pipe.lrem(key, 1, cast("str", raw))
            taken += sum(int(number) for number in pipe.execute())
    return taken


def _run_of(raw: bytes) -> str | None:
    try:
        return cast("str | None", json.loads(raw)["headers"]["id"])
    except (ValueError, KeyError, TypeError):
        return None


def held(client: redis.Redis, *, limit: int, layout: Layout = DEFAULT_LAYOUT) -> list[str]:
    """The ids of up to ``limit`` runs whose messages workers have taken and not acknowledged."""
    found: list[str] = []
    for _, raw in islice(client.hscan_iter(layout.unacked_key, count=500), limit):
        try:
            found.append(json.loads(raw)[0]["headers"]["id"])
        except (ValueError, KeyError, TypeError, IndexError):
            continue
    return found
