"""Hosts that break under load: every submitted run and every due slot is accounted for.

As `python -m tests.faults` does with the programs of one machine, here with hosts: they are frozen,
killed, cut off, and lose packets. Each fault makes a row like those of the README.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts import PROJECT, Host, Suite, wait_until
from tests.faults.accounting import Traces, missed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

SCHEDULE = "errands-each-second"
SUBMISSIONS, TASK_SECONDS = 300, 0.05
# Beside what the fault takes itself: before it, and after it.
BEFORE_SECONDS, AFTER_SECONDS = 4.0, 10.0
#: What an execution on the host that breaks takes: longer than anybody may take to notice.
TAKEN_SECONDS = 12.0
NETWORK = "ironbeat-cluster"

#: Breaks a host until the block ends.
Break = Callable[[Host], AbstractContextManager[None]]


class Cluster:
    """The hosts under load, and what their tasks noted."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite

    def notes(self) -> dict[str, list[str]]:
        """The lines that tasks left, by host; a host that is away keeps its lines."""
        found = {}
        for host in self.suite.group("workers"):
            done = host.run("cat /var/lib/ironbeat/errands.notes")
            found[host.name] = done.stdout.splitlines() if done.returncode == 0 else []
        return found

    def begun(self, ids: list[str]) -> dict[str, set[str]]:
        """On which hosts these runs began."""
        hosts: dict[str, set[str]] = {}
        for host, lines in self.notes().items():
            for line in lines:
                event, id, _, _ = line.split()
                if event == "begin" and id in ids:
                    hosts.setdefault(id, set()).add(host)
        return hosts

    def busy(self, host: Host) -> list[str]:
        """Keep the workers of ``host`` busy for a while, and no others; returns its runs."""
        ids = self.suite.submit("errands.note", [TAKEN_SECONDS] * 4)
        wait_until(lambda: len(self.begun(ids)) == len(ids), 30, "four errands began")
        begun = self.begun(ids)
        there = [id for id in ids if host.name in begun[id]]
        # Who is to take them over has to be free: how long that takes is the question.
        for id in set(ids) - {*there}:
            self.suite.one("web").out(f"ironbeat cancel {id}")
        return there

    def taken_over(self, ids: list[str], host: Host) -> float:
        """Seconds until all of these runs began on another host than this one."""
        began = time.monotonic()
        others = [each for each in self.suite.group("workers") if each.name != host.name]

        def elsewhere() -> bool:
            seen = "".join(
                each.run("cat /var/lib/ironbeat/errands.notes").stdout for each in others
            )
            return all(f"begin {id} " in seen for id in ids)

        wait_until(elsewhere, 60, f"what ran on {host.name} begins elsewhere")
        return time.monotonic() - began

    def healthy_after(self) -> float:
        """Seconds until the suite says that it is well."""
        began = time.monotonic()
        wait_until(self.suite.healthy, 90, "healthy")
        return time.monotonic() - began

    def longest_without_a_fire(self, since: float) -> float:
        """The most seconds between a slot's time and its fire, of what fired since then."""
        late = self.suite.sql(
            "SELECT max(extract(epoch FROM f.fired_at - f.scheduled_for)) FROM ironbeat.fires f "
            "JOIN ironbeat.schedules s ON s.id = f.schedule_id "
            f"WHERE s.name = '{SCHEDULE}' AND f.scheduled_for > to_timestamp({since})"
        )
        return float(late[0][0])


@dataclass(frozen=True)
class Fault:
    """One row. ``act`` breaks a host, mends it and returns the seconds that ``recovered`` took.

    ``overlaps``: how many executions may overlap in principle, for each one in the middle there.
    """

    name: str
    component: str
    fault: str
    act: Callable[[Cluster], float]
    recovered: str
    lasts: float
    within: float = 10.0
    overlaps: int = 0


# -- faults


@contextmanager
def frozen(host: Host) -> Iterator[None]:
    host.docker("pause")
    try:
        yield
    finally:
        host.docker("unpause")


@contextmanager
def dead(host: Host) -> Iterator[None]:
    host.docker("kill")
    try:
        yield
    finally:
        host.docker("start")


@contextmanager
def cut_off(host: Host) -> Iterator[None]:
    network = ["docker", "network"]
    subprocess.run([*network, "disconnect", NETWORK, host.name], check=True, timeout=60)
    try:
        yield
    finally:
        connect = [*network, "connect", f"--ip={host.address}", NETWORK, host.name]
        subprocess.run(connect, check=True, timeout=60)


@contextmanager
def losing_packets(host: Host, percent: int) -> Iterator[None]:
    """So many of a hundred packets are lost, each way."""
    rules = "\n".join(
        f"add chain inet loss {way} {{ type filter hook {way} priority -300; }}\n"
        f"add rule inet loss {way} {card} != lo numgen random mod 100 < {percent} drop"
        for way, card in (("input", "iifname"), ("output", "oifname"))
    )
    host.out("nft -f -", stdin=f"add table inet loss\n{rules}\n")
    try:
        yield
    finally:
        host.out("nft delete table inet loss")


@contextmanager
def full(host: Host) -> Iterator[None]:
    """The file system that the broker writes to is full: 48 MB of memory."""
    where = "/var/lib/redis"
    host.out(
        f"systemctl stop redis-server && cp -a {where} /root/kept"
        f" && mount -t tmpfs -o size=48m,mode=0750,uid=redis,gid=redis tmpfs {where}"
        f" && cp -a /root/kept/. {where} && systemctl start redis-server"
    )
    host.run(f"dd if=/dev/zero of={where}/ballast bs=4k")
    try:
        yield
    finally:
        host.out(f"rm {where}/ballast")


def worker_goes(fault: Break, seconds: float) -> Callable[[Cluster], float]:
    """A worker host breaks in the middle of tasks, for so long."""

    def act(cluster: Cluster) -> float:
        host = cluster.suite.hosts["ironbeat-worker1"]
        ids = cluster.busy(host)
        assert ids, "no errand began on that host"
        began = time.monotonic()
        with fault(host):
            took = cluster.taken_over(ids, host)
            time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        return took

    return act


def beat_goes(fault: Break, seconds: float) -> Callable[[Cluster], float]:
    """One of the two beat hosts breaks for so long."""

    def act(cluster: Cluster) -> float:
        since = time.time()
        with fault(cluster.suite.hosts["ironbeat-beat1"]):
            time.sleep(seconds)
        return cluster.longest_without_a_fire(since)

    return act


def store_goes(group: str, fault: Break, seconds: float) -> Callable[[Cluster], float]:
    """The host of a store breaks for so long."""

    def act(cluster: Cluster) -> float:
        with fault(cluster.suite.one(group)):
            time.sleep(seconds)
        return cluster.healthy_after()

    return act


def bad_network(cluster: Cluster) -> float:
    """Nothing is taken over, as nobody is away: how long the suite then takes to be well."""
    with losing_packets(cluster.suite.hosts["ironbeat-worker1"], 20):
        time.sleep(15)
    return cluster.healthy_after()


def broker_full(cluster: Cluster) -> float:
    """The broker cannot write any more; it gets room again after a while."""
    host = cluster.suite.one("broker")
    with full(host):
        time.sleep(12)
    took = cluster.healthy_after()
    host.out(
        "systemctl stop redis-server && rm -r /root/kept && cp -a /var/lib/redis /root/kept"
        " && umount /var/lib/redis && cp -a /root/kept/. /var/lib/redis"
        " && systemctl start redis-server && rm -r /root/kept"
    )
    cluster.healthy_after()
    return took


ELSEWHERE = "what it executed begins elsewhere"
FIRES = "longest lateness of a fire"
WELL = "healthy after its return"
FAULTS = [
    Fault("worker-host-frozen", "worker host", "stands still for 20 s amid tasks, goes on",
          worker_goes(frozen, 20), ELSEWHERE, 40, overlaps=2),
    Fault("worker-host-killed", "worker host", "dies amid tasks, boots again",
          worker_goes(dead, 15), ELSEWHERE, 40),
    Fault("worker-host-cut-off", "worker host", "its cable is pulled for 20 s amid tasks",
          worker_goes(cut_off, 20), ELSEWHERE, 40, overlaps=2),
    Fault("worker-host-loses-packets", "network",
          "a worker host loses 20 % of its packets, each way, for 15 s",
          bad_network, "healthy afterwards", 30, overlaps=2),
    Fault("beat-host-frozen", "beat host", "one of two stands still for 20 s, goes on",
          beat_goes(frozen, 20), FIRES, 25, within=2),
    Fault("beat-host-killed", "beat host", "one of two dies, boots again",
          beat_goes(dead, 10), FIRES, 15, within=2),
    Fault("beat-host-cut-off", "beat host", "the cable of one of two is pulled for 20 s",
          beat_goes(cut_off, 20), FIRES, 25, within=2),
    Fault("broker-host-frozen", "broker host", "stands still for 15 s",
          store_goes("broker", frozen, 15), WELL, 30),
    Fault("broker-host-killed", "broker host", "dies, boots again after 10 s",
          store_goes("broker", dead, 10), WELL, 30),
    Fault("broker-host-cut-off", "broker host", "its cable is pulled for 15 s",
          store_goes("broker", cut_off, 15), WELL, 30),
    Fault("broker-host-full", "broker host", "the file system of Redis is full for 12 s",
          broker_full, "healthy after there is room", 45),
    Fault("database-host-frozen", "database host", "stands still for 15 s",
          store_goes("database", frozen, 15), WELL, 30),
    Fault("database-host-killed", "database host", "dies, boots again after 10 s",
          store_goes("database", dead, 10), WELL, 30),
    Fault("database-host-cut-off", "database host", "its cable is pulled for 15 s",
          store_goes("database", cut_off, 15), WELL, 30),
]  # fmt: skip


# -- accounting


@pytest.fixture(scope="module")
def cluster(suite: Suite) -> Iterator[Cluster]:
    """A schedule fires each second, beside whatever else there is."""
    wait_until(suite.healthy, 60, "healthy")
    host = suite.one("web")
    host.run(f"ironbeat schedule remove --yes {SCHEDULE}")
    host.out(f"ironbeat schedule add {SCHEDULE} --task errands.note --args '[0]' --every 1s"
             " --catch-up all --catch-up-max 1000 --overlap allow")  # fmt: skip
    yield Cluster(suite)
    host.out(f"ironbeat schedule remove --yes {SCHEDULE}")


@contextmanager
def load(suite: Suite, per_second: float) -> Iterator[list[str]]:
    """Submit at a steady rate from the web host; the list has the ids after the block."""
    python = "/opt/ironbeat/current/venv/bin/python"
    arguments = f"{SUBMISSIONS} {per_second} {TASK_SECONDS} errands.note"
    command = ["docker", "exec", "-i", suite.one("web").name, "setpriv", "--reuid=ironbeat",
               "--regid=ironbeat", "--init-groups", "env", "IRONBEAT_ENV_FILE=/etc/ironbeat/env",
               "sh", "-c", f"{python} - {arguments}"]  # fmt: skip
    submitted: list[str] = []
    source = (PROJECT / "tests/faults/load.py").read_text()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdin
        process.stdin.write(source)
        process.stdin.close()
        process.stdin = None
        yield submitted
        output, told = process.communicate(timeout=180)
        submitted += [line.split()[0] for line in output.splitlines()]
        assert len(submitted) == SUBMISSIONS, told
    finally:
        process.kill()
        process.wait()


def slots(suite: Suite, since: float, until: float) -> list[tuple[str, float, str]]:
    rows = suite.sql(
        "SELECT s.name, extract(epoch FROM f.scheduled_for), f.run_id FROM ironbeat.fires f "
        "JOIN ironbeat.schedules s ON s.id = f.schedule_id "
        f"WHERE s.name = '{SCHEDULE}' AND f.scheduled_for BETWEEN to_timestamp({since}) "
        f"AND to_timestamp({until}) ORDER BY f.scheduled_for"
    )
    return [(name, float(at), run) for name, at, run in rows]


def outcomes(suite: Suite, ids: list[str]) -> dict[str, tuple[int, str]]:
    listed = ",".join(f"'{each}'" for each in ids)
    rows = suite.sql(
        "SELECT id, count(*), min(state) FROM ironbeat.run_history "
        f"WHERE id IN ({listed}) GROUP BY id"
    )
    return {id: (int(count), state) for id, count, state in rows}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost_or_doubled(suite: Suite, cluster: Cluster, fault: Fault) -> None:
    wait_until(suite.healthy, 60, "healthy")
    since = time.time()
    with load(suite, SUBMISSIONS / (BEFORE_SECONDS + fault.lasts + AFTER_SECONDS)) as submitted:
        time.sleep(BEFORE_SECONDS)
        seconds = fault.act(cluster)
    due = slots(suite, since, time.time() - 5)
    expected = [*submitted, *(run for _, _, run in due)]
    wait_until(lambda: len(outcomes(suite, expected)) == len(set(expected)), 90, "all have ended")
    ended = outcomes(suite, expected)
    lost = [id for id in expected if ended[id][1] != "succeeded"]
    doubled = [id for id in set(expected) if ended[id][0] > 1]
    doubled += [id for id in set(expected) if expected.count(id) > 1]
    gaps = missed((name, at) for name, at, _ in due)
    traces = Traces.of((line for lines in cluster.notes().values() for line in lines), since)
    row(fault, len(expected), len(lost) + gaps, len(doubled), traces.overlapped, seconds)
    assert not lost
    assert gaps == 0
    assert not doubled
    assert traces.overlapped <= fault.overlaps
    assert seconds <= fault.within


def row(fault: Fault, runs: int, lost: int, doubled: int, overlapped: int, seconds: float) -> None:
    """Say what the fault came to, as the table has it."""
    most = f" (at most {fault.overlaps})" if fault.overlaps else ""
    line = (
        f"| {fault.component} | {fault.fault} | {runs:,} | {lost} | {doubled} | {overlapped}{most} "
        f"| {seconds:.1f} (≤ {fault.within:g}) | {fault.recovered} | `{fault.name}` |"
    )
    print(line, flush=True)
    if path := os.environ.get("IRONBEAT_FAULTS_REPORT"):
        with Path(path).open("a") as output:
            output.write(line + "\n")
