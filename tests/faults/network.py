"""A bad network: a relay between a host and a store that delays, swallows, or cuts what passes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

from dotenv import dotenv_values

from tests.faults.suite import Suite

CHUNK = 65536


class Relay:
    """Passes TCP connections on to one address, as well as it is told to.

    ``delay``: seconds that each piece of data is late, each way. ``silent``: nothing passes, and
    nobody is told (a cable that was pulled). ``closed``: new connections are refused.
    """

    def __init__(self, host: str, port: int) -> None:
        self.delay = 0.0
        self.silent = False
        self.closed = False
        self.port = 0
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def cut(self) -> None:
        """Reset all connections that there are."""
        self._loop.call_soon_threadsafe(self._cut)

    def stop(self) -> None:
        """Pass nothing on any more."""
        self.closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        async def listen() -> None:
            server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()

        asyncio.set_event_loop(self._loop)
        self._loop.create_task(listen())
        self._loop.run_forever()

    def _cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.closed:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            while self.silent:
                await asyncio.sleep(0.05)
            there, back = await asyncio.open_connection(*self._target)
            self._writers.add(back)
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        except OSError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                # What was sent into a pulled cable is sent again until it arrives.
                while self.silent:
                    await asyncio.sleep(0.05)
                writer.write(data)
                await writer.drain()
        finally:
            self._writers.discard(writer)
            with suppress(OSError):
                writer.close()


class Network:
    """The way of one host to both stores."""

    def __init__(self, suite: Suite) -> None:
        values = dotenv_values(suite.installation.env_file)
        self._urls = {
            name: str(values[name])
            for name in ("IRONBEAT_DATABASE_URL", "IRONBEAT_BROKER_URL", "IRONBEAT_RESULT_BACKEND")
        }
        database = urlsplit(self._urls["IRONBEAT_DATABASE_URL"])
        broker = urlsplit(self._urls["IRONBEAT_BROKER_URL"])
        self.postgres = Relay(database.hostname or "", database.port or 0)
        self.redis = Relay(broker.hostname or "", broker.port or 0)

    @property
    def environment(self) -> dict[str, str]:
        """The addresses of the stores, as that host knows them."""
        return {
            name: _through(url, self.postgres if name == "IRONBEAT_DATABASE_URL" else self.redis)
            for name, url in self._urls.items()
        }

    @property
    def relays(self) -> tuple[Relay, Relay]:
        """Both ways."""
        return self.postgres, self.redis

    def pull(self, *, pulled: bool = True) -> None:
        """Pull the cable, or put it back."""
        for relay in self.relays:
            relay.silent = pulled


@contextmanager
def network(suite: Suite) -> Iterator[Network]:
    """A network until the block ends."""
    found = Network(suite)
    try:
        yield found
    finally:
        for relay in found.relays:
            relay.silent = False
            relay.stop()


def _through(url: str, relay: Relay) -> str:
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{relay.port}"))
