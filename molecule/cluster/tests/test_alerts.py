"""Each alert, fired by its real cause on seven hosts, arrives within its stated time, and ends.

Prometheus, Alertmanager and the rules are those that the role put on the host: nothing is
shortened. What bears one another is caused at the same time. It takes half an hour, nearly all of
it waiting, and wants a suite that has run little within the hour before: two of the rules look so
far back, and a thousand quick runs outweigh those that fail or take long here.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hosts import Host, Suite, wait_until
from tests.alerts.watching import STATED, Watching
from tests.receiver import Receiver, receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

#: Where the inventory sends alerts and pings: this machine, on the hosts' network.
ADDRESS, PORT = "172.30.20.1", 18099
#: The longest that a rule looks back, and how long Alertmanager may keep an end to itself.
END_SECONDS = 600 + 300 + 120.0
#: A task of so many seconds is a long one, and four of them keep every worker busy.
LONG_SECONDS, WORKERS = 660.0, 4
#: With its own 100 it stays below a worker's ceiling (640), and is above both limits.
MUCH_MB = 470
SCRAPE_SECONDS = 15
#: So many that one of them is below 5 %, and so few that the mean with the long ones is above 30 s.
QUICK_RUNS = 25
LONG_TASKS = "four tasks of eleven minutes, one of 570 MB, and fifteen that wait"

Begin = Callable[[Suite], AbstractContextManager[None]]


@dataclass(frozen=True)
class Cause:
    """What makes ``alerts`` arrive, as long as the block lasts.

    Each alert has the seconds that its cause must last to be one: a limit that is a length of time.
    """

    name: str
    begin: Begin
    alerts: dict[str, float]


@dataclass
class Watch:
    """What arrived, and what was measured."""

    watching: Watching
    received: Receiver
    arrived: dict[str, float] = field(default_factory=dict)
    #: When each arrived, and when its cause ended (seconds since the epoch).
    arrived_at: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    #: When the long tasks began (seconds since the epoch).
    long: float = 0.0

    def shows(self, suite: Suite, *causes: Cause) -> None:
        """Cause all of it at once, until every alert has arrived in time."""
        names = [alert for cause in causes for alert in cause.alerts]
        try:
            with ExitStack() as stack:
                began = {}
                for cause in causes:
                    began[cause.name] = time.time()
                    stack.enter_context(cause.begin(suite))
                late = {}
                for cause in causes:
                    since = {
                        alert: (began[cause.name], shown) for alert, shown in cause.alerts.items()
                    }
                    late |= self.missing(since, cause.name)
        finally:
            self.ended |= dict.fromkeys(names, time.time())
        assert not late

    def missing(self, due: dict[str, tuple[float, float]], cause: str) -> dict[str, str]:
        """Wait for alerts: since when, and what their cause takes. Returns those that are late."""
        late = {}
        for alert, (began, shown) in due.items():
            most = shown + STATED[alert]
            try:
                took = self.watching.until(alert, "firing", began, most)
            except AssertionError as error:
                late[alert] = str(error)
                continue
            self.arrived[alert], self.arrived_at[alert] = took, began + took
            report(f"| {cause} | `{alert}` | {took:.0f} s | {most:.0f} s |")
            if took > most:
                late[alert] = f"{alert}: {took:.0f} s"
        return late


def report(line: str) -> None:
    """A row of docs/monitoring.md, for whoever runs this with ``-s`` or keeps the file."""
    print(line, flush=True)
    if path := os.environ.get("IRONBEAT_ALERTS_REPORT"):
        with Path(path).open("a") as output:
            output.write(line + "\n")


@pytest.fixture(scope="module")
def watch(suite: Suite) -> Iterator[Watch]:
    """A receiver that hears Alertmanager, over a suite at rest."""
    wait_until(suite.healthy, 60, "healthy")
    with receiver(ADDRESS, PORT) as received:
        found = Watch(Watching(received, 0), received)
        wait_until(lambda: "/beat" in received.paths(), 90, "beat pings")
        wait_until(lambda: _firing(suite.one("monitoring")) == {"alerts_arrive"}, 400, "at rest")
        with nothing_fires(suite):
            # One run that dies is not to be one of few: `high_error_rate` is caused by others.
            ids = suite.submit("errands.run", [0.0] * QUICK_RUNS)
            wait_until(lambda: len(suite.ended(ids)) == len(ids), 60, "the quick runs ended")
            time.sleep(2 * SCRAPE_SECONDS)
            yield found


@contextmanager
def nothing_fires(suite: Suite) -> Iterator[None]:
    """No schedule fires, so that what runs is what a cause needs; afterwards all do again."""
    paused = (
        "WITH off AS (UPDATE ironbeat.schedules SET enabled = false WHERE enabled RETURNING name)"
        " SELECT name FROM off"
    )
    names = [row[0] for row in suite.sql(paused)]
    try:
        yield
    finally:
        listed = f"ANY (string_to_array('{','.join(names)}', ','))"
        suite.sql(f"UPDATE ironbeat.schedules SET enabled = true WHERE name = {listed}")


@contextmanager
def ticking(suite: Suite) -> Iterator[None]:
    """One schedule fires every five seconds."""
    host = suite.service_hosts[0]
    host.out("ironbeat schedule resume errands-tick")
    try:
        yield
    finally:
        host.out("ironbeat schedule pause errands-tick")


# -- causes


def stopped(group: str, stop: str, start: str) -> Begin:
    """A command on every host of a group, and another one afterwards."""

    @contextmanager
    def begin(suite: Suite) -> Iterator[None]:
        for host in suite.group(group):
            host.out(stop)
        try:
            yield
        finally:
            for host in suite.group(group):
                host.out(start)

    return begin


def programs(group: str, name: str) -> Begin:
    """The programs of that name are stopped."""
    return stopped(group, f"supervisorctl stop {name}", f"supervisorctl start {name}")


def services(group: str, name: str) -> Begin:
    """A service of systemd is stopped."""
    return stopped(group, f"systemctl stop {name}", f"systemctl start {name}")


def as_admin(command: str) -> str:
    """A command to the broker, by the user who may do everything."""
    return f"read -r REDISCLI_AUTH; export REDISCLI_AUTH; redis-cli --user admin {command}"


def broker(suite: Suite, command: str) -> str:
    secret = suite.secrets["vault_redis_admin_password"]
    return suite.one("broker").out(as_admin(command), stdin=secret + "\n")


@contextmanager
def unsafe_broker(suite: Suite) -> Iterator[None]:
    """Its append-only file is off, and it has a tenth more memory than it uses."""
    limit = broker(suite, "config get maxmemory").split()[-1]
    memory = dict(
        line.split(":", 1) for line in broker(suite, "info memory").splitlines() if ":" in line
    )
    broker(suite, "config set appendonly no")
    broker(suite, f"config set maxmemory {int(memory['used_memory']) * 11 // 10}")
    try:
        yield
    finally:
        broker(suite, f"config set maxmemory {limit}")
        broker(suite, "config set appendonly yes")


@contextmanager
def rubbish(suite: Suite) -> Iterator[None]:
    """Somebody sends what is no message."""
    broker(suite, "-n 1 lpush errands rubbish")
    try:
        yield
    finally:
        broker(suite, "-n 1 del ironbeat.unreadable")


@contextmanager
def crashing_task(suite: Suite) -> Iterator[None]:
    """A task that kills every worker that takes it; it is dropped as the runbook has it."""
    suite.call("errands.crash", [])
    try:
        yield
    finally:
        suite.service_hosts[0].out("ironbeat dead drop --all --yes")


@contextmanager
def frozen_workers(suite: Suite) -> Iterator[None]:
    """All worker processes stand still; their watchdogs end them."""
    for host in suite.group("workers"):
        found = host.programs().items()
        pids = [str(pid) for name, (_, pid) in found if name.startswith("worker:")]
        host.out(f"kill -STOP {' '.join(pids)}")
    yield


@contextmanager
def short_certificate(suite: Suite) -> Iterator[None]:
    """The proxy serves a certificate of ten days."""
    host = suite.one("proxy")
    certificate, key = (
        host.out(f"nginx -T 2>/dev/null | sed -n 's/^ *{name} \\(.*\\);/\\1/p' | head -n 1")
        for name in ("ssl_certificate", "ssl_certificate_key")
    )
    host.out(f"cp -p {certificate} /root/kept.pem && cp -p {key} /root/kept.key")
    host.out(
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=ironbeat -days 10"
        f" -keyout {key} -out {certificate} 2>&1 && systemctl reload nginx"
    )
    try:
        yield
    finally:
        host.out(f"mv /root/kept.pem {certificate} && mv /root/kept.key {key}")
        host.out("systemctl reload nginx")


@contextmanager
def refusing_monitor(watch: Watch) -> Iterator[None]:
    """The outside monitor answers every ping with an error."""
    watch.received.refused = ("/beat",)
    try:
        yield
    finally:
        watch.received.refused = ()


@contextmanager
def full_disk(suite: Suite) -> Iterator[None]:
    """A file system of 64 MB on the broker's host is full."""
    host = suite.one("broker")
    image = Path(f"/tmp/{host.name}.disk")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    machine("mkfs.ext4", "-q", "-m", "0", str(image))
    device = machine("losetup", "--find", "--show", str(image))
    number = device.removeprefix("/dev/loop")
    try:
        host.out(f"mkdir -p /srv/small && mknod /root/disk b 7 {number}")
        pid = machine("docker", "inspect", "-f", "{{.State.Pid}}", host.name)
        # A container may not open a disk: its mount is made from here.
        machine("nsenter", f"--target={pid}", "--mount", "mount", "/root/disk", "/srv/small")
        host.run("dd if=/dev/zero of=/srv/small/ballast bs=1M")
        yield
        host.out("umount /srv/small && rm -r /srv/small /root/disk")
    finally:
        machine("losetup", "--detach", device)
        image.unlink()


def machine(*command: str) -> str:
    """What a command on this machine prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


def has_disks() -> bool:
    """Whether this machine can make a small disk for a host."""
    return os.geteuid() == 0 and Path("/dev/loop-control").exists()


@contextmanager
def failing_tasks(suite: Suite) -> Iterator[None]:
    """Twenty runs fail."""
    suite.call("errands.fail", *([],) * 20)
    yield


@contextmanager
def busy_workers(suite: Suite) -> Iterator[None]:
    """Every worker has a long task, one of which needs much memory, and fifteen more wait."""
    ids = suite.call("errands.fill", [MUCH_MB, LONG_SECONDS], *([1, LONG_SECONDS],) * (WORKERS - 1))
    wait_until(lambda: len(suite.executions(ids)) == WORKERS, 60, "all workers are busy")
    suite.submit("errands.run", [0.0] * 15)
    yield
    wait_until(lambda: len(suite.ended(ids)) == WORKERS, LONG_SECONDS, "the long tasks ended")


@contextmanager
def no_store(suite: Suite) -> Iterator[None]:
    """Redis is away, and then everybody who publishes and draws."""
    with services("broker", "redis-server")(suite):
        yield
    wait_until(suite.healthy, 90, "healthy again")


@contextmanager
def nobody_publishes(suite: Suite) -> Iterator[None]:
    """Runs are submitted while neither the broker nor a beat or worker is there."""
    with ExitStack() as stack:
        stack.enter_context(no_store(suite))
        stack.enter_context(programs("beat", "beat")(suite))
        stack.enter_context(programs("workers", "worker:*")(suite))
        suite.submit("errands.run", [0.0] * 5)
        yield


@contextmanager
def full_queue(suite: Suite) -> Iterator[None]:
    """1,100 runs are submitted while no worker is there."""
    with programs("workers", "worker:*")(suite):
        suite.submit("errands.run", [0.0] * 1100)
        yield


# -- what arrives


def test_what_happens_to_single_parts(suite: Suite, watch: Watch) -> None:
    causes = [
        Cause("the outside monitor refuses pings", lambda _: refusing_monitor(watch),
              {"heartbeat_refused": 300}),
        Cause("a node exporter is stopped", services("database", "prometheus-node-exporter"),
              {"exporter_down": 0}),
        Cause("a certificate of ten days is served", short_certificate, {"certificate_expires": 0}),
        Cause("append-only file off, and little memory", unsafe_broker,
              {"broker_unsafe": 0, "broker_memory": 0}),
        Cause("rubbish in a queue", rubbish, {"unreadable_messages": 0}),
        # Three workers die of it, each after the one before was seen to be dead.
        Cause("a task kills its workers", crashing_task, {"lease_lost": 0, "dead_letters": 60}),
    ]  # fmt: skip
    if has_disks():
        causes.append(Cause("a file system is full", full_disk, {"disk_full": 0}))
    watch.shows(suite, *causes)


def test_workers_stand_still(suite: Suite, watch: Watch) -> None:
    """All of them: what one alone held, another one takes over before anybody calls it silent."""
    watch.shows(
        suite,
        Cause("all workers stand still (SIGSTOP)", frozen_workers,
              {"worker_silent": 30, "processes_stuck": 75}),
    )  # fmt: skip


def test_what_takes_long(suite: Suite, watch: Watch) -> None:
    wait_until(suite.healthy, 120, "healthy")
    # What a counter shows first is no increase: these tasks have been run before.
    suite.call("errands.fill", [1, 0.0])
    suite.submit("errands.run", [0.0])
    time.sleep(2 * SCRAPE_SECONDS)
    watch.long = time.time()
    watch.shows(
        suite,
        Cause("twenty runs fail", failing_tasks, {"high_error_rate": 0, "success_rate": 0}),
        Cause(LONG_TASKS, busy_workers,
              {"memory_high": 0, "worker_memory": 0, "message_waits": 300, "queue_length": 0,
               "task_running_long": 600}),
    )  # fmt: skip


def test_no_beat(suite: Suite, watch: Watch) -> None:
    with ticking(suite):
        watch.shows(
            suite,
            Cause("beat is stopped on both hosts", programs("beat", "beat"),
                  {"no_tick": 0, "beat_response": 5, "schedule_missed": 60}),
        )  # fmt: skip
        # What was due meanwhile fires now.
        watch.shows(suite, Cause("beat comes back", lambda _: nullcontext(), {"fires_late": 0}))


def test_no_broker(suite: Suite, watch: Watch) -> None:
    watch.shows(suite, Cause("Redis is stopped", no_store, {"store_down": 0, "fallback_active": 0}))
    watch.shows(
        suite,
        Cause("five runs while Redis, beat and workers are stopped", nobody_publishes,
              {"outbox_age": 60}),
    )  # fmt: skip


def test_the_mean_of_what_ran_long(suite: Suite, watch: Watch) -> None:
    """Those of eleven minutes, which have ended since; the minutes that it takes pass meanwhile."""
    assert watch.long, "the long tasks did not run"
    assert not watch.missing({"mean_run_time": (watch.long, LONG_SECONDS)}, LONG_TASKS)


def test_no_worker(suite: Suite, watch: Watch) -> None:
    watch.shows(
        suite,
        Cause("1,100 runs while no worker runs", full_queue,
              {"celery_worker_down": 0, "high_queue_length": 0, "consumer_stalled": 0}),
    )  # fmt: skip
    # 1,100 quick runs that succeed are the cure of these.
    watch.ended |= dict.fromkeys(("success_rate", "mean_run_time"), time.time())


def test_no_api(suite: Suite, watch: Watch) -> None:
    watch.shows(suite, Cause("the API is stopped", programs("web", "api"), {"api_down": 0}))


def test_every_alert_arrived(watch: Watch) -> None:
    without = {"alerts_arrive"} | (set() if has_disks() else {"disk_full"})
    assert set(STATED) - set(watch.arrived) == without


def test_every_alert_ends(suite: Suite, watch: Watch) -> None:
    lasting = {}
    for alert, at in watch.ended.items():
        # A watchdog, say, may mend what is wrong before its cause ends.
        early = max(0.0, at - watch.arrived_at.get(alert, at))
        try:
            took = watch.watching.until(alert, "resolved", at - early, early + END_SECONDS)
            report(f"{alert} ended after {max(0.0, took - early):.0f} s")
        except AssertionError as error:
            lasting[alert] = str(error)
    assert not lasting
    host = suite.one("monitoring")
    wait_until(lambda: _firing(host) == {"alerts_arrive"}, END_SECONDS, "nothing fires any more")


def _firing(host: Host) -> set[str]:
    """The names of what fires, by Prometheus itself."""
    url = "http://127.0.0.1:9090/api/v1/alerts"
    told = host.out(
        "python3 -c 'import sys, urllib.request as u; "
        f'sys.stdout.write(u.urlopen("{url}", timeout=5).read().decode())\''
    )
    alerts = json.loads(told)["data"]["alerts"]
    return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}
