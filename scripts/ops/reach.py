"""Running things on a host: over SSH, or right here when the host is this machine.

Fabric opens the connection, so a jump host, an agent and ``~/.ssh/config`` work as they do with
``ssh``. Unlike Fabric by itself, a host whose key is not known is refused unless the inventory says
otherwise. Commands run as root where the account may become root without a password, else as it is.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import paramiko
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
)
from fabric import Config, Connection
from paramiko.ssh_exception import (
    AuthenticationException,
    BadHostKeyException,
    NoValidConnectionsError,
    SSHException,
)

from scripts.ops.failures import OpsError, Unreachable
from scripts.ops.inventory import Host

# What goes wrong is raised here and told in a sentence; paramiko would print its stack as well.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

# A host that does not answer is given up after at most twice this: once for the connection, once
# for what the server says first.
CONNECT_SECONDS = 4.0
RUN_SECONDS = 30.0
KEEPALIVE_SECONDS = 15

# `sudo -n true` asks nobody: where a password would be needed the command runs without root, and
# sees what the account may see.
_AS_ROOT = (
    'if [ "$(id -u)" = 0 ] || ! sudo -n true 2>/dev/null; then exec "$@"; fi; exec sudo -n -- "$@"'
)


#: Told what a command says on standard error, a part at a time.
Hear = Callable[[str], None]


@dataclass(frozen=True)
class Answer:
    """What a command printed and its exit status."""

    status: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line it wrote on standard error, or else on standard output."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return lines[-1] if lines else "it says nothing"


class Reach(Protocol):
    """One host, reached. Everything raises :class:`Unreachable` when the way there is lost."""

    host: Host

    def open(self) -> None:
        """Reach the host; a second call does nothing."""

    def run(
        self, argv: Sequence[str], timeout: float = RUN_SECONDS, hear: Hear | None = None
    ) -> Answer:
        """Run a command and wait for its end, at most ``timeout`` seconds.

        ``hear`` is given what it says on standard error, as it comes.
        """

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        """The lines a command prints, as they come; leaving the iterator ends the command."""

    def duplex(self, argv: Sequence[str]) -> Any:
        """A socket whose other end is a command's standard input and output."""

    def connect(self, address: str, port: int) -> Any:
        """A socket to an address as the host sees it."""

    def alive(self) -> bool:
        """Whether the way to the host is still there, as far as is known without asking it."""

    def close(self) -> None:
        """Let go of the host."""


def reach(host: Host) -> Reach:
    """The way to ``host``, not yet opened."""
    return LocalReach(host) if host.local else SshReach(host)


def as_root(argv: Sequence[str]) -> list[str]:
    """``argv`` as a command that becomes root if it may without being asked."""
    return ["sh", "-c", _AS_ROOT, "sh", *argv]


_config: Config | None = None
_config_lock = threading.Lock()


def _shared_config() -> Config:
    """Fabric's configuration, with the user's ``~/.ssh/config``; read once for all hosts."""
    global _config
    with _config_lock:
        if _config is None:
            _config = Config()
        return _config


class SshReach:
    """A host over SSH."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._connection = self._describe()

    def _describe(self) -> Connection:
        host = self.host
        keys = self._keys()
        options: dict[str, Any] = {
            "banner_timeout": CONNECT_SECONDS,
            "auth_timeout": CONNECT_SECONDS,
            "channel_timeout": RUN_SECONDS,
            "look_for_keys": not keys,
        }
        if keys:
            options["key_filename"] = [str(key) for key in keys]
        gateway: Connection | str | None = host.ssh.proxy_command
        for hop in host.ssh.jump.split(",") if host.ssh.jump else ():
            gateway = Connection(hop, config=_shared_config().clone(), gateway=gateway)
        made = Connection(
            host.address,
            user=host.user,
            port=host.port,
            config=_shared_config().clone(),
            gateway=gateway,
            connect_timeout=int(CONNECT_SECONDS),
            connect_kwargs=options,
        )
        each: Connection | str | None = made
        while isinstance(each, Connection):
            self._trust(each.client)
            each = each.gateway
        return made

    def _keys(self) -> list[Path]:
        """The key files that the inventory names."""
        host = self.host
        named = [*([host.key_file] if host.key_file else []), *host.ssh.identities]
        return [Path(each).expanduser() for each in named]

    def _trust(self, client: paramiko.SSHClient) -> None:
        options = self.host.ssh
        if not options.accept_unknown:
            client.load_system_host_keys()
            with contextlib.suppress(OSError):
                client.load_system_host_keys("/etc/ssh/ssh_known_hosts")
        if options.known_hosts and options.known_hosts != os.devnull:
            with contextlib.suppress(OSError):
                client.load_system_host_keys(str(Path(options.known_hosts).expanduser()))
        client.set_missing_host_key_policy(
            paramiko.AutoAddPolicy() if options.accept_unknown else paramiko.RejectPolicy()
        )

    def open(self) -> None:
        """Connect and log in. Raises :class:`Unreachable`."""
        if self._connection.is_connected:
            return
        host = self.host
        for key in self._keys():
            if not os.access(key, os.R_OK):
                raise Unreachable(
                    f"its key {key} cannot be read",
                    "The inventory names it: ansible_ssh_private_key_file.",
                )
        try:
            self._connection.open()
            # A router between forgets a connection that is silent for long.
            self._transport().set_keepalive(KEEPALIVE_SECONDS)
        except Unreachable:
            raise
        except BadHostKeyException as error:
            raise Unreachable(
                "its host key is not the one that is known",
                f"If it was set up anew: ssh-keygen -R {host.address}",
            ) from error
        except AuthenticationException as error:
            raise self._refused() from error
        except NoValidConnectionsError as error:
            raise Unreachable(_first_cause(error)) from error
        except (TimeoutError, socket.gaierror, OSError, EOFError) as error:
            raise Unreachable(_said(error)) from error
        except SSHException as error:
            if "known_hosts" in str(error):
                raise Unreachable(
                    "its host key is not known", f"Look at it once: ssh {host.address}"
                ) from error
            # A key file that nobody wanted is tried as other kinds of key, whose complaint is last.
            transport = self._connection.client.get_transport()
            if transport is not None and transport.is_active() and transport.initial_kex_done:
                raise self._refused() from error
            raise Unreachable(_said(error)) from error

    def _refused(self) -> Unreachable:
        for key in self._keys():
            if _locked(key):
                return Unreachable(
                    "its key has a passphrase", f"Give it to the agent: ssh-add {key}"
                )
        user = self._connection.user
        return Unreachable(f"it does not let {user} in", f"Try: ssh {user}@{self.host.address}")

    def run(
        self, argv: Sequence[str], timeout: float = RUN_SECONDS, hear: Hear | None = None
    ) -> Answer:
        """Run a command on the host."""
        channel = self._execute(argv)
        return _collect(channel, timeout, hear)

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        """The lines of a command on the host."""
        channel = self._execute(argv)
        try:
            with channel.makefile("rb") as lines:
                for line in lines:
                    yield line.decode(errors="replace")
            if channel.recv_exit_status() != 0:
                said = channel.recv_stderr(4096).decode(errors="replace")
                raise OpsError(f"{self.host.name}: {Answer(1, '', said).last_words}")
        finally:
            channel.close()

    def duplex(self, argv: Sequence[str]) -> paramiko.Channel:
        """A channel whose other end is a command on the host."""
        return self._execute(argv)

    def connect(self, address: str, port: int) -> paramiko.Channel:
        """A channel to an address as the host sees it."""
        with self._lost():
            return self._transport().open_channel(
                "direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=CONNECT_SECONDS
            )

    def alive(self) -> bool:
        """Whether the connection is up."""
        return bool(self._connection.is_connected)

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(Exception):
            self._connection.close()

    def _transport(self) -> paramiko.Transport:
        self.open()
        transport = self._connection.client.get_transport()
        if transport is None:
            raise Unreachable("the connection is gone")
        return transport

    def _execute(self, argv: Sequence[str]) -> paramiko.Channel:
        with self._lost():
            channel = self._transport().open_session(timeout=RUN_SECONDS)
            channel.exec_command(shlex.join(as_root(argv)))
            return channel

    @contextlib.contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except Unreachable:
            raise
        except (SSHException, OSError, EOFError) as error:
            raise Unreachable(f"the connection is lost: {_said(error)}") from error


class LocalReach:
    """This machine, for an inventory that says ``ansible_connection: local``."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def open(self) -> None:
        """It is here already."""

    def run(
        self, argv: Sequence[str], timeout: float = RUN_SECONDS, hear: Hear | None = None
    ) -> Answer:
        """Run a command here."""
        complaints, theirs = os.pipe()
        process = subprocess.Popen(
            as_root(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs
        )
        os.close(theirs)
        err = bytearray()
        errors = _drained(lambda: os.read(complaints, 65536), err, hear)
        try:
            out, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"no answer within {timeout:g} s") from error
        finally:
            process.kill()
            process.wait()
            errors.join(1.0)
            # What it started may hold the other end for longer.
            if not errors.is_alive():
                os.close(complaints)
        return Answer(
            process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
        )

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        """The lines of a command here."""
        # A file takes what it complains of: a pipe that nobody reads might fill up.
        with tempfile.TemporaryFile("w+", errors="replace") as complaints:
            process = subprocess.Popen(
                as_root(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                errors="replace",
            )
            assert process.stdout is not None and process.stdin is not None
            try:
                yield from process.stdout
                if process.wait() != 0:
                    complaints.seek(0)
                    raise OpsError(
                        f"{self.host.name}: {Answer(1, '', complaints.read()).last_words}"
                    )
            finally:
                process.stdin.close()
                process.stdout.close()
                process.wait()

    def duplex(self, argv: Sequence[str]) -> socket.socket:
        """A socket whose other end is a command here."""
        ours, theirs = socket.socketpair()
        with theirs:
            end = theirs.fileno()
            subprocess.Popen(as_root(argv), stdin=end, stdout=end, stderr=subprocess.DEVNULL)
        return ours

    def connect(self, address: str, port: int) -> socket.socket:
        """A socket to an address."""
        try:
            return socket.create_connection((address, port), timeout=CONNECT_SECONDS)
        except OSError as error:
            raise Unreachable(_said(error)) from error

    def alive(self) -> bool:
        """It is here."""
        return True

    def close(self) -> None:
        """Nothing is held."""


def _collect(channel: paramiko.Channel, timeout: float, hear: Hear | None) -> Answer:
    """Read both outputs of a command to their end; neither may fill up while the other is read."""
    deadline = time.monotonic() + timeout
    out, err = bytearray(), bytearray()
    channel.shutdown_write()
    errors = _drained(lambda: channel.recv_stderr(65536), err, hear)
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            channel.settimeout(left)
            part = channel.recv(65536)
            if not part:
                break
            out += part
        if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
            raise TimeoutError
    except TimeoutError as error:
        raise Unreachable(f"no answer within {timeout:g} s") from error
    except (SSHException, OSError, EOFError) as error:
        raise Unreachable(f"the connection is lost: {_said(error)}") from error
    finally:
        channel.close()
    status = channel.recv_exit_status()
    if status < 0:
        raise Unreachable("the connection is lost")
    errors.join(1.0)
    return Answer(status, out.decode(errors="replace"), err.decode(errors="replace"))


def _drained(read: Callable[[], bytes], into: bytearray, hear: Hear | None) -> threading.Thread:
    """A thread that reads to the end, and passes on what it reads."""

    def drain() -> None:
        text = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(Exception):
            while part := read():
                into.extend(part)
                if hear is not None:
                    hear(text.decode(part))

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    return thread


def _locked(key: Path) -> bool:
    """Whether a private key cannot be read without its passphrase."""
    data = key.read_bytes()
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        load(data, None)
    except TypeError:
        return True
    except ValueError:
        # It is none, or of a kind that is not known here: the server's verdict stands.
        pass
    return False


def _first_cause(error: NoValidConnectionsError) -> str:
    return _said(next(iter(error.errors.values()), error))


def _said(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS:g} s"
    if isinstance(error, socket.gaierror):
        return "its name is unknown"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error)
    # What paramiko says of a server that is silent, too slow, or none of SSH.
    if "banner" in text or "No existing session" in text:
        return "no SSH server answers"
    return text or type(error).__name__
