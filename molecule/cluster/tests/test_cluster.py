"""Seven hosts: who may talk to whom, and what happens to work when hosts go."""

from __future__ import annotations

import base64
import http.client
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from hosts import Host, Suite, wait_until

PROGRAMS = {
    "ironbeat-beat1": {"beat", "watchdog"},
    "ironbeat-beat2": {"beat", "watchdog"},
    "ironbeat-worker1": {"worker:worker_00", "worker:worker_01", "watchdog"},
    "ironbeat-worker2": {"worker:worker_00", "worker:worker_01", "watchdog"},
    "ironbeat-web": {"flower", "api", "watchdog"},
}


@pytest.fixture
def stranger(suite: Suite) -> Iterator[Host]:
    """A machine on the same network that the inventory does not know."""
    name, address = "ironbeat-stranger", "172.30.20.200"
    subprocess.run(["docker", "rm", "-f", name], capture_output=True)
    subprocess.run(
        ["docker", "run", "-d", "--name", name, "--network=ironbeat-cluster", f"--ip={address}",
         "ironbeat-host:trixie", "sleep", "600"],
        check=True, capture_output=True,
    )  # fmt: skip
    yield Host(name, address, ())
    subprocess.run(["docker", "rm", "-f", name], check=True, capture_output=True)


def all_running(suite: Suite) -> bool:
    return all(
        {name: state for name, (state, _) in suite.hosts[host].programs().items()}
        == dict.fromkeys(programs, "RUNNING")
        for host, programs in PROGRAMS.items()
    )


# -- what runs where


def test_each_host_runs_the_programs_of_its_groups(suite: Suite) -> None:
    wait_until(lambda: all_running(suite), 60, "all programs RUNNING")
    wait_until(suite.healthy, 30, "healthy")


def test_the_stores_have_hosts_of_their_own(suite: Suite) -> None:
    for name in ("ironbeat-database", "ironbeat-broker"):
        host = suite.hosts[name]
        assert host.run("command -v supervisorctl").returncode != 0
        assert host.run("test -e /etc/ironbeat/env").returncode != 0


def test_the_release_is_the_same_on_every_python(suite: Suite) -> None:
    releases = {host.out("readlink /opt/ironbeat/current") for host in suite.service_hosts}
    assert len(releases) == 1
    versions = {
        host.name: host.out(
            "/opt/ironbeat/current/venv/bin/python -c 'import sys; print(sys.version_info[:2])'"
        )
        for host in suite.service_hosts
    }
    assert versions["ironbeat-worker1"] == "(3, 13)"
    assert versions["ironbeat-worker2"] == "(3, 11)"


# -- who may talk to whom


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("ironbeat-database", {22}),
        ("ironbeat-broker", {22}),
        ("ironbeat-beat1", {22}),
        ("ironbeat-worker2", {22}),
        ("ironbeat-web", {22, 443}),
    ],
)
def test_what_answers_from_outside(suite: Suite, name: str, ports: set[int]) -> None:
    assert suite.hosts[name].open_ports() == ports


def test_the_stores_answer_the_suites_hosts_and_no_stranger(suite: Suite, stranger: Host) -> None:
    database, broker = suite.one("database"), suite.one("broker")
    for host in suite.service_hosts:
        assert host.reach(database.address, 5432), host.name
        assert host.reach(broker.address, 6379), host.name
    assert stranger.reach(database.address, 22)
    assert not stranger.reach(database.address, 5432)
    assert not stranger.reach(broker.address, 6379)


# -- the proxy


def connected(suite: Suite) -> http.client.HTTPSConnection:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(suite.one("proxy").address, 443, context=context, timeout=20)


def ask(suite: Suite, path: str, header: str = "") -> http.client.HTTPResponse:
    connection = connected(suite)
    connection.request("GET", path, headers={"Authorization": header} if header else {})
    return connection.getresponse()


def test_the_proxy_publishes_the_api_behind_its_token(suite: Suite) -> None:
    assert ask(suite, "/api/runs").status == 401
    assert ask(suite, "/api/runs", f"Bearer {suite.secrets['vault_api_token']}").status == 200
    # Outside the monitoring group even these want the token; figures stay inside altogether.
    assert ask(suite, "/health").status == 401
    assert ask(suite, "/metrics", f"Bearer {suite.secrets['vault_api_token']}").status == 404


def test_the_proxy_publishes_flower_behind_its_password(suite: Suite) -> None:
    assert ask(suite, "/flower/").status == 401
    pair = base64.b64encode(f"ironbeat:{suite.secrets['vault_flower_password']}".encode()).decode()
    page = ask(suite, "/flower/", f"Basic {pair}")
    assert page.status in (200, 302)


def test_the_proxy_bounds_the_rate(suite: Suite) -> None:
    found: set[int] = set()
    deadline = time.monotonic() + 30

    def press() -> None:
        # Kept open: a handshake for each would make these the slow ones.
        connection = connected(suite)
        while 429 not in found and time.monotonic() < deadline:
            connection.request("GET", "/api/runs")
            answer = connection.getresponse()
            answer.read()
            found.add(answer.status)
        connection.close()

    threads = [threading.Thread(target=press) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {401, 429}
    wait_until(lambda: ask(suite, "/api/runs").status == 401, 10, "answers again after the burst")


def test_the_proxy_speaks_modern_tls_only(suite: Suite) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    connection = http.client.HTTPSConnection(
        suite.one("proxy").address, 443, context=old, timeout=10
    )
    with pytest.raises(ssl.SSLError):
        connection.request("GET", "/health")


# -- work


def test_both_worker_hosts_work_debian_12_too(suite: Suite) -> None:
    ids = suite.submit("errands.run", [0.5] * 24)
    wait_until(lambda: len(suite.ended(ids)) == len(ids), 60, "all errands ended")
    listed = ",".join(f"'{each}'" for each in ids)
    hosts = {
        row[0]
        for row in suite.sql(f"SELECT DISTINCT host FROM errands.traces WHERE run_id IN ({listed})")
    }
    assert hosts == {"ironbeat-worker1", "ironbeat-worker2"}
    assert suite.executions(ids) == dict.fromkeys(ids, (1, 1))


def test_two_beats_make_one_run_of_each_fire(suite: Suite) -> None:
    time.sleep(12)
    rows = suite.sql(
        "SELECT scheduled_for, count(*) FROM (SELECT scheduled_for FROM ironbeat.run_history "
        "WHERE schedule_name = 'errands-tick' UNION ALL SELECT scheduled_for FROM ironbeat.runs "
        "WHERE schedule_name = 'errands-tick') AS fired GROUP BY 1"
    )
    assert len(rows) >= 3
    assert {count for _, count in rows} == {"1"}


def test_stopping_one_beat_changes_nothing(suite: Suite) -> None:
    suite.hosts["ironbeat-beat1"].out("supervisorctl stop beat")
    try:
        query = "SELECT count(*) FROM ironbeat.fires"
        before = int(suite.sql(query)[0][0])
        wait_until(
            lambda: int(suite.sql(query)[0][0]) >= before + 2, 40, "two fires by the other beat"
        )
    finally:
        suite.hosts["ironbeat-beat1"].out("supervisorctl start beat")


# -- hosts that go


def check_nothing_lost(suite: Suite, ids: list[str]) -> None:
    states = suite.ended(ids)
    assert {states.get(each) for each in ids} == {"succeeded"}
    listed = ",".join(f"'{each}'" for each in ids)
    query = f"SELECT count(*) FROM ironbeat.run_history WHERE id IN ({listed})"
    assert suite.sql(query) == [[str(len(ids))]]


def test_a_worker_host_that_stops_drains_first(suite: Suite) -> None:
    worker = suite.hosts["ironbeat-worker1"]
    ids = suite.submit("errands.run", [float(seconds) for seconds in (8, 8, 8, 8, *[1] * 12)])
    wait_until(lambda: len(suite.executions(ids)) >= 4, 30, "four errands began")
    worker.out("systemctl stop supervisor")
    try:
        on_worker = (
            "SELECT count(*) FROM errands.traces WHERE host = 'ironbeat-worker1' AND event = '{}'"
        )
        begun, done = (int(suite.sql(on_worker.format(event))[0][0]) for event in ("begin", "end"))
        assert begun == done, "a task was cut off in the middle"
        wait_until(lambda: len(suite.ended(ids)) == len(ids), 90, "the other host does the rest")
        check_nothing_lost(suite, ids)
        assert suite.executions(ids) == dict.fromkeys(ids, (1, 1))
    finally:
        worker.out("systemctl start supervisor")
    wait_until(lambda: all_running(suite), 60, "the worker host is back")


def test_a_worker_host_that_reboots_loses_nothing(suite: Suite) -> None:
    ids = suite.submit("errands.run", [float(seconds) for seconds in (6, 6, 6, 6, *[1] * 12)])
    wait_until(lambda: len(suite.executions(ids)) >= 4, 30, "four errands began")
    suite.hosts["ironbeat-worker2"].docker("restart", "--time=60")
    wait_until(lambda: len(suite.ended(ids)) == len(ids), 120, "all errands ended")
    check_nothing_lost(suite, ids)
    wait_until(lambda: all_running(suite), 60, "the worker host is back")


def test_a_worker_host_that_dies_loses_nothing(suite: Suite) -> None:
    ids = suite.submit("errands.run", [float(seconds) for seconds in (6, 6, 6, 6, *[1] * 12)])
    wait_until(lambda: len(suite.executions(ids)) >= 4, 30, "four errands began")
    suite.hosts["ironbeat-worker2"].docker("kill")
    try:
        wait_until(lambda: len(suite.ended(ids)) == len(ids), 120, "the other host takes over")
        check_nothing_lost(suite, ids)
    finally:
        suite.hosts["ironbeat-worker2"].docker("start")
    wait_until(lambda: all_running(suite), 90, "the worker host is back")


def worker_pids(suite: Suite) -> dict[tuple[str, str], int | None]:
    return {
        (host.name, program): pid
        for host in suite.group("workers")
        for program, (_, pid) in host.programs().items()
        if program.startswith("worker:")
    }


def test_the_restart_playbook_rolls_under_load(suite: Suite) -> None:
    """Nothing lost, nothing doubled, and some worker works at any time."""
    before = worker_pids(suite)
    ids = suite.submit("errands.run", [0.5 + number % 5 for number in range(100)])
    done = suite.playbook("playbooks/restart.yml", "-e", "restart_programs=worker")
    assert done.returncode == 0, done.stdout
    after = worker_pids(suite)
    assert before.keys() == after.keys()
    assert all(before[each] != after[each] for each in before)
    wait_until(lambda: len(suite.ended(ids)) == len(ids), 180, "all errands ended")
    check_nothing_lost(suite, ids)
    assert suite.executions(ids) == dict.fromkeys(ids, (1, 1))
    listed = ",".join(f"'{each}'" for each in ids)
    gap = suite.sql(
        "SELECT max(extract(epoch FROM at - before)) FROM (SELECT at, lag(at) OVER (ORDER BY at) "
        f"AS before FROM errands.traces WHERE run_id IN ({listed})) AS steps"
    )
    # The longest task takes 4.5 s; four processes together begin or end one more often than that.
    assert float(gap[0][0]) < 5


def test_status_names_a_host_that_is_down_and_shows_the_others(suite: Suite) -> None:
    suite.hosts["ironbeat-worker2"].docker("pause")
    try:
        done = suite.playbook("playbooks/status.yml", "--timeout=5")
    finally:
        suite.hosts["ironbeat-worker2"].docker("unpause")
    assert done.returncode != 0
    assert re.search(r"ironbeat-worker2.*UNREACHABLE", done.stdout)
    assert len(re.findall("worker:worker_00 +RUNNING", done.stdout)) == 1
    wait_until(suite.healthy, 60, "healthy again")
