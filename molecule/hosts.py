"""A scenario's hosts as its tests see them: inside by `docker exec`, from outside by TCP."""

from __future__ import annotations

import json
import resource
import select
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]

# Submits through the suite's own interface; printed is the ids of the runs.
SUBMIT = """
import json, sys
from ironbeat.dispatch.manager import Submit, TaskManager
task, calls = json.loads(sys.argv[1])
print(json.dumps(TaskManager().submit_many([Submit(task, tuple(each)) for each in calls])))
"""


@dataclass(frozen=True)
class Host:
    """A container that plays a host."""

    name: str
    address: str
    groups: tuple[str, ...]

    def run(
        self, command: str, *, user: str = "root", stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command inside, whatever it ends with."""
        become = (
            ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
            if user != "root"
            else []
        )
        arguments = ["docker", "exec", "-i", self.name, *become, "sh", "-c", command]
        return subprocess.run(arguments, input=stdin, capture_output=True, text=True, timeout=300)

    def out(self, command: str, **options: Any) -> str:
        """What a shell command inside prints; it must succeed."""
        done = self.run(command, **options)
        assert done.returncode == 0, f"{self.name}: {command}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def json(self, command: str) -> Any:
        """What a command inside prints as JSON, whatever it ends with."""
        done = self.run(command)
        assert done.stdout.strip(), f"{self.name}: {command}\n{done.stderr}"
        return json.loads(done.stdout)

    def http_status(self, url: str, header: str = "") -> int:
        """The status that an HTTP server gives this host, asked with that `Authorization`."""
        # The header comes by standard input, as a process list shows arguments.
        code = (
            "import sys, urllib.request, urllib.error\n"
            "request = urllib.request.Request(sys.argv[1])\n"
            "header = sys.stdin.readline().strip()\n"
            "if header: request.add_header('Authorization', header)\n"
            "try: print(urllib.request.urlopen(request, timeout=10).status)\n"
            "except urllib.error.HTTPError as error: print(error.code)\n"
        )
        return int(self.out(f'python3 -c "{code}" {url}', stdin=header + "\n"))

    def programs(self) -> dict[str, tuple[str, int | None]]:
        """supervisord's processes: name -> (state, pid)."""
        found = {}
        for line in self.run("supervisorctl status").stdout.splitlines():
            name, state, *rest = line.split()
            found[name] = (state, int(rest[1].rstrip(",")) if rest[:1] == ["pid"] else None)
        return found

    def reach(self, address: str, port: int) -> bool:
        """Whether this host can open a TCP connection to there."""
        return self.run(f"timeout 2 bash -c '</dev/tcp/{address}/{port}'").returncode == 0

    def docker(self, *verb: str) -> None:
        """`docker VERB … NAME`, such as restart or kill."""
        subprocess.run(["docker", *verb, self.name], check=True, capture_output=True, timeout=300)

    def open_ports(self) -> set[int]:
        """Every TCP port that answers from outside."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        step = min(hard - 500, 16000)
        return {
            port
            for first in range(1, 65536, step)
            for port in _answering(self.address, range(first, min(first + step, 65536)))
        }


def _answering(address: str, ports: Iterable[int], patience: float = 2.5) -> list[int]:
    """Those of `ports` that a connection opens to.

    The kernel opens them all at once and is asked afterwards, so that a busy machine, on which
    Python comes late, finds the same. The patience is enough to send a lost packet again.
    """
    waiting = {}
    try:
        for port in ports:
            attempt = socket.socket()
            attempt.setblocking(False)
            waiting[port] = attempt
            attempt.connect_ex((address, port))
        time.sleep(patience)
        ready = select.poll()
        for attempt in waiting.values():
            ready.register(attempt, select.POLLOUT)
        answered = {descriptor for descriptor, _ in ready.poll(0)}
        return [
            port
            for port, attempt in waiting.items()
            if attempt.fileno() in answered
            and not attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        ]
    finally:
        for attempt in waiting.values():
            attempt.close()


@dataclass(frozen=True)
class Suite:
    """All hosts of a scenario."""

    scenario: Path
    hosts: dict[str, Host]
    secrets: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, scenario: Path) -> Suite:
        """Read a scenario's inventory and the secrets its first run made."""
        listing = json.loads(
            subprocess.run(
                ["ansible-inventory", "-i", str(scenario / "inventory"), "--list"],
                check=True, capture_output=True, text=True, cwd=PROJECT,
            ).stdout
        )  # fmt: skip
        groups: dict[str, list[str]] = {}
        for group, content in listing.items():
            for name in content.get("hosts", []):
                groups.setdefault(name, []).append(group)
        variables = listing["_meta"]["hostvars"]
        hosts = {
            name: Host(name, variables[name]["ansible_host"], tuple(groups[name]))
            for name in sorted(groups)
        }
        vault = yaml.safe_load((scenario / "inventory/group_vars/all/vault.yml").read_text())
        return cls(scenario, hosts, vault)

    def group(self, name: str) -> list[Host]:
        """The hosts of a group."""
        return [host for host in self.hosts.values() if name in host.groups]

    def one(self, group: str) -> Host:
        """The first host of a group."""
        return self.group(group)[0]

    @property
    def service_hosts(self) -> list[Host]:
        """The hosts that run programs of the suite."""
        return [
            host for host in self.hosts.values() if {"beat", "workers", "web"} & set(host.groups)
        ]

    def sql(self, query: str) -> list[list[str]]:
        """Rows of the suite's database."""
        text = self.one("database").out(
            f"runuser -u postgres -- psql -XqtA -F '\t' -d ironbeat -c {shlex.quote(query)}"
        )
        return [line.split("\t") for line in text.splitlines()]

    def submit(self, task: str, seconds: Iterable[float]) -> list[str]:
        """Submit runs of a task of `errands`, each busy for so long; returns their ids."""
        return self.call(task, *([each] for each in seconds))

    def call(self, task: str, *calls: Sequence[Any]) -> list[str]:
        """Submit a run for each list of arguments; returns their ids."""
        asked = shlex.quote(json.dumps([task, calls]))
        command = (
            f"IRONBEAT_ENV_FILE=/etc/ironbeat/env /opt/ironbeat/current/venv/bin/python - {asked}"
        )
        return json.loads(self.service_hosts[0].out(command, user="ironbeat", stdin=SUBMIT))

    def ended(self, ids: Iterable[str]) -> dict[str, str]:
        """The states of those of these runs that have ended."""
        listed = ",".join(f"'{each}'" for each in ids)
        query = f"SELECT id, state FROM ironbeat.run_history WHERE id IN ({listed})"
        return {row[0]: row[1] for row in self.sql(query)}

    def executions(self, ids: Iterable[str]) -> dict[str, tuple[int, int]]:
        """How often each of these runs began and ended its body, on whatever host."""
        listed = ",".join(f"'{each}'" for each in ids)
        events = "count(*) FILTER (WHERE event = 'begin'), count(*) FILTER (WHERE event = 'end')"
        wanted = f"WHERE run_id IN ({listed}) GROUP BY run_id"
        rows = self.sql(f"SELECT run_id, {events} FROM errands.traces {wanted}")
        return {run: (int(begun), int(done)) for run, begun, done in rows}

    def healthy(self) -> bool:
        """Whether the suite says that it is."""
        done = self.service_hosts[0].run("ironbeat health --json")
        return done.returncode == 0 and json.loads(done.stdout)["status"] == "healthy"

    def playbook(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook on this scenario's inventory, whatever it ends with."""
        command = ["ansible-playbook", "-i", str(self.scenario / "inventory"), name, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=1700)

    def fab(self, task: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Type `fab` on the laptop, with this scenario's inventory, whatever it ends with."""
        return subprocess.run(
            self.fab_command(task, *arguments),
            capture_output=True,
            text=True,
            cwd=PROJECT,
            timeout=600,
        )

    def fab_command(self, task: str, *arguments: str) -> list[str]:
        """What is typed."""
        return ["fab", task, "-e", str(self.scenario / "inventory"), *arguments]


def wait_until(true: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until something is so; returns it. Fails with `what` when it does not come to be."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)
    return found
