"""Ports for the programs of an installation: free, and promised until somebody listens there."""

from __future__ import annotations

import contextlib
import socket
import sys


class Promises:
    """Ports that programs were promised which do not listen there yet.

    Between the choice of a port and the program that listens there a whole migration may lie. A
    second installation that comes up meanwhile must choose another one, so each promise is kept as
    a name that only one process of this machine can hold (in Linux' abstract namespace, which has
    no files, belongs to the same network namespace as the ports, and ends with the process).
    """

    def __init__(self) -> None:
        self._kept: dict[int, socket.socket] = {}

    def take(self, port: int, host: str = "127.0.0.1") -> bool:
        """Whether ``port`` is free on ``host`` and nobody has been promised it; now it is ours."""
        if port in self._kept:
            return False
        promise = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            if sys.platform == "linux":
                promise.bind(f"\0ironbeat-port-{port}")
        except OSError:
            promise.close()
            return False
        if not is_free(port, host):
            promise.close()
            return False
        self._kept[port] = promise
        return True

    def __enter__(self) -> Promises:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Keep none any longer: the programs listen, or never will."""
        for promise in self._kept.values():
            with contextlib.suppress(OSError):
                promise.close()
        self._kept.clear()


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on ``port`` of ``host`` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do, so that connections that are just closing are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True
