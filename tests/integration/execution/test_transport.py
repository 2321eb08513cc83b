"""The transport, as kombu's consumers and producers meet it."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import celery
import kombu
import pytest
import redis
from consumers import application, consuming, drain, queued, send

from ironbeat.execution import custody as custody_module
from ironbeat.execution import deliveries
from ironbeat.execution.custody import Consumption, Custody, Delivery, DeliveryHooks
from ironbeat.execution.transport import PATIENCE, UNREADABLE_KEY, Channel

#: What waits behind a task for longer than this is given back; and how late that is.
LATE_SECONDS = 1.6 * PATIENCE * Channel.batch_seconds
#: As many messages are taken before anybody looks at what they weigh.
HEAVY_LIMIT = 64


def the_custody() -> Custody:
    (found,) = custody_module.custodies()
    return found


def held(client: redis.Redis) -> list[str]:
    """The ids of the messages recorded as unacknowledged."""
    assert client.hlen("unacked") == client.zcard("unacked_index")
    return [json.loads(record)[0]["headers"]["id"] for record in client.hvals("unacked")]


# -- taking and acknowledging ------------------------------------------------------------------


def test_everything_arrives_once_and_nothing_stays(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    consumption.inline = True
    sent = []
    for queue in ("default", "other"):
        for priority in (0, 3, 6, 9):
            some = [f"{queue}-{priority}-{n}" for n in range(60)]
            send(app, *some, queue=queue, priority=priority)
            sent += some
    arrived: list[str] = []

    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        message.ack()

    with consuming(app, take, "default", "other") as connection:
        drain(connection, lambda: len(arrived) == len(sent))
        drain(connection, lambda: not client.hlen("unacked"))

    assert Counter(arrived) == Counter(sent)
    assert client.zcard("unacked_index") == 0


def test_a_message_is_recorded_before_anybody_sees_it(
    app: celery.Celery, client: redis.Redis
) -> None:
    send(app, "one")
    seen: list[list[str]] = []

    def take(message: Any) -> None:
        seen.append(held(client))
        message.ack()

    with consuming(app, take) as connection:
        drain(connection, lambda: bool(seen))
    assert seen == [["one"]]
    assert held(client) == []


def test_the_tag_names_the_lease(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    send(app, "one")
    messages: list[Any] = []
    with consuming(app, messages.append) as connection:
        drain(connection, lambda: bool(messages))
        assert messages[0].delivery_tag.startswith(f"{consumption.lease}.")
        assert client.hkeys("unacked") == [messages[0].delivery_tag.encode()]


def test_priorities_first_then_order_of_arrival(
    app: celery.Celery, consumption: Consumption
) -> None:
    consumption.inline = True
    for priority in (9, 6, 3, 0):
        send(app, *(f"{priority}-{n}" for n in range(20)), priority=priority)
    arrived: list[str] = []

    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        message.ack()

    with consuming(app, take) as connection:
        drain(connection, lambda: len(arrived) == 80)
    assert arrived == [f"{p}-{n}" for p in (0, 3, 6, 9) for n in range(20)]


def test_prefetch_bounds_what_a_worker_that_does_not_run_inline_holds(
    app: celery.Celery, client: redis.Redis
) -> None:
    send(app, *(f"{n}" for n in range(20)))
    messages: list[Any] = []
    with consuming(app, messages.append, prefetch=3) as connection:
        drain(connection, lambda: len(messages) == 3)
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.3)
        assert len(messages) == 3
        assert len(held(client)) == 3
        messages[0].ack()
        drain(connection, lambda: len(messages) == 4)
        assert len(queued(client)) == 16


def test_messages_that_stay_are_bounded_by_prefetch_inline_too(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    consumption.inline = True
    send(app, *(f"{n}" for n in range(400)))
    kept: list[Any] = []

    def take(message: Any) -> None:
        # Acknowledges until batches have grown, then keeps everything, as with an ETA.
        if int(message.headers["id"]) < 200:
            message.ack()
        else:
            kept.append(message)

    with consuming(app, take, prefetch=2) as connection:
        drain(connection, lambda: len(kept) == 2)
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.3)
        assert [m.headers["id"] for m in kept] == ["200", "201"]
        assert sorted(held(client)) == ["200", "201"]
        assert queued(client) == [f"{n}" for n in range(202, 400)]


def test_a_rejected_message_goes_or_returns_behind_the_others(
    app: celery.Celery, client: redis.Redis
) -> None:
    send(app, "drop", "again", "next")
    arrived: list[tuple[str, bool]] = []

    def take(message: Any) -> None:
        id = message.headers["id"]
        redelivered = message.delivery_info.get("redelivered", False)
        arrived.append((id, redelivered))
        if id == "drop":
            message.reject()
        elif id == "again" and not redelivered:
            message.requeue()
        else:
            message.ack()

    with consuming(app, take) as connection:
        drain(connection, lambda: len(arrived) == 4)
    assert arrived == [("drop", False), ("again", False), ("next", False), ("again", True)]
    assert held(client) == []


def test_a_consumer_that_acknowledges_nothing_leaves_nothing(
    app: celery.Celery, client: redis.Redis
) -> None:
    send(app, "one", "two")
    messages: list[Any] = []
    with consuming(app, messages.append, no_ack=True) as connection:
        drain(connection, lambda: len(messages) == 2)
    assert client.exists("unacked", "unacked_index", "default") == 0


def test_something_that_is_no_message_is_put_aside(app: celery.Celery, client: redis.Redis) -> None:
    client.lpush("default", b"\xff not json", b"[]", b'{"body": 1}')
    send(app, "good")
    arrived: list[str] = []

    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        message.ack()

    with consuming(app, take) as connection:
        drain(connection, lambda: arrived == ["good"])
    assert client.lrange(UNREADABLE_KEY, 0, -1) == [b'{"body": 1}', b"[]", b"\xff not json"]
    assert held(client) == []


# -- waking up -----------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", ["default", "other", "third"])
def test_an_idle_consumer_wakes_at_once_for_every_list(
    app: celery.Celery, client: redis.Redis, queue: str
) -> None:
    """Every priority of every queue, in under 50 ms and without asking."""
    arrived: list[float] = []
    stop = threading.Event()

    def take(message: Any) -> None:
        arrived.append(time.monotonic())
        message.ack()

    def consume() -> None:
        with consuming(app, take, "default", "other", "third") as connection:
            while not stop.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.5)

    send(app, "envelope", queue="template")
    envelope = client.lindex("template", 0)
    thread = threading.Thread(target=consume)
    thread.start()
    try:
        time.sleep(0.5)
        late = []
        for step in (0, 3, 6, 9) * 3:
            time.sleep(0.1)
            before = len(arrived)
            sent = time.monotonic()
            client.lpush(f"{queue}\x06\x16{step}" if step else queue, envelope)
            while len(arrived) == before and time.monotonic() - sent < 2:
                time.sleep(0.001)
            assert len(arrived) == before + 1
            late.append(arrived[-1] - sent)
        # Single ones may wait for a busy machine.
        assert statistics.median(late) < 0.05
    finally:
        stop.set()
        thread.join()


def test_an_idle_consumer_hardly_speaks_to_the_broker(
    app: celery.Celery, client: redis.Redis
) -> None:
    with consuming(app, lambda message: None, "default", "other") as connection:
        with suppress(TimeoutError):
            connection.drain_events(timeout=1.0)
        before = client.info("stats")["total_commands_processed"]
        with suppress(TimeoutError):
            connection.drain_events(timeout=3.0)
        spoken = client.info("stats")["total_commands_processed"] - before
    # One is this test's own. A consumer of kombu's says BRPOP each second.
    assert spoken <= 3


def test_a_queue_added_later_wakes_the_consumer_too(
    app: celery.Celery, client: redis.Redis
) -> None:
    arrived: list[str] = []

    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        message.ack()

    with consuming(app, take) as connection:
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.3)
        added = kombu.Consumer(
            connection.default_channel,
            queues=[kombu.Queue("late", routing_key="late")],
            on_message=take,
        )
        added.consume()
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.3)
        send(app, "one", queue="late")
        began = time.monotonic()
        drain(connection, lambda: arrived == ["one"])
        assert time.monotonic() - began < 1


# -- beside kombu's own --------------------------------------------------------------------------


def test_kombu_s_own_producer_and_consumer_understand_ours(
    app: celery.Celery, stock: celery.Celery
) -> None:
    for producer, consumer in ((stock, app), (app, stock)):
        send(producer, "low", priority=9)
        send(producer, "high", priority=3)
        arrived: list[str] = []

        def take(message: Any, arrived: list[str] = arrived) -> None:
            arrived.append(message.headers["id"])
            message.ack()

        with consuming(consumer, take) as connection:
            drain(connection, lambda arrived=arrived: len(arrived) == 2)
        assert arrived == ["high", "low"]


def test_kombu_s_own_restoration_returns_what_we_hold(
    app: celery.Celery, stock: celery.Celery, client: redis.Redis
) -> None:
    send(app, "one", priority=6)
    messages: list[Any] = []
    with consuming(app, messages.append) as connection:
        drain(connection, lambda: bool(messages))
        with stock.connection_for_read() as other:
            other.default_channel.qos.restore_by_tag(messages[0].delivery_tag)
        assert queued(client, "default\x06\x166") == ["one"]
        assert held(client) == []


def test_we_return_what_a_lost_consumer_of_kombu_held(
    stock: celery.Celery, broker: str, client: redis.Redis
) -> None:
    ours = application(broker, visibility_timeout=1, lease_timeout=1, unacked_restore_interval=0.2)
    send(ours, "one")
    lost: list[Any] = []
    other = consuming(stock, lost.append)
    with other as connection:
        drain(connection, lambda: bool(lost))
        arrived: list[str] = []

        def take(message: Any) -> None:
            arrived.append(message.headers["id"])
            message.ack()

        with consuming(ours, take) as own:
            drain(own, lambda: arrived == ["one"])


def test_the_key_prefix_is_honoured(broker: str, client: redis.Redis) -> None:
    ours = application(broker, global_keyprefix="shop:")
    theirs = application(broker, ours=False, global_keyprefix="shop:")
    send(theirs, "one", priority=3)
    assert client.llen("shop:default\x06\x163") == 1
    messages: list[Any] = []
    with consuming(ours, messages.append) as connection:
        drain(connection, lambda: bool(messages))
        assert client.hlen("shop:unacked") == 1
        # Woken by prefixed lists too.
        messages[0].ack()
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.3)
        assert client.hlen("shop:unacked") == 0
        began = time.monotonic()
        send(theirs, "two")
        drain(connection, lambda: len(messages) == 2)
        assert time.monotonic() - began < 1
    assert queued(client, "shop:default") == ["two"]
    assert not [key for key in client.keys("*") if not key.startswith(b"shop:")]


def test_other_users_of_kombu_in_the_process_keep_theirs(
    app: celery.Celery, stock: celery.Celery, broker: str
) -> None:
    def module(connection: Any) -> str:
        with connection:
            return type(connection.default_channel).__module__

    assert module(app.connection_for_read()) == "ironbeat.execution.transport"
    assert module(app.connection_for_read().clone()) == "ironbeat.execution.transport"
    assert module(stock.connection_for_read()) == "kombu.transport.redis"
    assert module(kombu.Connection(broker)) == "kombu.transport.redis"
    assert app.connection_for_read().as_uri(include_password=True).startswith("redis://")


# -- giving back ---------------------------------------------------------------------------------


class Notes(DeliveryHooks):
    """Writes down what it is told, and refuses when told to."""

    def __init__(self) -> None:
        self.batches: list[list[str | None]] = []
        self.given_back: list[list[str]] = []
        self.flushed = 0
        self.refusing = False

    def on_batch(self, batch: Sequence[Delivery]) -> None:
        self.batches.append([delivery.id for delivery in batch])

    def before_ack(self) -> None:
        self._refuse()
        self.flushed += 1

    def on_give_back(self, ids: Sequence[str]) -> None:
        self._refuse()
        self.given_back.append(list(ids))

    def _refuse(self) -> None:
        if self.refusing:
            raise ConnectionRefusedError("the ledger is away")


def slow_at(slow: str, arrived: list[str], while_slow: Callable[[], None]) -> Callable[[Any], None]:
    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        if message.headers["id"] == slow:
            while_slow()
        message.ack()

    return take


def test_what_waits_behind_a_slow_task_is_given_back(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    consumption.inline = True
    notes = consumption.hooks = Notes()
    send(app, *(f"{n}" for n in range(300)))
    arrived: list[str] = []
    found: list[Any] = []

    def while_slow() -> None:
        time.sleep(LATE_SECONDS)
        the_custody().relieve()
        found.append(queued(client))
        found.append(held(client))

    with consuming(app, slow_at("150", arrived, while_slow)) as connection:
        drain(connection, lambda: len(arrived) == 300)

    assert found[0] == [f"{n}" for n in range(151, 300)]
    assert found[1] == ["150"]
    assert arrived == [f"{n}" for n in range(300)]
    assert [id for ids in notes.given_back for id in ids] == [
        id for batch in notes.batches for id in batch if "150" in batch and int(id or 0) > 150
    ]


def test_heavy_messages_are_not_taken_by_the_hundred(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    """What a batch weighs is bounded, however quick its tasks are."""
    consumption.inline = True
    notes = consumption.hooks = Notes()
    send(app, *(f"{n}" for n in range(600)))
    arrived: list[str] = []

    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        message.ack()

    with consuming(app, take) as connection:
        drain(connection, lambda: len(arrived) == 600)
        light = max(map(len, notes.batches))
        notes.batches.clear()
        send(app, *(f"{n}" for n in range(600, 1000)), padding="x" * 50_000)
        drain(connection, lambda: len(arrived) == 1000)
    assert light > HEAVY_LIMIT
    assert 1 <= max(map(len, notes.batches)) <= HEAVY_LIMIT
    assert arrived == [f"{n}" for n in range(1000)]


def test_the_consuming_thread_gives_back_by_itself_between_tasks(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    consumption.inline = True
    send(app, *(f"{n}" for n in range(300)))
    arrived: list[str] = []
    found: list[list[str]] = []

    def take(message: Any) -> None:
        id = message.headers["id"]
        arrived.append(id)
        if id == "150":
            time.sleep(LATE_SECONDS)
        if id == "151" and not found:
            found.append([each for each in held(client) if each not in arrived])
        message.ack()

    with consuming(app, take) as connection:
        drain(connection, lambda: len(arrived) == 300)
        drain(connection, lambda: held(client) == [])
    # 151 was fetched anew, in a small batch.
    assert len(found[0]) < 10
    assert arrived == [f"{n}" for n in range(300)]


def test_nothing_is_given_back_that_the_ledger_still_claims(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    consumption.inline = True
    notes = consumption.hooks = Notes()
    send(app, *(f"{n}" for n in range(200)))
    arrived: list[str] = []
    waiting: list[int] = []

    def while_slow() -> None:
        time.sleep(LATE_SECONDS)
        before = client.llen("default")
        notes.refusing = True
        the_custody().relieve()
        waiting.append(client.llen("default") - before)
        notes.refusing = False

    with consuming(app, slow_at("150", arrived, while_slow)) as connection:
        drain(connection, lambda: len(arrived) == 200)
    assert waiting == [0]
    assert arrived == [f"{n}" for n in range(200)]


def test_acknowledgements_wait_for_what_they_stand_for(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    notes = consumption.hooks = Notes()
    send(app, "one", "two", "three")
    notes.refusing = True
    arrived: list[str] = []

    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        message.ack()

    with consuming(app, take) as connection:
        drain(connection, lambda: len(arrived) == 3)
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.3)
        assert sorted(held(client)) == ["one", "three", "two"]
        assert len(the_custody().held) == 3, "still to be renewed"
        notes.refusing = False
        drain(connection, lambda: not client.hlen("unacked"))
    assert notes.batches == [["one"], ["two"], ["three"]]
    assert not the_custody().held


def test_a_consumer_that_closes_returns_what_it_did_not_finish(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    notes = consumption.hooks = Notes()
    send(app, "one", "two", "three")
    messages: list[Any] = []
    with consuming(app, messages.append, prefetch=2) as connection:
        drain(connection, lambda: len(messages) == 2)
        messages[0].ack()
    assert queued(client) == ["two", "three"]
    assert client.exists("unacked", "unacked_index") == 0
    assert notes.given_back == [["two"]]


def test_a_task_that_runs_on_keeps_its_delivery_when_the_channel_closes(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    send(app, "runs", "waits")
    messages: list[Any] = []
    consumption.running = lambda: {m.delivery_tag for m in messages if m.headers["id"] == "runs"}
    with consuming(app, messages.append, prefetch=2) as connection:
        drain(connection, lambda: len(messages) == 2)
    assert held(client) == ["runs"]
    assert queued(client) == ["waits"]
    # Acknowledged through a channel that is long closed; the next connection carries it.
    messages[0].ack()
    with consuming(app, lambda message: message.ack()) as connection:
        drain(connection, lambda: not client.llen("default"))
        drain(connection, lambda: not client.hlen("unacked"))


# -- trouble -------------------------------------------------------------------------------------


def test_the_script_is_sent_again_when_the_server_has_forgotten_it(
    app: celery.Celery, client: redis.Redis
) -> None:
    arrived: list[str] = []

    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        message.ack()

    with consuming(app, take) as connection:
        for id in ("one", "two", "three"):
            send(app, id)
            drain(connection, lambda id=id: arrived[-1:] == [id])
            client.script_flush()
    assert held(client) == []


def test_a_broker_that_is_full_can_still_be_emptied(
    app: celery.Celery, client: redis.Redis
) -> None:
    send(app, *(f"{n}" for n in range(50)))
    arrived: list[str] = []

    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        message.ack()

    with consuming(app, take) as connection:
        drain(connection, lambda: len(arrived) >= 1)
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                client.lpush("default", "x")
            drain(connection, lambda: len(arrived) == 50)
            drain(connection, lambda: not client.hlen("unacked"))
        finally:
            client.config_set("maxmemory", before)


def test_what_a_lost_answer_carried_comes_back(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    """The server did what was asked, and the connection broke before it could say so."""
    send(app, "one", "two")
    messages: list[Any] = []
    with consuming(app, messages.append, prefetch=2) as connection:
        channel = connection.default_channel
        connection.transport.cycle.on_poll_start()
        deadline = time.monotonic() + 2
        while client.hlen("unacked") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        channel.client.connection.disconnect()
        assert sorted(held(client)) == ["one", "two"]
        the_custody().renew()
        assert queued(client) == ["one", "two"]
        drain(connection, lambda: len(messages) == 2)


def test_acknowledgements_survive_a_lost_connection(
    app: celery.Celery, client: redis.Redis
) -> None:
    send(app, "one", "two")
    arrived: list[str] = []

    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        message.ack()
        message.channel.client.connection.disconnect()

    with consuming(app, take) as connection:
        drain(connection, lambda: len(arrived) == 2)
        drain(connection, lambda: not client.hlen("unacked"))
    assert arrived == ["one", "two"]


def test_killed_connections_lose_and_repeat_nothing(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    consumption.inline = True
    send(app, *(f"{n}" for n in range(400)))
    arrived: list[str] = []

    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        message.ack()

    def one_connection() -> None:
        with consuming(app, take) as connection:
            while len(arrived) < 400 or client.hlen("unacked"):
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.2)
                if len(arrived) // 60 > kills[0]:
                    kills[0] += 1
                    client.client_kill_filter(_type="normal", skipme=True)

    kills = [0]
    deadline = time.monotonic() + 20
    while (len(arrived) < 400 or client.hlen("unacked")) and time.monotonic() < deadline:
        with suppress(redis.exceptions.ConnectionError, OSError):
            one_connection()
        for custody in custody_module.custodies():
            with suppress(redis.exceptions.ConnectionError):
                custody.renew()
    assert kills[0] >= 4
    assert Counter(arrived) == Counter(f"{n}" for n in range(400))
    assert client.zcard("unacked_index") == 0


def test_nobody_is_declared_lost_right_after_an_outage(broker: str, client: redis.Redis) -> None:
    app = application(broker, lease_timeout=2, unacked_restore_interval=0.1)
    tag = f"{'a' * 32}.0.0"
    send(app, "theirs", queue="elsewhere")
    client.hset("unacked", tag, b"[" + client.rpop("elsewhere") + b',"","default"]')
    client.zadd("unacked_index", {tag: client.time()[0] - 100})
    arrived: list[float] = []
    with consuming(app, lambda message: arrived.append(time.monotonic())) as connection:
        began = time.monotonic()
        drain(connection, lambda: bool(arrived))
    # Its holder had the whole time-out, counted from when this process came, to renew it.
    assert arrived[0] - began > 1.5


def test_what_nobody_renews_comes_back_and_what_is_renewed_does_not(
    broker: str, client: redis.Redis, consumption: Consumption
) -> None:
    app = application(broker, lease_timeout=1, unacked_restore_interval=0.1)
    send(app, "one")
    messages: list[Any] = []
    with consuming(app, messages.append, prefetch=2) as connection:
        drain(connection, lambda: bool(messages))
        until = time.monotonic() + 3
        while time.monotonic() < until:
            the_custody().renew()
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.3)
        assert len(messages) == 1
        drain(connection, lambda: len(messages) == 2)
        assert messages[1].delivery_info["redelivered"]


def test_deliveries_of_a_process_without_a_lease_are_not_taken_for_leased(
    app: celery.Celery, client: redis.Redis, consumption: Consumption
) -> None:
    consumption.lease = None
    send(app, "one")
    messages: list[Any] = []
    with consuming(app, messages.append) as connection:
        drain(connection, lambda: bool(messages))
        (tag,) = client.hkeys("unacked")
        assert not deliveries.is_leased(tag)


def test_queues_take_turns(app: celery.Celery, consumption: Consumption) -> None:
    """A long queue does not keep a short one waiting until it is empty."""
    consumption.inline = True
    send(app, *(f"long-{n}" for n in range(400)), queue="long")
    send(app, *(f"short-{n}" for n in range(5)), queue="short")
    arrived: list[str] = []

    def take(message: Any) -> None:
        arrived.append(message.headers["id"])
        message.ack()

    with consuming(app, take, "long", "short") as connection:
        drain(connection, lambda: len(arrived) == 405)
    assert arrived.index("short-4") < 150
