"""Messages handed to Redis as they are, many in one step or one alone.

kombu makes each message anew, from its body to its envelope, and even its pipelined producer needs
a quarter of a millisecond for each. The ledger has a message's parts as JSON; here they become
kombu's envelope as they are, and all messages for one list go out with one command. A message
alone goes without what kombu's producer does for each: make a client of Redis, bind the queue,
copy the options.

What is not plain (an exchange of its own, a number that orjson would round, a broker that is no
Redis) goes through kombu's producer.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import orjson
from kombu.transport.redis import Channel as RedisChannel
from kombu.utils.json import loads as kombu_loads

# orjson reads a larger integer as a float.
_LONG_NUMBER = re.compile(r"[:\[,\s]-?\d{19}")
#: How many bytes one command may carry.
COMMAND_BYTES = 4 * 1024 * 1024

#: A client for each channel that publishes; it goes with the channel.
_clients: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def put_one(producer: Any, message: str) -> bool:
    """Publish one message of the ledger, as JSON text, if it is plain; returns whether it is.

    ``producer`` is a kombu producer. Raises the broker's errors.
    """
    channel = producer.channel
    found = _read(message)
    if not _is_plain(channel, found):
        return False
    key, payload = _envelope(channel, found)
    _client(channel).lpush(key, payload)
    return True


def put(producer: Any, messages: Iterable[Mapping[str, Any] | str], *, first: bool = False) -> None:
    """Publish messages of the ledger, as values or as JSON text, in their order.

    ``first``: in front of all that waits, for those that have waited already (what goes through
    kombu's producer goes to the end all the same). ``producer`` is a kombu producer. Raises the
    broker's errors; it may have taken some then.
    """
    channel = producer.channel
    lists: dict[str, list[bytes]] = {}
    others: list[Mapping[str, Any]] = []
    for found in messages:
        message = _read(found)
        if _is_plain(channel, message):
            key, payload = _envelope(channel, message)
            lists.setdefault(key, []).append(payload)
        else:
            others.append(message)
    if lists:
        with channel.conn_or_acquire() as client:
            pipe = client.pipeline(transaction=False)
            for key, payloads in lists.items():
                # Messages are taken from the right.
                for some in _commands(payloads[::-1] if first else payloads):
                    (pipe.rpush if first else pipe.lpush)(key, *some)
            pipe.execute()
    if others:
        _put_by_kombu(producer, others)


def _client(channel: Any) -> Any:
    client = _clients.get(channel)
    # After an error kombu makes a new pool of connections.
    if client is None or client.connection_pool is not channel.pool:
        client = _clients[channel] = channel.Client(connection_pool=channel.pool)
    return client


def _read(found: Mapping[str, Any] | str) -> Mapping[str, Any]:
    if not isinstance(found, str):
        return found
    if not (_LONG_NUMBER.search(found) or '"__type__"' in found):
        try:
            parsed: Mapping[str, Any] = orjson.loads(found)
        except orjson.JSONDecodeError:
            # Lone surrogates, which Python's json reads and writes escaped.
            pass
        else:
            return parsed
    read: Mapping[str, Any] = kombu_loads(found)
    return {**read, "not_plain": True}


def _is_plain(channel: Any, message: Mapping[str, Any]) -> bool:
    return (
        isinstance(channel, RedisChannel)
        and not message.get("exchange")
        and not message.get("not_plain")
        and not (channel._expires and message["routing_key"] in channel._expires)
    )


def _envelope(channel: Any, message: Mapping[str, Any]) -> tuple[str, bytes]:
    """The list a message goes to, and what kombu's consumers read there."""
    queue = message["routing_key"]
    properties = dict(message.get("properties") or {})
    priority = properties.get("priority") or 0
    properties.update(
        delivery_mode=2,
        delivery_info={"exchange": "", "routing_key": queue},
        priority=priority,
        body_encoding="base64",
        delivery_tag=str(uuid4()),
    )
    envelope = {
        "body": base64.b64encode(orjson.dumps(message["body"])).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": message["headers"],
        "properties": properties,
    }
    return channel._q_for_pri(queue, max(min(int(priority), 9), 0)), orjson.dumps(envelope)


def _commands(payloads: Sequence[bytes]) -> Iterable[list[bytes]]:
    some: list[bytes] = []
    size = 0
    for payload in payloads:
        if some and size + len(payload) > COMMAND_BYTES:
            yield some
            some, size = [], 0
        some.append(payload)
        size += len(payload)
    if some:
        yield some


def _put_by_kombu(producer: Any, messages: Sequence[Mapping[str, Any]]) -> None:
    with producer.batch():
        for message in messages:
            producer.publish(
                message["body"],
                exchange=message.get("exchange") or "",
                routing_key=message["routing_key"],
                headers=message["headers"],
                serializer="json",
                retry=False,
                **message.get("properties") or {},
            )
