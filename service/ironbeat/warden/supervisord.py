"""supervisord's XML-RPC over its private socket, without a package of its own."""

from __future__ import annotations

import http.client
import os
import socket
import xmlrpc.client
from dataclasses import dataclass
from typing import Any

SECONDS = 10.0
#: What calling supervisord raises when it is not there, or refuses.
ERRORS: tuple[type[Exception], ...] = (OSError, http.client.HTTPException, xmlrpc.client.Error)


class NoSupervisor(Exception):
    """This program was not started by supervisord, and does not know where its socket is."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as supervisord sees it."""

    group: str
    name: str
    state: str

    @property
    def full_name(self) -> str:
        """As supervisord calls it."""
        return f"{self.group}:{self.name}"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path)


class Supervisord:
    """The supervisord that listens on a socket; by default the one that started this process.

    Raises :class:`NoSupervisor`; each call raises one of ``ERRORS``.
    """

    def __init__(self, path: str | None = None) -> None:
        url = os.environ.get("SUPERVISOR_SERVER_URL", "") if path is None else f"unix://{path}"
        if not url.startswith("unix://"):
            raise NoSupervisor(
                "SUPERVISOR_SERVER_URL names no socket: this program is started by supervisord"
            )
        proxy = xmlrpc.client.ServerProxy(
            "http://localhost/RPC2", transport=_Transport(url.removeprefix("unix://"))
        )
        self._call: Any = proxy.supervisor

    def group(self, name: str) -> list[Process]:
        """The processes of a group, in the order of their numbers."""
        found = [
            Process(each["group"], each["name"], each["statename"])
            for each in self._call.getAllProcessInfo()
            if each["group"] == name
        ]
        return sorted(found, key=lambda each: each.name)

    def start(self, process: Process) -> None:
        """Start it, without waiting for it."""
        self._call.startProcess(process.full_name, False)

    def stop(self, process: Process) -> None:
        """Ask it to end, without waiting for it: a worker finishes its task first."""
        self._call.stopProcess(process.full_name, False)
