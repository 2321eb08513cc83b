"""The days after, done as docs/operations.md says: one more worker host, other secrets, a new
release, work that moves from RQ to Celery and back, another broker. What waits and runs meanwhile
ends once.

The hosts are the scenario's; the inventory is a copy of its, which is changed as an operator does.
These tests come last, as the hosts are another cluster afterwards.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import PROJECT, Host, Suite, wait_until

# Each runs site.yml on every host, and rolls.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# As deep below the project as a scenario, whose inventory names files by way of it.
COPY = PROJECT / ".cache" / "operations"
WORKER, BROKER = "ironbeat-worker3", "ironbeat-broker2"
ADDRESSES = {WORKER: "172.30.20.42", BROKER: "172.30.20.21"}


@pytest.fixture(scope="module")
def inventory(suite: Suite) -> Iterator[Path]:
    """The inventory that is changed; hosts that join are gone afterwards."""
    remove()
    shutil.copytree(suite.scenario, COPY, ignore=shutil.ignore_patterns("tests"))
    yield COPY / "inventory"
    remove()


def remove() -> None:
    for name in ADDRESSES:
        subprocess.run(["docker", "rm", "-f", "-v", name], capture_output=True)
    shutil.rmtree(COPY, ignore_errors=True)


def edited(file: Path, edit: Callable[[Any], None]) -> Suite:
    """Change a file of the inventory; returns the suite that it now describes."""
    content = yaml.safe_load(file.read_text())
    edit(content)
    file.write_text(yaml.safe_dump(content))
    return Suite.of(COPY)


def joined(inventory: Path, group: str, name: str, *, alone: bool = False) -> Suite:
    """The suite with a bare host more in a group, or with that one in the place of the others."""

    def edit(content: Any) -> None:
        tree = content["ironbeat"]
        tree["hosts"][name] = {"ansible_host": ADDRESSES[name], "docker_suite": "trixie"}
        members = tree["children"][group]["hosts"]
        if alone:
            for left in members:
                del tree["hosts"][left]
            members.clear()
        members[name] = None

    grown = edited(inventory / "hosts.yml", edit)
    succeed(grown, "molecule/shared/create.yml", "--limit", f"localhost,{name}")
    return grown


def succeed(suite: Suite, playbook: str, *arguments: str) -> str:
    """What a playbook prints that must end well."""
    done = suite.playbook(playbook, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pids(suite: Suite) -> dict[tuple[str, str], int | None]:
    return {
        (host.name, program): pid
        for host in suite.service_hosts
        for program, (_, pid) in host.programs().items()
    }


def all_end_once(suite: Suite, ids: list[str], seconds: float = 180) -> None:
    wait_until(lambda: len(suite.ended(ids)) == len(ids), seconds, "all errands ended")
    assert set(suite.ended(ids).values()) == {"succeeded"}
    assert suite.executions(ids) == dict.fromkeys(ids, (1, 1))


def worked(suite: Suite, ids: list[str]) -> set[str]:
    """The hosts that executed these runs."""
    listed = ",".join(f"'{each}'" for each in ids)
    rows = suite.sql(f"SELECT DISTINCT host FROM errands.traces WHERE run_id IN ({listed})")
    return {row[0] for row in rows}


def test_a_worker_host_is_added(suite: Suite, inventory: Path) -> None:
    before = pids(suite)
    grown = joined(inventory, "workers", WORKER)
    succeed(grown, "site.yml")
    after = pids(grown)
    assert before.items() <= after.items(), "what ran goes on"
    assert {program for host, program in after if host == WORKER} == {
        "worker:worker_00", "worker:worker_01", "watchdog"
    }  # fmt: skip
    ids = grown.submit("errands.run", [0.5] * 36)
    all_end_once(grown, ids)
    assert worked(grown, ids) == {host.name for host in grown.group("workers")}
    assert grown.hosts[WORKER].open_ports() == {22}


def next_errands(suite: Suite, scratch: Path) -> Path:
    """A wheel of the user's package in its next version."""
    project = PROJECT / "tests/projects/errands"
    source = Path(shutil.copytree(project, scratch / "errands"))
    text = (source / "pyproject.toml").read_text()
    (source / "pyproject.toml").write_text(text.replace('version = "1.0"', 'version = "1.1"'))
    command = ["python", "-m", "hatchling", "build", "-t", "wheel", "-d", str(scratch)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return scratch / "errands-1.1-py3-none-any.whl"


def accepts(host: Host, user: str, password: str) -> bool:
    """Whether Redis lets a user in."""
    command = f"read -r REDISCLI_AUTH; export REDISCLI_AUTH; redis-cli --user {user} ping 2>&1"
    return "PONG" in host.out(command, stdin=password + "\n")


def test_secrets_are_rotated_and_a_release_is_rolled_out(inventory: Path, tmp_path: Path) -> None:
    old = Suite.of(COPY)
    vault = inventory / "group_vars/all/vault.yml"
    wheel = next_errands(old, tmp_path)
    edited(
        inventory / "group_vars/all/main.yml",
        lambda variables: variables.update(service_packages=[str(wheel)]),
    )
    command = ["sed", "-i", "/^vault_api_token:/d; /^vault_redis_password:/d", str(vault)]
    subprocess.run(command, check=True)
    ids = old.submit("errands.run", [1.0] * 60)
    before = pids(old)
    told = succeed(old, "site.yml")
    assert pids(old) == before, "what ran goes on"
    succeed(old, "playbooks/restart.yml")
    after = pids(old)
    assert after.keys() == before.keys()
    assert all(after[each] != before[each] for each in before)
    new = Suite.of(COPY)
    changed = {name for name in old.secrets if old.secrets[name] != new.secrets[name]}
    assert changed == {"vault_api_token", "vault_redis_password"}
    assert not [name for name, secret in new.secrets.items() if secret in told]
    broker = new.one("broker")
    assert not accepts(broker, "ironbeat", old.secrets["vault_redis_password"])
    assert accepts(broker, "ironbeat", new.secrets["vault_redis_password"])
    for secrets, status in ((old.secrets, 401), (new.secrets, 200)):
        header = f"Bearer {secrets['vault_api_token']}"
        assert new.one("web").http_status("http://127.0.0.1:8000/api/runs", header) == status
    for host in new.service_hosts:
        packages = host.json("cat /opt/ironbeat/current/release.json")["packages"]
        assert packages["errands"] == "1.1", host.name
    all_end_once(new, ids)
    wait_until(new.healthy, 60, "healthy")


DOCUMENTS = """
mkdir -p /srv/documents
for each in $(seq $1 $2); do
    for chapter in 1 2 3 4 5 6; do
        echo "Report $each, chapter $chapter: a boat crosses the river near Bremen in May $each."
    done > /srv/documents/$each.md
done
"""


PROCESS = "ironbeat documents process /srv/documents --json"


def sides(host: Host, first: int, last: int) -> dict[str, int]:
    """Have new documents processed, all of which succeed; who made the metadata of how many chunks
    of the directory until now.
    """
    host.out(f"bash -s {first} {last}", stdin=DOCUMENTS)
    found = host.json(f"{PROCESS} --timeout 240")
    assert (found["failed"], found["ended"], found["done"]) == (0, True, found["chunks"])
    assert found["chunks"] == last
    return found["sides"]


def test_documents_move_from_rq_to_celery_and_back(inventory: Path) -> None:
    edited(
        inventory / "group_vars/all/main.yml",
        lambda variables: variables.update(service_extras=["documents"]),
    )
    carrier = "ironbeat-worker1"
    suite = edited(
        inventory / "hosts.yml",
        lambda content: content["ironbeat"]["children"].update(rq={"hosts": {carrier: None}}),
    )
    succeed(suite, "site.yml")
    succeed(suite, "playbooks/restart.yml")
    host = suite.hosts[carrier]
    rq = {"rq_worker:rq_worker_00", "rq_worker:rq_worker_01", "rq_dashboard"}
    assert {name: host.programs()[name][0] for name in rq} == dict.fromkeys(rq, "RUNNING")
    assert not any(rq & set(each.programs()) for each in suite.service_hosts if each is not host)
    assert host.http_status("http://127.0.0.1:9181/") == 401
    assert sides(host, 1, 40) == {"rq": 40}

    host.out("bash -s 41 200", stdin=DOCUMENTS)
    assert host.json(f"{PROCESS} --no-wait")["documents"] == 160
    moved = suite.fab("canary", "--ratio", "0.5", "--seconds", "15", "--json")
    assert moved.returncode == 0, moved.stdout + moved.stderr
    shared = sides(host, 201, 210)
    assert shared.keys() == {"rq", "celery"} and shared["celery"] >= 20

    host.out("supervisorctl stop rq_worker:* rq_dashboard")
    asked = suite.fab("rollback-rq", "--dry-run")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert f"would start RQ's workers and its page on {carrier}" in asked.stdout
    assert host.programs()["rq_dashboard"][0] == "STOPPED", "nothing was changed"
    back = suite.fab("rollback-rq", "--json")
    assert back.returncode == 0, back.stdout + back.stderr
    found = json.loads(back.stdout)
    assert set(found["started"]) == {f"{carrier}: {name}" for name in rq}
    assert (found["moved"]["ratio"], found["moved"]["rq"]["workers"]) == (0, 2)
    assert sides(host, 211, 250) == {"celery": shared["celery"], "rq": shared["rq"] + 40}
    wait_until(suite.healthy, 60, "healthy")


def queued(broker: Host, password: str) -> int:
    """How many messages lie in a broker, as docs/operations.md counts them."""
    ask = "redis-cli --user ironbeat_monitor -n 1 llen"
    lengths = broker.out(
        f"read -r REDISCLI_AUTH; export REDISCLI_AUTH; {ask} errands; {ask} default",
        stdin=password + "\n",
    )
    return sum(map(int, lengths.split()))


def test_the_broker_is_moved(inventory: Path) -> None:
    before = Suite.of(COPY)
    old = before.one("broker")
    moved = joined(inventory, "broker", BROKER, alone=True)
    ids = before.submit("errands.run", [1.0] * 60)
    succeed(moved, "site.yml")
    roll = ("playbooks/restart.yml", "-e")
    succeed(moved, *roll, "restart_programs=beat,flower,api,rq_dashboard")
    ids += moved.submit("errands.run", [1.0] * 20)
    password = before.secrets["vault_redis_monitor_password"]
    wait_until(lambda: queued(old, password) == 0, 180, "the old broker's queues are empty")
    succeed(moved, *roll, "restart_programs=worker,spare,scaler,rq_worker,watchdog")
    old.out("systemctl disable --now redis-server")
    all_end_once(moved, ids)
    wait_until(moved.healthy, 60, "healthy")
    ids = moved.submit("errands.run", [0.5] * 24)
    all_end_once(moved, ids)
    assert worked(moved, ids) == {host.name for host in moved.group("workers")}
