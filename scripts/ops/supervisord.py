"""supervisord's own interface, XML-RPC, spoken over its Unix socket by way of the host's SSH."""

from __future__ import annotations

import http.client
import xmlrpc.client  # what supervisord speaks; it comes through the host's SSH
from pathlib import Path
from typing import Any

from scripts.ops.failures import OpsError
from scripts.ops.processes import Bounds, Process, from_info
from scripts.ops.reach import Reach

SOCKET = "/run/ironbeat/supervisor.sock"
ANSWER_SECONDS = 15.0
TAIL_BYTES = 4000
_RELAY = (Path(__file__).parent / "onhost" / "relay.py").read_text()


class SupervisorError(OpsError):
    """supervisord does not answer, or refuses what it was asked; the message says why."""


class _Connection(http.client.HTTPConnection):
    """HTTP to the socket, whose other end is on the host."""

    def __init__(self, reach: Reach, path: str) -> None:
        super().__init__("localhost")
        self._reach = reach
        self._path = path

    def connect(self) -> None:
        """Have the host join its socket to this connection."""
        self.sock = self._reach.duplex(["python3", "-IS", "-c", _RELAY, self._path])
        self.sock.settimeout(ANSWER_SECONDS)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, reach: Reach, path: str) -> None:
        super().__init__()
        self._reach = reach
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        """One connection for all calls, for as long as supervisord keeps it."""
        if self._connection[1] is None:
            self._connection = host, _Connection(self._reach, self._path)
        connection = self._connection[1]
        assert connection is not None
        return connection


class Supervisor:
    """The supervisord of a host. All methods raise :class:`SupervisorError`."""

    def __init__(self, reach: Reach, path: str = SOCKET) -> None:
        self._path = path
        self._transport = _Transport(reach, path)
        self._proxy = xmlrpc.client.ServerProxy("http://localhost", transport=self._transport)

    def processes(self) -> list[Process]:
        """All its processes, by group and name."""
        return [from_info(each) for each in self._call("getAllProcessInfo")]

    def process(self, full_name: str) -> Process:
        """One process, by its full name."""
        return from_info(self._call("getProcessInfo", full_name))

    def bounds(self) -> dict[str, Bounds]:
        """For each process, by full name, how long stopping and starting it may take."""
        found = {}
        for each in self._call("getAllConfigInfo"):
            group, name = each["group"], each["name"]
            full = name if group == name else f"{group}:{name}"
            found[full] = Bounds(int(each["stopwaitsecs"]), int(each["startsecs"]))
        return found

    def last_words(self, full_name: str) -> str:
        """The last two lines that a process logged: what is wrong and what to do, as it goes."""
        text = self._call("tailProcessStdoutLog", full_name, 0, TAIL_BYTES)[0]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return "; ".join(lines[-2:])

    def changed_groups(self) -> tuple[str, ...]:
        """The groups whose files differ from what runs; files are read, nothing is restarted."""
        ((_, changed, _),) = self._call("reloadConfig")
        return tuple(changed)

    def terminate(self, full_name: str) -> None:
        """Ask a process to end; supervisord starts it again when it has."""
        self._call("signalProcess", full_name, "TERM")

    def kill(self, full_name: str) -> None:
        """End a process in the middle of what it does; supervisord starts it again."""
        self._call("signalProcess", full_name, "KILL")

    def start(self, full_name: str) -> None:
        """Start a process that does not run, without waiting for it."""
        self._call("startProcess", full_name, False)

    def stop_group(self, group: str) -> None:
        """Ask all processes of a group to end and to stay down, without waiting for them."""
        self._call("stopProcessGroup", group, False)

    def replace_group(self, group: str) -> None:
        """Take a stopped group's new definition from its files, and start it."""
        self._call("removeProcessGroup", group)
        self._call("addProcessGroup", group)

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.close()

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as error:
            raise SupervisorError(f"supervisord refuses {method}: {error.faultString}") from error
        except TimeoutError as error:
            self.close()
            raise SupervisorError(
                f"supervisord does not answer within {ANSWER_SECONDS:g} s"
            ) from error
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            self.close()
            raise SupervisorError(
                f"supervisord does not answer on {self._path}",
                "On the host: systemctl status supervisor",
            ) from error
