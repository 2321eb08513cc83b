"""``fab tunnel``: Flower and the API of a host, on ports of this laptop's loopback."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.ops import suite
from scripts.ops.failures import NOT_FOUND, OK, REFUSED, OpsError, Unreachable
from scripts.ops.inventory import Host
from scripts.ops.looking import facts
from scripts.ops.reach import Reach

LOOPBACK = "127.0.0.1"
# Where each listens on the host unless its settings say otherwise, and here unless told.
PORTS = {"flower": 5555, "api": 8000}
# How often it is looked whether the way is still there.
LOOK_SECONDS = 1.0
# Where its password is kept on the laptop, by the variable's name in the inventory's vault file.
SECRETS = {
    "flower": "user ironbeat, password vault_flower_password",
    "api": "token vault_api_token",
}


@dataclass(frozen=True)
class Tunnel:
    """One way through: ``port`` here leads to ``address`` and ``there`` as the host sees them."""

    name: str
    port: int
    address: str
    there: int


def run(hosts: Sequence[Host], ports: dict[str, int], *, as_json: bool) -> int:
    """Open the tunnels and keep them until Ctrl-C."""
    web = [host for host in hosts if "web" in host.groups]
    if not web:
        raise OpsError("none of these hosts is in the group web", "Leave --limit out.", NOT_FOUND)
    reached = suite.first_reached(web)
    told = facts(reached)
    known = told["settings"]
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(
                tunnel(
                    reached,
                    name,
                    port,
                    known.get(f"{name}_host", LOOPBACK),
                    int(known.get(f"{name}_port", PORTS[name])),
                )
            )
            for name, port in ports.items()
        ]
        _tell(reached.host.name, opened, told["flower_path"], as_json)
        try:
            while reached.alive():
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            # The one way to end it well.
            return OK
    raise Unreachable(f"{reached.host.name}: the connection is lost")


def _tell(host: str, opened: Sequence[Tunnel], flower_path: str, as_json: bool) -> None:
    paths = {"flower": flower_path, "api": "/"}
    urls = {each.name: f"http://{LOOPBACK}:{each.port}{paths[each.name]}" for each in opened}
    if as_json:
        print(json.dumps({"host": host, "urls": urls}), flush=True)
        return
    for name, url in urls.items():
        print(f"{name:<8} {url}   {SECRETS[name]}")
    print(f"through {host}; the secrets are in the inventory's vault file; Ctrl-C ends", flush=True)


@contextlib.contextmanager
def tunnel(reached: Reach, name: str, port: int, address: str, there: int) -> Iterator[Tunnel]:
    """A port of this laptop's loopback (0: any that is free) that leads to the host's ``there``.

    Raises :class:`OpsError` when somebody listens on it already.
    """
    try:
        server = _Server(reached, port, address, there)
    except OSError as error:
        raise OpsError(
            f"port {port} of this laptop is taken: {error.strerror}",
            f"Choose another with --{name}-port, or 0 for any.",
            REFUSED,
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield Tunnel(name, server.server_address[1], address, there)
    finally:
        server.shutdown()
        server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, reached: Reach, port: int, address: str, there: int) -> None:
        self.reached = reached
        self.there = address, there
        super().__init__((LOOPBACK, port), _Passage)


class _Passage(socketserver.BaseRequestHandler):
    """One connection, carried both ways."""

    server: _Server

    def handle(self) -> None:
        """Carry bytes until either side ends; where nobody listens there, hang up."""
        try:
            far = self.server.reached.connect(*self.server.there)
        except Unreachable:
            return
        with contextlib.closing(far):
            _carry(self.request, far)


def _carry(near: socket.socket, far: Any) -> None:
    pairs = {near: far, far: near}
    while pairs:
        ready, _, _ = select.select(list(pairs), [], [])
        for side in ready:
            try:
                part = side.recv(65536)
            except OSError:
                return
            if not part:
                # The other side may still have something to say.
                other = pairs.pop(side)
                with contextlib.suppress(OSError):
                    other.shutdown(socket.SHUT_WR)
                continue
            try:
                pairs[side].sendall(part)
            except OSError:
                return
