"""A real HTTP server that keeps what is sent to it: an outside monitor, a webhook."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Received:
    """One request: when it came (seconds since the epoch), and what it was."""

    at: float
    method: str
    path: str
    body: bytes
    headers: dict[str, str] = field(repr=False)


class Receiver(ThreadingHTTPServer):
    """Answers ``status`` to everything, after ``delay`` seconds, and keeps it in ``received``.

    What comes to a path in ``refused`` is kept, too, and answered with an error.
    """

    block_on_close = False
    daemon_threads = True

    def __init__(self, address: str, port: int) -> None:
        super().__init__((address, port), _Handler)
        self.received: list[Received] = []
        self.status = 200
        self.delay = 0.0
        self.refused: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def paths(self, since: float = 0.0) -> list[str]:
        """The paths that were asked for since then, queries left out."""
        return [each.path.partition("?")[0] for each in list(self.received) if each.at >= since]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.received.append(
            Received(time.time(), self.command, self.path, body, dict(self.headers.items()))
        )
        time.sleep(self.server.delay)
        refused = self.path.partition("?")[0] in self.server.refused
        self.send_response(500 if refused else self.server.status)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def receiver(address: str = "127.0.0.1", port: int = 0) -> Iterator[Receiver]:
    """A receiver that listens until the block ends; on a free port unless told."""
    server = Receiver(address, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
