"""A small SSH server on loopback, run by the test itself: real connections without root or Docker.

It lets one user in with one key, and does what a host's server does for the laptop's commands:
it runs commands (as whoever runs the tests) and opens connections.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator

import paramiko

USER = "operator"


class _Policy(paramiko.ServerInterface):
    def __init__(self, known: paramiko.PKey) -> None:
        self.known = known
        self.targets: dict[int, tuple[str, int]] = {}

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = username == USER and key.asbytes() == self.known.asbytes()
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_execute, args=(channel, command), daemon=True).start()
        return True

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        self.targets[chanid] = destination
        return paramiko.OPEN_SUCCEEDED


def _execute(channel: paramiko.Channel, command: bytes) -> None:
    process = subprocess.Popen(
        ["sh", "-c", command.decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A host's own Python must not see this environment's.
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
    )
    assert process.stdin and process.stdout and process.stderr

    def take() -> None:
        with contextlib.suppress(OSError):
            while part := channel.recv(65536):
                process.stdin.write(part)
                process.stdin.flush()
        with contextlib.suppress(OSError):
            process.stdin.close()

    def complain() -> None:
        with contextlib.suppress(OSError):
            while part := process.stderr.read1(65536):
                channel.sendall_stderr(part)

    helpers = [threading.Thread(target=each, daemon=True) for each in (take, complain)]
    for each in helpers:
        each.start()
    with contextlib.suppress(OSError):
        while part := os.read(process.stdout.fileno(), 65536):
            channel.sendall(part)
    # Nobody listens any more, or the command has said all.
    process.stdout.close()
    helpers[1].join(5)
    with contextlib.suppress(OSError):
        channel.send_exit_status(process.wait())
        channel.close()


def _carry(channel: paramiko.Channel, target: tuple[str, int]) -> None:
    try:
        with contextlib.suppress(OSError), socket.create_connection(target, timeout=5) as far:
            while True:
                ready, _, _ = select.select([channel, far], [], [])
                for one, other in ((channel, far), (far, channel)):
                    if one in ready:
                        part = one.recv(65536)
                        if not part:
                            return
                        other.sendall(part)
    finally:
        channel.close()


class Sshd:
    """The server; ``port`` is where it listens."""

    def __init__(self, host_key: paramiko.PKey, user_key: paramiko.PKey) -> None:
        self.host_key = host_key
        self.user_key = user_key
        self.transports: list[paramiko.Transport] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(self.host_key)
            policy = _Policy(self.user_key)
            self.transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(server=policy, event=threading.Event())
                threading.Thread(target=self._tend, args=(transport, policy), daemon=True).start()

    def _tend(self, transport: paramiko.Transport, policy: _Policy) -> None:
        # A channel that nobody holds is collected, and closed, before it is asked for anything.
        held = []
        while transport.is_active():
            channel = transport.accept(1)
            held.append(channel)
            if channel is not None and channel.chanid in policy.targets:
                target = policy.targets[channel.chanid]
                threading.Thread(target=_carry, args=(channel, target), daemon=True).start()

    def close(self) -> None:
        """Hang up on everybody."""
        # Closing alone would not wake who waits in accept().
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for transport in self.transports:
            transport.close()


@contextlib.contextmanager
def serving(host_key: paramiko.PKey, user_key: paramiko.PKey) -> Iterator[Sshd]:
    """A server for as long as the block lasts."""
    server = Sshd(host_key, user_key)
    try:
        yield server
    finally:
        server.close()
