"""What is recorded in Redis about a worker's deliveries, and how it comes back."""

from __future__ import annotations

import json
import time
from uuid import uuid4

import pytest
import redis

from ironbeat.execution import deliveries
from ironbeat.execution.deliveries import Layout

LAYOUT = Layout()


def message(id: str, priority: int = 0) -> bytes:
    return json.dumps(
        {
            "body": "W10=",
            "headers": {"id": id, "task": "work", "shadow": None, "groups": [], "big": 2**70},
            "properties": {
                "priority": priority,
                "delivery_tag": "theirs",
                "delivery_info": {"exchange": "", "routing_key": "default"},
                "correlation_id": "zażółć",
            },
        }
    ).encode()


def hold(client: redis.Redis, tag: str, raw: bytes, queue: str = "default") -> None:
    record = b"[" + raw + b',"",' + json.dumps(queue).encode() + b"]"
    client.hset("unacked", tag, record)
    client.zadd("unacked_index", {tag: client.time()[0]})


def ids(client: redis.Redis, key: str = "default") -> list[str]:
    return [json.loads(raw)["headers"]["id"] for raw in reversed(client.lrange(key, 0, -1))]


def test_restores_exactly_what_the_dead_worker_held_in_its_order(client: redis.Redis) -> None:
    dead, alive = uuid4().hex, uuid4().hex
    for fetch, number in ((9, 0), (9, 1), (10, 0)):
        hold(client, f"{dead}.{fetch}.{number}", message(f"dead-{fetch}-{number}"))
    hold(client, f"{dead}.11.0", message("urgent", priority=9), queue="default")
    hold(client, f"{alive}.1.0", message("alive"))
    hold(client, "b2d5a5fc-6e5e-4a0f-9a35-0f4e0a8e5b57", message("kombu's"))
    client.lpush("default", message("waiting"))

    assert deliveries.restore(client, dead) == 4

    assert ids(client) == ["dead-9-0", "dead-9-1", "dead-10-0", "waiting"]
    assert ids(client, "default\x06\x169") == ["urgent"]
    assert client.hlen("unacked") == client.zcard("unacked_index") == 2
    assert deliveries.restore(client, dead) == 0
    assert len(ids(client)) == 4


def test_a_restored_message_is_marked_and_otherwise_the_same(client: redis.Redis) -> None:
    lease = uuid4().hex
    original = message("one")
    hold(client, f"{lease}.0.0", original)

    deliveries.restore(client, lease)

    found = json.loads(client.lindex("default", 0))
    assert found["headers"].pop("redelivered") is True
    assert found["properties"]["delivery_info"].pop("redelivered") is True
    assert found == json.loads(original)


def test_hundreds_of_deliveries_come_back_once_and_in_order(client: redis.Redis) -> None:
    lease = uuid4().hex
    expected = [f"{n:04}" for n in range(1234)]
    for n, id in enumerate(expected):
        hold(client, f"{lease}.{n // 64}.{n % 64}", message(id))

    assert deliveries.restore(client, lease) == 1234
    assert ids(client) == expected


def test_something_unreadable_comes_back_as_it_was(client: redis.Redis) -> None:
    lease = uuid4().hex
    hold(client, f"{lease}.0.0", b"not json at all")
    assert deliveries.restore(client, lease) == 1
    assert client.lrange("default", 0, -1) == [b"not json at all"]


def test_renewal_keeps_what_is_held_and_revives_nothing(client: redis.Redis) -> None:
    held, gone = f"{uuid4().hex}.0.0", f"{uuid4().hex}.0.0"
    hold(client, held, message("held"))
    client.zadd("unacked_index", {held: 1})

    assert deliveries.renew(client, [held, gone]) == 1

    assert client.zscore("unacked_index", gone) is None
    assert abs(client.zscore("unacked_index", held) - time.time()) < 5
    assert deliveries.restore_overdue(client, 30, 3600) == 0


def test_only_what_is_overdue_by_its_own_measure_comes_back(client: redis.Redis) -> None:
    now = client.time()[0]
    late, fresh = f"{uuid4().hex}.0.0", f"{uuid4().hex}.0.0"
    for tag in (late, fresh, "kombu-late", "kombu-fresh"):
        hold(client, tag, message(tag))
    client.zadd(
        "unacked_index",
        {late: now - 40, fresh: now - 5, "kombu-late": now - 4000, "kombu-fresh": now - 40},
    )
    foreign: list[bytes] = []

    assert deliveries.restore_overdue(client, 30, 3600, foreign=foreign.append) == 1

    assert ids(client) == [late]
    assert foreign == [b"kombu-late"]


def test_an_owner_that_renews_in_between_keeps_its_delivery(client: redis.Redis) -> None:
    tag = f"{uuid4().hex}.0.0"
    hold(client, tag, message("mine"))
    ceiling = float(client.time()[0] - 30)

    assert deliveries.put_back(client, [tag], not_after=ceiling) == 0
    assert client.hexists("unacked", tag)
    assert deliveries.put_back(client, [tag]) == 1


def test_backlog_counts_by_queue_and_priority(client: redis.Redis) -> None:
    client.lpush("default", b"a", b"b")
    client.lpush("default\x06\x163", b"c")
    client.lpush("other\x06\x169", b"d")
    tag = f"{uuid4().hex}.0.0"
    hold(client, tag, message("held"))
    client.zadd("unacked_index", {tag: client.time()[0] - 12})

    found = deliveries.backlog(client, ["default", "other"])

    assert found.waiting == {
        "default": {0: 2, 3: 1, 6: 0, 9: 0},
        "other": {0: 0, 3: 0, 6: 0, 9: 1},
    }
    assert found.total_waiting == 4
    assert found.unacked == 1
    assert found.oldest_unacked_seconds == pytest.approx(12, abs=2)


def test_keys_carry_the_prefix(client: redis.Redis) -> None:
    layout = Layout(prefix="shop:")
    lease = uuid4().hex
    record = b"[" + message("one", priority=5) + b',"","default"]'
    client.hset("shop:unacked", f"{lease}.0.0", record)
    client.zadd("shop:unacked_index", {f"{lease}.0.0": 1})

    assert deliveries.restore(client, lease, layout) == 1
    assert ids(client, "shop:default\x06\x163") == ["one"]
