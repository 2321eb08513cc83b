"""A cable between a worker and its broker that can be cut without either noticing."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit


class Cable:
    """Forwards connections to a server. Cut ones stay open and carry nothing more."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        credentials = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))
        self._cut: set[int] = set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._thread.start()

    def cut(self) -> int:
        """Connections of now fall silent for ever; new ones work. Returns how many."""
        pairs = list(self._pairs)
        self._cut.update(id(pair) for pair in pairs)
        return len(pairs)

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        self._listener.close()
        for pair in self._pairs:
            for end in pair:
                end.close()

    def _forward(self) -> None:
        while not self._closed:
            live = [pair for pair in self._pairs if id(pair) not in self._cut]
            peers = {a: b for pair in live for a, b in (pair, pair[::-1])}
            readable, _, _ = select.select([self._listener, *peers], [], [], 0.05)
            for end in readable:
                if end is self._listener:
                    here, _ = self._listener.accept()
                    self._pairs.append((here, socket.create_connection(self._target)))
                    continue
                with contextlib.suppress(OSError):
                    data = end.recv(65536)
                    if data:
                        peers[end].sendall(data)
                        continue
                self._pairs = [pair for pair in self._pairs if end not in pair]
                for side in (end, peers[end]):
                    side.close()
                break


@contextmanager
def cable(url: str) -> Iterator[Cable]:
    """A cable to the server of ``url``."""
    made = Cable(url)
    try:
        yield made
    finally:
        made.close()
