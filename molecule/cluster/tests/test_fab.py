"""The laptop's commands on seven hosts: what they show, what they change, and when one is down."""

from __future__ import annotations

import http.client
import json
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hosts import PROJECT, Host, Suite, wait_until

# A restart waits for tasks of 20 s, four times.
pytestmark = pytest.mark.timeout(900)

# The statuses that `scripts.ops.failures` names.
UNHEALTHY, USAGE, NOT_FOUND, UNREACHABLE, REFUSED = 1, 2, 3, 4, 6


class Fab:
    """`fab` as an operator types it, on this scenario's inventory."""

    def __init__(self, suite: Suite):
        self.command, self.run = suite.fab_command, suite.fab

    def json(self, task: str, *arguments: str, status: int = 0) -> Any:
        """The document that it prints; it must end with ``status``."""
        done = self.run(task, *arguments, "--json")
        assert done.returncode == status, f"{task}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    @contextmanager
    def going(self, task: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run it until Ctrl-C, which must end it well."""
        process = subprocess.Popen(
            self.command(task, *arguments),
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            # Whoever runs the tests in the background of a shell has them ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def fab(suite: Suite) -> Fab:
    wait_until(suite.healthy, 60, "healthy")
    return Fab(suite)


@pytest.fixture
def paused(suite: Suite) -> Iterator[Host]:
    """A worker host that is frozen in the middle of everything."""
    host = suite.group("workers")[1]
    host.docker("pause")
    yield host
    host.docker("unpause")
    wait_until(suite.healthy, 60, "healthy again")


def took(action: Callable[[], Any]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def pids(suite: Suite) -> dict[tuple[str, str], int | None]:
    return {
        (host.name, program): pid
        for host in suite.service_hosts
        for program, (_, pid) in host.programs().items()
    }


def one_errand(suite: Suite, task: str, seconds: float) -> str:
    (id,) = suite.submit(task, [seconds])
    return id


# -- looking


def test_status_shows_every_program_of_every_host(suite: Suite, fab: Fab) -> None:
    told = fab.json("status")
    assert told["status"] == "healthy" and told["problems"] == []
    assert {host["host"] for host in told["hosts"]} == set(suite.hosts)
    found = {host["host"]: host for host in told["hosts"]}
    for host in suite.service_hosts:
        running = {
            program.rpartition(":")[2]: pid for program, (_, pid) in host.programs().items() if pid
        }
        shown = {each["name"]: each["pid"] for each in found[host.name]["programs"]}
        assert running.items() <= shown.items()
        assert host.out("readlink /opt/ironbeat/current").endswith(found[host.name]["release"])
        for each in found[host.name]["programs"]:
            assert each["memory_mb"] > 1 and each["state"] == "running"
    names = {each["name"] for host in told["hosts"] for each in host["programs"]}
    assert {"postgresql@17-main", "redis-server", "nginx"} <= names
    assert any(beat["tick_age_seconds"] < 30 for beat in told["suite"]["beats"])
    assert {queue["name"] for queue in told["suite"]["queues"]} >= {"default", "errands"}


def test_status_takes_under_three_seconds(fab: Fab) -> None:
    # A machine that is busy with something else gets more tries, and the same bound.
    wait_until(lambda: took(lambda: fab.run("status")) < 3, 120, "a status within 3 s")


def test_health_looks_at_everything(suite: Suite, fab: Fab) -> None:
    told = fab.json("health")
    assert told["status"] == "healthy"
    names = {(check["host"], check["name"]) for check in told["checks"]}
    assert {check["verdict"] for check in told["checks"]} == {"ok"}
    for host in suite.hosts:
        assert {(host, "reachable"), (host, "clock"), (host, "disk /"), (host, "memory")} <= names
    for host in suite.service_hosts:
        mine = {name for where, name in names if where == host.name}
        assert {"database", "redis", "celery_worker", "beat", "pidfiles", "programs"} <= mine
    web = suite.one("web").name
    assert {(web, "api"), (web, "flower")} <= names
    assert (suite.one("proxy").name, "certificate") in names


def test_health_sees_a_pidfile_that_lies(suite: Suite, fab: Fab) -> None:
    worker = suite.one("workers")
    file = "/run/ironbeat/programs/worker_00.pid"
    pid = worker.out(f"cat {file}")
    worker.out(f"echo 1 >{file}")
    try:
        told = fab.json("health", "--limit", worker.name, status=UNHEALTHY)
    finally:
        worker.out(f"echo {pid} >{file}")
    bad = [check["said"] for check in told["checks"] if check["verdict"] == "bad"]
    assert bad == [f"worker_00.pid says 1; it runs as {pid}"]


def test_health_sees_a_certificate_that_is_not_served(suite: Suite, fab: Fab) -> None:
    proxy = suite.one("proxy")
    directory = "/etc/ironbeat-proxy"
    proxy.out(
        f"cp -a {directory}/certificate.pem /root/served.pem && openssl req -x509 -newkey ed25519 "
        f"-nodes -days 3 -subj /CN=other -keyout /dev/null -out {directory}/certificate.pem"
    )
    try:
        told = fab.json("health", "--limit", proxy.name, status=UNHEALTHY)
    finally:
        proxy.out(f"cp -a /root/served.pem {directory}/certificate.pem; rm /root/served.pem")
    bad = [check["said"] for check in told["checks"] if check["verdict"] == "bad"]
    assert bad == [
        "expires in 3 days",
        "the one that is served is not the one in its file: systemctl reload nginx",
    ]


def test_the_report_is_one_page_that_asks_nobody(suite: Suite, fab: Fab, tmp_path: Path) -> None:
    id = one_errand(suite, "errands.run", 0.1)
    wait_until(lambda: suite.ended([id]), 60, "the errand ended")
    told = fab.json("report", "--since", "1h")
    ran = {group["task"] for group in told["report"]["between"]["groups"]}
    assert {"errands.run", "errands.tick"} <= ran
    assert sum(step["succeeded"] for step in told["report"]["course"]) > 0
    file = tmp_path / "report.html"
    done = fab.run("report", "--since", "1h", "--html", str(file))
    assert done.returncode == 0, done.stderr
    text = file.read_text()
    assert text.count("<svg") >= 2 and all(host in text for host in suite.hosts)
    assert not re.search(r"https?:|src=|href=|url\(|<script", text)


def test_queues(fab: Fab) -> None:
    told = fab.json("queues")
    found = {queue["name"]: queue for queue in told["queues"]}
    assert found["errands"]["length"] is not None and found["errands"]["consumers"] == 4


# -- a host that is down


def test_a_host_that_is_down_is_named_and_hides_nobody(
    suite: Suite, fab: Fab, paused: Host
) -> None:
    told = fab.json("status", status=UNHEALTHY)
    found = {host["host"]: host for host in told["hosts"]}
    assert found.pop(paused.name)["unreachable"]
    assert all(host["unreachable"] is None and host["programs"] for host in found.values())
    assert told["suite"]["queues"]
    assert [problem for problem in told["problems"] if paused.name in problem]
    # As above: more tries where the machine is busy, and the same bound.
    wait_until(lambda: took(lambda: fab.run("status")) < 10, 120, "a status within 10 s")
    checks = fab.json("health", status=UNHEALTHY)["checks"]
    assert [check["host"] for check in checks if check["verdict"] == "bad"] == [paused.name]
    logs = fab.run("logs", "--lines", "5")
    assert logs.returncode == UNREACHABLE
    assert len(logs.stdout.splitlines()) >= 5 and paused.name in logs.stderr


def test_a_restart_does_not_begin_while_a_host_is_down(
    suite: Suite, fab: Fab, paused: Host
) -> None:
    done = fab.run("restart", "--program", "worker")
    assert done.returncode == REFUSED
    assert f"nothing was restarted: {paused.name}" in done.stderr
    assert "--limit '!HOST'" in done.stderr


# -- logs


def log_lines(fab: Fab, *arguments: str) -> list[dict[str, Any]]:
    done = fab.run("logs", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_logs_of_all_hosts_are_merged_by_time(suite: Suite, fab: Fab) -> None:
    ids = suite.submit("errands.run", [0.5] * 16)
    wait_until(lambda: len(suite.ended(ids)) == len(ids), 60, "all errands ended")
    found = log_lines(fab, "--lines", "0", "--since", "10m", "--grep", r"errands\.run\[")
    times = [line["time"] for line in found]
    assert times == sorted(times)
    assert {line["host"] for line in found} == {host.name for host in suite.group("workers")}
    mine = log_lines(fab, "--task", ids[0])
    assert mine and {line["fields"]["task_id"] for line in mine} == {ids[0]}
    assert log_lines(fab, "--task", ids[0], "--until", "1h") == []
    beats = log_lines(fab, "--program", "beat", "--since", "1d", "--lines", "5")
    assert {line["process"] for line in beats} == {"beat"}


def test_logs_are_followed(suite: Suite, fab: Fab) -> None:
    with fab.going("logs", "--follow", "--lines", "1", "--task", "errands.run") as process:
        assert process.stdout is not None
        seen: set[str] = set()

        def read() -> None:
            for line in process.stdout or ():
                seen.update(re.findall(r"errands\.run\[([0-9a-f-]{36})\] succeeded", line))

        threading.Thread(target=read, daemon=True).start()
        id = one_errand(suite, "errands.run", 0)
        # It may have begun to follow after the first errand was done already.
        wait_until(lambda: id in seen or one_errand(suite, "errands.run", 0) in seen, 60, "a line")


# -- one run


def test_a_run_is_shown_and_cancelled(suite: Suite, fab: Fab) -> None:
    id = one_errand(suite, "errands.haul", 120)
    wait_until(lambda: suite.executions([id]), 60, "the errand began")
    assert fab.json("task", id[:13])["id"] == id
    would = fab.json("cancel", id, "--dry-run")
    assert would["dry_run"] and would["now"]["state"] == "running"
    assert fab.json("task", id)["state"] == "running"
    assert fab.run("cancel", id, "--reason", "enough of it").returncode == 0
    wait_until(lambda: suite.ended([id]), 60, "the errand ended")
    told = fab.json("task", id)
    assert told["state"] == "cancelled"
    assert suite.executions([id]) == {id: (1, 0)}


def test_a_run_that_is_not_there(fab: Fab) -> None:
    for task in ("task", "cancel"):
        done = fab.run(task, "no-such-run")
        assert done.returncode == NOT_FOUND and "no run 'no-such-run'" in done.stderr


# -- schedules


def test_schedules_are_changed_and_a_dry_run_changes_nothing(fab: Fab) -> None:
    name = "errands-by-fab"
    adding = ("schedule.add", name, "--task", "errands.tick", "--set", "every=1h")
    assert fab.json(*adding, "--dry-run")["run"].startswith("ironbeat schedule add")
    assert fab.run("schedule.show", name).returncode == NOT_FOUND
    assert fab.run(*adding).returncode == 0
    try:
        fab.json("schedule.pause", name, "--dry-run")
        assert fab.json("schedule.show", name)["enabled"]
        assert fab.run("schedule.pause", name).returncode == 0
        assert not fab.json("schedule.show", name)["enabled"]
        assert fab.run("schedule.resume", name).returncode == 0
        assert fab.run("schedule.edit", name, "--set", "every=2h").returncode == 0
        shown = fab.json("schedule.show", name)
        assert shown["enabled"] and shown["expression"] == "2h"
        assert len(fab.json("schedule.next", name, "--count", "3")) == 3
        ran = fab.json("schedule.run", name, "--wait")
        assert ran["state"] == "succeeded"
        refused = fab.run("schedule.edit", name, "--set", "every=often")
        assert refused.returncode == USAGE and "Nothing was changed" in refused.stderr
    finally:
        assert fab.run("schedule.remove", name).returncode == REFUSED
        assert fab.run("schedule.remove", name, "--yes").returncode == 0
    assert name not in json.dumps(fab.json("schedule.list"))


# -- the tunnel


def test_the_tunnel_brings_flower_and_the_api_to_the_laptop(fab: Fab) -> None:
    ports = ("--flower-port", "0", "--api-port", "0")
    with fab.going("tunnel", *ports, "--json") as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        urls = {name: urlsplit(url) for name, url in told["urls"].items()}

        def ask(name: str, path: str) -> http.client.HTTPResponse:
            assert urls[name].hostname == "127.0.0.1"
            connection = http.client.HTTPConnection("127.0.0.1", urls[name].port, timeout=20)
            connection.request("GET", path)
            return connection.getresponse()

        assert ask("flower", urls["flower"].path).status == 401
        health = ask("api", "/health")
        assert health.status in (200, 401) and health.read()
        assert ask("api", "/api/runs").status == 401


# -- restarts


def test_a_dry_run_of_a_restart_shows_the_plan_and_touches_nothing(suite: Suite, fab: Fab) -> None:
    before = pids(suite)
    waves = fab.json("restart", "--dry-run")["waves"]
    groups = [wave["group"] for wave in waves]
    assert groups.count("beat") == 2 and groups[-2:] == ["worker", "worker"]
    assert pids(suite) == before
    refused = fab.run("restart", "--dry-run", "--serial", "2", "--program", "beat")
    assert refused.returncode == REFUSED and "would stop every beat at once" in refused.stderr


def running_throughout(suite: Suite, ids: Sequence[str], begin: str, end: str) -> tuple[int, float]:
    """The least number of errands that ran at a time, and the longest while without an end of one,
    between the two times."""
    listed = ",".join(f"'{each}'" for each in ids)
    rows = suite.sql(
        "SELECT min(running), max(extract(epoch FROM at - before)) FROM (SELECT at, "
        "sum(CASE event WHEN 'begin' THEN 1 ELSE -1 END) OVER (ORDER BY at) AS running, "
        "lag(at) OVER (ORDER BY at) AS before "
        f"FROM errands.traces WHERE run_id IN ({listed})) AS steps "
        f"WHERE at > '{begin}' AND at < '{end}'"
    )
    return int(rows[0][0]), float(rows[0][1])


def test_a_restart_under_load_loses_doubles_and_kills_nothing(suite: Suite, fab: Fab) -> None:
    """Every worker process of both hosts is busy with tasks of 0 to 20 s, and a queue waits."""
    chance = random.Random(7)
    before = pids(suite)
    ids: list[str] = []
    over = threading.Event()

    def feed() -> None:
        while not over.is_set():
            waiting = len(ids) - len(suite.executions(ids)) if ids else 0
            if waiting < 12:
                ids.extend(suite.submit("errands.run", [chance.uniform(0, 20) for _ in range(12)]))
            over.wait(1)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        wait_until(lambda: ids and len(suite.executions(ids)) >= 4, 60, "four errands began")
        ((begin,),) = suite.sql("SELECT clock_timestamp()")
        told = fab.json("restart", "--program", "worker")
        ((end,),) = suite.sql("SELECT clock_timestamp()")
    finally:
        over.set()
        feeder.join()
    assert told["outcome"] == "done" and told["left"] == []
    assert len(told["restarted"]) == 4
    assert all(each["ok"] and not each["killed"] for each in told["restarted"])
    after = pids(suite)
    workers = {each for each in before if each[1].startswith("worker")}
    assert len(workers) == 4 and all(before[each] != after[each] for each in workers)
    assert all(before[each] == after[each] for each in before.keys() - workers)
    # One process at a time, one host after the other.
    hosts = [each["host"] for each in told["restarted"]]
    assert hosts == sorted(hosts, key=hosts.index) and len(set(hosts)) == 2
    wait_until(lambda: len(suite.ended(ids)) == len(ids), 300, "all errands ended")
    assert set(suite.ended(ids).values()) == {"succeeded"}
    # Begun once and ended once: nothing was cut off, nothing came twice.
    assert suite.executions(ids) == dict.fromkeys(ids, (1, 1))
    least, longest = running_throughout(suite, ids, begin, end)
    assert least >= 1 and longest < 21


def test_a_restart_stops_at_the_first_process_that_does_not_come_back(
    suite: Suite, fab: Fab
) -> None:
    first, second = suite.group("workers")
    plan = fab.json("restart", "--dry-run", "--program", "worker")
    broken = suite.hosts[next(iter(plan["waves"][0]["steps"]))]
    spared = second if broken is first else first
    before = pids(suite)
    env = "/etc/ironbeat/env"
    broken.out(f"cp -a {env} /root/env && echo IRONBEAT_WORKER_CONCURRENCY=many >>{env}")
    try:
        done = fab.run("restart", "--program", "worker")
    finally:
        broken.out(f"cp -a /root/env {env}; rm /root/env")
    assert done.returncode == UNHEALTHY
    assert "aborted: 0 restarted" in done.stdout and "WORKER_CONCURRENCY" in done.stdout
    after = pids(suite)
    changed = {each for each in before if before[each] != after.get(each)}
    assert changed == {(broken.name, "worker:worker_00")}
    assert f"not touched: {broken.name}: worker:worker_01, {spared.name}:" in done.stdout
    told = fab.json("restart", "--program", "worker_00", "--limit", broken.name)
    assert [each["name"] for each in told["restarted"]] == ["worker:worker_00"]
    wait_until(lambda: fab.run("status").returncode == 0, 60, "all is well")


# -- misuse


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("status", "--limit", "ironbeat-worker"), NOT_FOUND, "Did you mean"),
        (("logs", "--grep", "("), USAGE, "no regular expression"),
        (("logs", "--since", "25:00"), USAGE, "is not a time"),
        (("logs", "--follow", "--until", "1h"), USAGE, "--until means nothing"),
        (("restart", "--program", "wroker"), NOT_FOUND, "There are: api, beat, flower"),
        (("restart", "--serial", "0"), USAGE, "must be 1 or more"),
        (("restart", "--limit", "database"), REFUSED, "runs a program of the suite"),
        (("schedule.show", "nope"), NOT_FOUND, "no schedule 'nope'"),
        (("schedule.edit", "errands-tick", "--set", "every"), USAGE, "is not NAME=VALUE"),
        (("report", "--since", "1h", "--until", "2h"), USAGE, "before it begins"),
        (("report", "--html", "/nonexistent/page.html"), REFUSED, "cannot be written"),
        (("tunnel", "--limit", "workers"), NOT_FOUND, "group web"),
    ],
)
def test_misuse_is_told_and_changes_nothing(
    suite: Suite, fab: Fab, arguments: tuple[str, ...], status: int, said: str
) -> None:
    if suite.one("database") in suite.service_hosts and "database" in arguments:
        pytest.skip("the database has no host of its own here")
    done = fab.run(*arguments)
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
