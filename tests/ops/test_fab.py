"""`fab` as it is typed, where it needs no suite: what it refuses, and hosts that do not answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fabfile import namespace
from tests.ops.conftest import Site

ROOT = Path(__file__).parents[2]
UNHEALTHY, USAGE, NOT_FOUND, UNREACHABLE, INCOMPLETE, REFUSED = 1, 2, 3, 4, 5, 6


def fab(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / "fab")
    return subprocess.run([program, *arguments], capture_output=True, text=True, cwd=ROOT)


def written(path: Path, hosts: dict[str, dict[str, object]], group: str = "workers") -> str:
    path.write_text(yaml.safe_dump({"ironbeat": {"children": {group: {"hosts": hosts}}}}))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "status", "said", "hint"),
    [
        (["status", "-e", "prodution"], NOT_FOUND, "there is no inventory", "example, local"),
        (["status", "-e", "./none"], NOT_FOUND, "there is no inventory", "or give a path"),
        (["restart", "--limit", "her"], NOT_FOUND, "no host and no group 'her'", "Did you mean"),
        (["queues", "--limit", "!here"], NOT_FOUND, "leaves no host", "There are: here"),
        (["restart", "--serial", "0"], USAGE, "--serial 0", "1 or more"),
        (["logs", "--grep", "("], USAGE, "no regular expression", ""),
        (["logs", "--follow", "--until", "1h"], USAGE, "--until means nothing", "Leave one out"),
        (["schedule.edit", "x", "--set", "y"], USAGE, "is not NAME=VALUE", "--set cron="),
        (["tunnel"], NOT_FOUND, "in the group web", "Leave --limit out"),
        (["canary", "--ratio", "2"], REFUSED, "no share from 0 to 1", "--ratio 0.2"),
        (["rollback-rq"], REFUSED, "the group 'rq'", "run site.yml"),
    ],
)
def test_misuse_is_told_with_what_to_do(
    site: Site, arguments: list[str], status: int, said: str, hint: str
) -> None:
    task, *rest = arguments
    env = [] if "-e" in rest else ["-e", str(site.inventory)]
    done = fab(task, *env, *rest)
    assert done.returncode == status, done.stderr
    assert said in done.stderr and hint in done.stderr and "Traceback" not in done.stderr


def test_every_task_takes_the_inventory_by_the_same_letter() -> None:
    short = {
        name: [each.name for each in namespace[name].get_arguments() if "e" in each.names]
        for name in namespace.task_names
    }
    assert short and short == {name: ["env"] for name in short}


def test_an_error_is_json_where_json_is_asked_for(site: Site) -> None:
    done = fab("status", "-e", str(site.inventory), "--limit", "nobody", "--json")
    told = json.loads(done.stderr)
    assert (done.returncode, told["status"]) == (NOT_FOUND, NOT_FOUND)
    assert "nobody" in told["error"] and told["hint"]


def test_an_inventory_without_hosts_or_that_cannot_be_read(tmp_path: Path) -> None:
    done = fab("status", "-e", written(tmp_path / "empty.yml", {}))
    assert done.returncode == INCOMPLETE and "has no hosts" in done.stderr
    (tmp_path / "broken.yml").write_text("ironbeat: [1,\n")
    done = fab("status", "-e", str(tmp_path / "broken.yml"))
    assert done.returncode == INCOMPLETE
    assert "cannot read" in done.stderr and "ansible-inventory -i" in done.stderr


def test_a_host_that_is_down_does_not_hide_one_that_is_not_set_up(
    site: Site, tmp_path: Path
) -> None:
    """The one lacks everything that site.yml brings, the other refuses the connection."""
    here = yaml.safe_load(site.inventory.read_text())["ironbeat"]["children"]["workers"]["hosts"]
    down = here["here"] | {"ansible_port": 1}
    inventory = written(tmp_path / "hosts.yml", {"here": here["here"], "down": down})
    done = fab("status", "-e", inventory, "--json")
    assert done.returncode == UNHEALTHY, done.stderr
    told = json.loads(done.stdout)
    found = {host["host"]: host for host in told["hosts"]}
    assert found["down"]["unreachable"] == "connection refused"
    assert found["here"]["unreachable"] is None
    (problem,) = found["here"]["problems"]
    assert problem.startswith("here: supervisord does not answer")
    assert done.stderr == ""
    refused = fab("restart", "-e", inventory)
    assert refused.returncode == REFUSED and "nothing was restarted" in refused.stderr


def test_a_tunnel_lasts_until_ctrl_c(site: Site, tmp_path: Path) -> None:
    here = yaml.safe_load(site.inventory.read_text())["ironbeat"]["children"]["workers"]["hosts"]
    inventory = written(tmp_path / "hosts.yml", here, group="web")
    program = str(Path(sys.executable).parent / "fab")
    ports = ["--flower-port", "0", "--api-port", "0"]
    command = [program, "tunnel", "-e", inventory, *ports, "--json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # Whoever runs the tests in the background of a shell has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["host"] == "here" and set(told["urls"]) == {"flower", "api"}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
