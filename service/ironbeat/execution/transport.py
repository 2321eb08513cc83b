"""kombu's Redis transport with one atomic, batched step instead of three round trips a message.

What differs from :mod:`kombu.transport.redis`, whose keys and messages stay as they are:

* One script takes messages *and* records them as unacknowledged, so that no crash falls between;
  acknowledgements ride along with it. See :mod:`ironbeat.execution.deliveries` for the records.
* Nothing blocks in Redis. An empty fetch leaves the connection subscribed, by ``CLIENT TRACKING``,
  to all lists of all queues at once; the server tells it when something arrives. Idle workers send
  one command every ``idle_check`` seconds, against a lost connection.
* A pool that runs tasks inline (``ironbeat.execution.pool``) is handed batches sized by time
  (:mod:`ironbeat.execution.pace`); what waits behind a slow task is given back. For every other
  pool a batch is what its prefetch count allows, as ever: there ``worker_prefetch_multiplier``
  bounds what a worker holds, here it bounds what stays with it (ETA, rate limits).
* A task that runs on while the connection is replaced keeps its delivery.
* A broker that refuses (loading, read-only, out of disk) is waited for, like one that is away.

Needs Redis or Valkey 6.2 or newer and the right to ``CLIENT TRACKING``.

:func:`register` makes one application use it for its ``redis://``, ``rediss://``,
``redis+socket://`` and ``sentinel://`` URLs. It replaces the application's ``Connection`` class
rather than an entry in kombu's table of transports: the URL keeps its scheme, which Flower and
TLS options depend on, and other users of kombu in the process keep theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from queue import Empty
from time import monotonic
from typing import Any

import celery
import kombu
import redis
from kombu.log import get_logger
from kombu.transport import redis as stock
from kombu.utils import symbol_by_name
from kombu.utils.json import loads as kombu_loads
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    NoPermissionError,
    NoScriptError,
    ResponseError,
    TimeoutError,
)

from ironbeat.execution import deliveries
from ironbeat.execution.custody import (
    BROKER_ERRORS,
    Custody,
    Delivery,
    consumption,
    custody_of,
)
from ironbeat.execution.deliveries import Layout
from ironbeat.execution.messages import Message
from ironbeat.execution.pace import Pace

logger = get_logger(__name__)

EXCHANGE = deliveries.lua("exchange")

# A batch may last this many times its budget before the rest of it is given back.
PATIENCE = 2.5

# A batch of so many messages is no chance encounter: outcomes are written while the next one runs.
BUSY_FROM = 8

#: Where a message goes that is none of kombu's, so that it does not come back for ever.
UNREADABLE_KEY = "ironbeat.unreadable"


class Phase(Enum):
    """What the consuming connection is doing."""

    RESTING = "nothing asked"
    FETCHING = "asked, not answered"
    WAITING = "all lists were empty; the server will tell"


@dataclass(slots=True)
class Exchange:
    """A fetch on its way: what must be known when it is answered, or never is."""

    prefix: str
    limit: int
    acks: Sequence[str]
    queues: Sequence[str]
    keys: Sequence[str]
    unrecorded: bool
    replies_before: int


class QoS(stock.QoS):
    """Acknowledgements that are collected; prefetch as in kombu."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that is now in the worker's hands."""
        if delivery_tag not in self.channel.custody.held:
            super().append(message, delivery_tag)
            return
        if self._dirty:
            self._flush()
        self._quick_append(delivery_tag, message)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge: sent with the next fetch."""
        if delivery_tag not in self.channel.custody.held:
            super().ack(delivery_tag)
            return
        self.channel.custody.ack(delivery_tag)
        self._quick_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Acknowledge, or put behind all that waits in the queue."""
        if delivery_tag not in self.channel.custody.held:
            super().reject(delivery_tag, requeue=requeue)
        elif requeue:
            self.channel.custody.requeue([delivery_tag], last=True)
            self._quick_ack(delivery_tag)
        else:
            self.ack(delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Return everything this channel delivered that is not done and not running."""
        self._flush()
        if not self._delivered:
            return
        custody = self.channel.custody
        running = set(consumption.running())
        mine = [tag for tag in self._delivered if tag not in running]
        self._delivered.clear()
        held = [tag for tag in mine if tag in custody.held]
        others = [tag for tag in mine if tag not in custody.held]
        if held:
            custody.requeue(held)
        if others:
            # Taken one by one with basic_get, as kombu does it.
            own = self.channel.Client(connection_pool=custody.client.connection_pool)
            for tag in others:
                try:
                    self.restore_by_tag(tag, client=own)
                except BROKER_ERRORS as error:
                    logger.warning("message %s becomes overdue instead: %s", tag, error)

    def restore_visible(self, start: int = 0, num: Any = None, interval: Any = None) -> None:
        """Put back what nobody renews, at most every ``unacked_restore_interval`` seconds."""
        channel = self.channel
        if not channel.sweep_is_due():
            return
        channel.custody.restore_overdue(
            channel.lease_timeout,
            channel.visibility_timeout,
            lambda tag: self.restore_by_tag(tag.decode()),
        )


class Channel(stock.Channel):
    """A Redis channel that consumes in batches. Publishing is kombu's own."""

    QoS = QoS
    Message = Message

    #: How long a batch should last, in seconds, how many messages it may hold, and after how many
    #: bytes it is full. Each costs a claim, a commit and two round trips, whatever it holds.
    batch_seconds = 0.050
    batch_limit = 400
    batch_bytes = 1 << 20
    #: An idle consumer looks by itself this often, in seconds.
    idle_check = 5.0
    #: A fetch that is not answered in so many seconds means that the connection is dead.
    reply_timeout = 5.0
    #: After how many seconds a delivery counts as lost that a living worker would have renewed.
    #: kombu's ``visibility_timeout`` remains for consumers that renew nothing.
    lease_timeout = 30.0
    socket_timeout = 10.0
    socket_connect_timeout = 5.0
    socket_keepalive = True
    health_check_interval = 5

    from_transport_options = (
        *stock.Channel.from_transport_options,
        "batch_seconds",
        "batch_limit",
        "batch_bytes",
        "idle_check",
        "reply_timeout",
        "lease_timeout",
    )

    _phase = Phase.RESTING
    _exchange: Exchange | None = None
    # kombu's: the connection on which something is awaited, and since when an answer is.
    _in_poll: Any = None
    _brpop_sent_at: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._custody: Custody | None = None
        self._unrecorded: set[str] = set()
        self._unstarted: deque[Delivery] = deque()
        self._delivering = False
        # Whether so much came with the last fetch that more is likely to be there.
        self._busy = False
        self._batch_began = 0.0
        self._armed_at = 0.0
        self._swept_at = monotonic()
        # Per connection: whether the server tracks it, and knows the script.
        self._tracked = self._scripted = False
        self._sha = ""
        super().__init__(*args, **kwargs)
        self.pace = Pace(self.batch_seconds, self.batch_limit)

    @property
    def layout(self) -> Layout:
        """The names of kombu's keys, as this channel was told to use them."""
        return Layout(
            self.global_keyprefix,
            self.unacked_key,
            self.unacked_index_key,
            self.sep,
            tuple(self.priority_steps),
        )

    @property
    def custody(self) -> Custody:
        """What this process holds of this broker."""
        if self._custody is None:
            conninfo = self.connection.client
            broker = (
                conninfo.hostname,
                conninfo.port,
                conninfo.virtual_host,
                tuple(conninfo.alt or ()),
                self.layout,
            )
            self._custody = custody_of(broker, self._make_custody)
            self._custody.channels.add(self)
        return self._custody

    def _make_custody(self) -> Custody:
        # A pool of its own: it outlives this channel.
        pool = self._get_pool()
        return Custody(redis.Redis(connection_pool=pool), self.layout)

    # -- consuming: what kombu's poller calls ----------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from ``queue`` as well."""
        if no_ack:
            self._unrecorded.add(queue)
        else:
            self._unrecorded.discard(queue)
        result = super().basic_consume(queue, no_ack, *args, **kwargs)
        if self._phase is Phase.WAITING:
            # Not yet subscribed to this queue's lists.
            self._rest()
        return result

    def tick(self) -> None:
        """Do what is due between two events; the event loop calls it each time round."""
        if consumption.broker_lost():
            raise ConnectionError("the broker is gone")
        if self._unstarted and not self._delivering:
            self._deliver_unstarted()
        if self._phase is Phase.WAITING:
            if self.custody.owes_acks or monotonic() - self._armed_at >= self.idle_check:
                self._rest()
        elif self._phase is Phase.FETCHING:
            self._notice_silence()
        elif (
            self._custody is not None
            and self._custody.owes_acks
            and not (self.active_queues and self.qos.can_consume())
        ):
            # No fetch will take them along.
            self._custody.flush()

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        if queues:
            self._ask(queues)

    def _brpop_read(self, **options: Any) -> bool:
        connection = self.client.connection
        try:
            if self._phase is not Phase.FETCHING:
                self._hear(connection)
                raise Empty
            reply = self._answer(connection)
        except self.connection_errors:
            connection.disconnect()
            raise
        finally:
            if self._phase is Phase.RESTING:
                self._in_poll = None
                self._flush_brpop_reauth()
        was_busy = self._busy
        batch = self._record(reply)
        self._busy = consumption.inline and len(batch) >= BUSY_FROM
        if not batch:
            # What a busy consumer has left unsent goes out with one more fetch.
            if not reply and not (was_busy and self.custody.owes_acks):
                self._wait(connection)
            raise Empty
        if self._closing:
            self._unstarted.extend(batch)
            return True
        self._unstarted.extend(batch)
        self._deliver_unstarted()
        return True

    def _hear(self, connection: Any) -> None:
        """Read what came unasked: word that something was put into a list, or the end."""
        try:
            connection.read_response(push_request=True, timeout=0, disconnect_on_error=False)
        except TimeoutError:
            # Not all of it is here, or it was TLS's own.
            return
        self._rest()

    # -- one exchange ----------------------------------------------------------------------------

    def _ask(self, queues: Sequence[str]) -> None:
        connection = self.client.connection
        custody = self.custody
        if consumption.inline:
            limit = self.batch_limit
            costs = {queue: max(1, int(self.pace.cost(queue) * 1e6)) for queue in queues}
        else:
            allowed = self.qos.can_consume_max_estimate()
            limit = self.batch_limit if allowed is None else min(allowed, self.batch_limit)
            costs = dict.fromkeys(queues, 0)
        names: list[str] = []
        keys: list[str] = []
        details: list[Any] = []
        for priority in self.priority_steps:
            for queue in queues:
                names.append(queue)
                keys.append(self.global_keyprefix + self._q_for_pri(queue, priority))
                tail = "" if queue in self._unrecorded else f',"",{json.dumps(queue)}]'
                details += (costs[queue], tail)
        acks = custody.take_acks(wait=not self._busy)
        exchange = Exchange(
            prefix=custody.next_prefix(),
            limit=limit,
            acks=acks,
            queues=names,
            keys=keys,
            unrecorded=bool(self._unrecorded),
            replies_before=0 if self._tracked else 1,
        )
        command: list[Any] = ["EVALSHA", self._sha] if self._scripted else ["EVAL", EXCHANGE]
        command += (2 + len(keys), custody.layout.unacked_key, custody.layout.index_key, *keys)
        command += (limit, int(self.batch_seconds * 1e6), exchange.prefix, len(acks), *acks)
        command.append(self.batch_bytes)
        command += details
        commands = [command] if self._tracked else [("CLIENT", "TRACKING", "ON"), command]
        self._exchange = exchange
        self._phase = Phase.FETCHING
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        # A health check would wait for its answer; silence is noticed by tick().
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    def _answer(self, connection: Any) -> list[Any]:
        exchange = self._exchange
        assert exchange is not None
        try:
            while exchange.replies_before:
                connection.read_response(disconnect_on_error=False)
                exchange.replies_before -= 1
                self._tracked = True
            reply: list[Any] = connection.read_response(disconnect_on_error=False)
        except NoScriptError:
            # The server was restarted or its scripts were flushed; nothing was done.
            self._scripted = False
            self.custody.keep_acks(exchange.acks)
            self._rest()
            raise Empty from None
        except (NoPermissionError, AuthorizationError, AuthenticationError) as error:
            raise ConnectionError(
                f"{error} (consuming needs EVAL, EVALSHA and CLIENT TRACKING on "
                "Redis or Valkey 6.2 or newer)"
            ) from error
        except ResponseError as error:
            # Loading, read-only, out of disk, out of memory: wait as if it were away.
            raise ConnectionError(f"the broker refused: {error}") from error
        if not self._scripted:
            self._sha = _sha1(EXCHANGE)
            self._scripted = True
        return reply

    def _record(self, reply: list[Any]) -> list[Delivery]:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        self._rest()
        custody = self.custody
        custody.settle(exchange.acks)
        custody.answered()
        batch = []
        recorded = []
        for number in range(len(reply) // 2):
            at, raw = reply[2 * number], reply[2 * number + 1]
            tag = f"{exchange.prefix}{number}"
            queue = exchange.queues[at]
            try:
                payload = _decode(raw)
                payload["properties"]["delivery_tag"] = tag
                payload["properties"]["delivery_info"]
            except (ValueError, TypeError, KeyError):
                self._put_aside(tag, queue, raw)
                continue
            delivery = Delivery(tag, queue, exchange.keys[at], raw, payload)
            batch.append(delivery)
            if not (exchange.unrecorded and queue in self._unrecorded):
                recorded.append(delivery)
        custody.received(recorded)
        for queue in dict.fromkeys(delivery.queue for delivery in batch):
            self._queue_cycle.rotate(queue)
        return batch

    def _wait(self, connection: Any) -> None:
        """All lists were empty: wait for the server's word, unless it has come already."""
        arrived = False
        while connection.can_read(timeout=0):
            connection.read_response(push_request=True)
            arrived = True
        if not arrived:
            self._phase = Phase.WAITING
            self._in_poll = connection
            self._brpop_sent_at = None
            self._armed_at = monotonic()

    def _rest(self) -> None:
        """Let the poller ask again as soon as there is room for messages."""
        self._phase = Phase.RESTING
        self._in_poll = None
        self._brpop_sent_at = None

    def _notice_silence(self) -> None:
        """Give up a connection over which no answer comes."""
        sent_at = self._brpop_sent_at
        if sent_at is None or monotonic() - sent_at < self.reply_timeout:
            return
        connection = self.client.connection
        sock = getattr(connection, "_sock", None)
        # This process may have been stopped, or busy: the answer may be there.
        if sock is None or stock._socket_readable(sock):
            return
        logger.warning("no answer from the broker for %.0f s: reconnecting", self.reply_timeout)
        connection.disconnect()

    def _on_connection_disconnect(self, connection: Any) -> None:
        client = self.__dict__.get("client")
        if client is not None and client.connection is connection:
            self._lose_exchange()
        super()._on_connection_disconnect(connection)

    def _lose_exchange(self) -> None:
        """The connection is gone, perhaps after the server did what was asked."""
        self._tracked = self._scripted = False
        exchange, self._exchange = self._exchange, None
        self._rest()
        if self._custody is not None:
            self._custody.contact_lost()
            if exchange is not None:
                self._custody.keep_acks(exchange.acks)
                self._custody.lost(f"{exchange.prefix}{n}" for n in range(exchange.limit))

    def _put_aside(self, tag: str, queue: str, raw: bytes) -> None:
        logger.critical("not a message, moved to %s: %r", UNREADABLE_KEY, raw[:500])
        try:
            self.custody.client.lpush(self.global_keyprefix + UNREADABLE_KEY, raw)
        except BROKER_ERRORS:
            self.custody.lost([tag])
        else:
            deliveries.acknowledge(self.custody.client, [tag], self.custody.layout)

    # -- handing over ----------------------------------------------------------------------------

    def _deliver_unstarted(self) -> None:
        """Hand over message by message; an inline pool runs each before the next is handed over."""
        unstarted = self._unstarted
        handled: dict[str, list[float]] = {}
        self._delivering = True
        self._batch_began = began = monotonic()
        try:
            while True:
                try:
                    delivery = unstarted.popleft()
                except IndexError:
                    break
                if not self._may_deliver(delivery, began):
                    unstarted.appendleft(delivery)
                    if self.give_back_unstarted():
                        break
                    delivery = unstarted.popleft()
                start = monotonic()
                self.connection._deliver(delivery.payload, delivery.queue)
                total = handled.setdefault(delivery.queue, [0, 0.0])
                total[0] += 1
                total[1] += monotonic() - start
        except BaseException:
            self.give_back_unstarted()
            raise
        finally:
            self._delivering = False
            for queue, (messages, seconds) in handled.items():
                self.pace.learn(queue, int(messages), seconds)

    def _may_deliver(self, delivery: Delivery, began: float) -> bool:
        if self._closing or consumption.stopping or delivery.queue not in self._active_queues:
            return False
        if not consumption.inline:
            return True
        if not self.qos.can_consume():
            # The last one stays here unacknowledged: it waits for its time, or for its rate.
            self.pace.single(delivery.queue)
            return False
        return monotonic() - began < self.batch_seconds * PATIENCE or delivery.tag.endswith(".0")

    def relieve(self) -> None:
        """Give back what waits behind a slow task; from a thread beside the consuming one."""
        overdue = self.batch_seconds * PATIENCE
        if self._unstarted and self._delivering and monotonic() - self._batch_began > overdue:
            self.give_back_unstarted()

    def give_back_unstarted(self) -> bool:
        """Give back what was taken and has not begun; ``False`` if it has to stay."""
        back: list[Delivery] = []
        # The consuming thread takes from the left meanwhile: each message goes one way only.
        while True:
            try:
                back.append(self._unstarted.pop())
            except IndexError:
                break
        back.reverse()
        recorded = [d for d in back if d.tag in self.custody.held]
        if recorded and not self.custody.give_back(recorded):
            self._unstarted.extend(back)
            return False
        if recorded:
            logger.debug("gave back %d messages", len(recorded))
        return True

    # -- sweeping and closing --------------------------------------------------------------------

    def sweep_is_due(self) -> bool:
        """Whether it is time to look for overdue deliveries; asked once a time, it says so once."""
        if monotonic() - self._swept_at < self.unacked_restore_interval:
            return False
        self._swept_at = monotonic()
        return True

    def close(self) -> None:
        """Give back what has not begun, send what is owed, and leave what is running alone."""
        if not self.closed and self._custody is not None:
            self._closing = True
            self._abandon_exchange()
            self.give_back_unstarted()
            self.custody.flush()
        self._rest()
        super().close()

    def _abandon_exchange(self) -> None:
        client = self.__dict__.get("client")
        connection = getattr(client, "connection", None)
        if connection is None:
            return
        try:
            if self._phase is Phase.FETCHING:
                # Its messages are recorded as ours; read them, to give them back at once.
                self._unstarted.extend(self._record(self._answer(connection)))
        except (*BROKER_ERRORS, Empty) as error:
            logger.debug("fetch abandoned: %r", error)
            connection.disconnect()
        finally:
            self._rest()

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        params: dict[str, Any] = super()._connparams(asynchronous)
        if asynchronous:
            # Tracking's messages come between replies, which is what RESP3 is for.
            params["protocol"] = 3
        return params


class Poller(stock.MultiChannelPoller):
    """kombu's poller, which lets each channel do what is due."""

    def __init__(self) -> None:
        super().__init__()
        self._health_checked_at = monotonic()

    def on_poll_start(self) -> None:
        """Called before each wait."""
        channels = tuple(self._channels)
        for channel in channels:
            channel.tick()
        # kombu checks subscriptions in an event loop only, which remote control has none of.
        interval = min((c.health_check_interval for c in channels), default=0)
        if interval and monotonic() - self._health_checked_at >= interval:
            self._health_checked_at = monotonic()
            self.maybe_check_subclient_health()
        super().on_poll_start()


class Transport(stock.Transport):
    """Redis, or Valkey."""

    Channel = Channel
    connection_errors: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()
        # A broker that refuses is waited for; Celery's consumer would end its worker.
        self.connection_errors = (*self.connection_errors, ResponseError)


class SentinelChannel(Channel, stock.SentinelChannel):
    """The same behind Redis Sentinel."""

    from_transport_options = tuple(
        dict.fromkeys(
            (*Channel.from_transport_options, *stock.SentinelChannel.from_transport_options)
        )
    )


class SentinelTransport(Transport):
    """The same behind Redis Sentinel."""

    default_port = stock.SentinelTransport.default_port
    Channel = SentinelChannel


_OURS: dict[type, type] = {
    stock.Transport: Transport,
    stock.SentinelTransport: SentinelTransport,
}


class Connection(kombu.Connection):
    """A connection that, for a Redis URL, uses the transports of this module.

    Its pools hold kombu's own connections: they publish, which is the same with either.
    """

    def get_transport_cls(self) -> Any:
        """Get the transport class: ours in place of kombu's Redis ones."""
        found = super().get_transport_cls()
        return _OURS.get(found, found)


class WithOurConnections:
    """Mixed into an application's ``amqp_cls``, makes it connect with :class:`Connection`."""

    Connection = Connection
    BrokerConnection = Connection


def register(app: celery.Celery) -> None:
    """Make ``app`` use these transports for its Redis URLs; call it before ``app`` connects."""
    if "amqp" in app.__dict__:
        app.amqp.Connection = app.amqp.BrokerConnection = Connection
    base = symbol_by_name(app.amqp_cls)
    if not issubclass(base, WithOurConnections):
        app.amqp_cls = type(base.__name__, (WithOurConnections, base), {})


def _decode(raw: bytes) -> dict[str, Any]:
    """kombu's envelope. Its own decoder looks at every object for its extensions: rarely needed."""
    # Not as a body is decoded: an envelope is long, and searching it for long numbers takes longer.
    found = kombu_loads(raw.decode()) if b'"__type__"' in raw else json.loads(raw)
    if not isinstance(found, dict):
        raise TypeError("not an object")
    return found


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
