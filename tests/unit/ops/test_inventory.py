"""Which hosts an inventory and a --limit mean, and how they are reached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from scripts.ops import ansible_inventory
from scripts.ops.failures import NOT_FOUND, OpsError
from scripts.ops.inventory import Host, SshOptions, select, ssh_options

HOSTS = tuple(
    Host(name, frozenset({"ironbeat", *groups}))
    for name, groups in {
        "db": ["database"],
        "beat1": ["beat"],
        "worker1": ["workers"],
        "worker2": ["workers", "workers_documents"],
        "all-in-one": ["beat", "workers", "web"],
    }.items()
)


def names(pattern: str | None) -> list[str]:
    return [host.name for host in select(HOSTS, pattern)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (None, ["db", "beat1", "worker1", "worker2", "all-in-one"]),
        ("all", ["db", "beat1", "worker1", "worker2", "all-in-one"]),
        ("worker1", ["worker1"]),
        ("workers", ["worker1", "worker2", "all-in-one"]),
        ("worker2,db", ["db", "worker2"]),
        ("db:beat", ["db", "beat1", "all-in-one"]),
        ("worker[0-9]", ["worker1", "worker2"]),
        ("workers*,!workers_documents", ["worker1", "all-in-one"]),
        ("!workers", ["db", "beat1"]),
        ("workers,&beat", ["all-in-one"]),
    ],
)
def test_a_limit_means_what_it_means_to_ansible(pattern: str | None, expected: list[str]) -> None:
    assert names(pattern) == expected


def test_a_name_that_means_nothing_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(OpsError) as error:
        select(HOSTS, "worker_documents")
    assert error.value.status == NOT_FOUND
    assert "workers_documents" in error.value.hint


def test_a_limit_that_leaves_nobody_is_refused() -> None:
    with pytest.raises(OpsError, match="leaves no host"):
        select(HOSTS, "db,&workers")


def test_hosts_outside_the_suite_are_not_looked_at() -> None:
    stranger = Host("stranger", frozenset({"other"}))
    assert "stranger" not in [host.name for host in select((*HOSTS, stranger))]
    assert [host.name for host in select((stranger,))] == ["stranger"]


def test_the_groups_say_which_programs_a_host_runs() -> None:
    by_name = {host.name: host for host in HOSTS}
    assert by_name["all-in-one"].programs == ("beat", "worker", "flower", "api")
    assert by_name["db"].programs == ()
    assert by_name["db"].units == ("postgresql@*.service",)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", SshOptions()),
        (
            "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
            SshOptions(known_hosts="/dev/null", accept_unknown=True),
        ),
        ("-J admin@jump:2222", SshOptions(jump="admin@jump:2222")),
        ("-o ProxyJump=jump -C", SshOptions(jump="jump")),
        ('-o "ProxyCommand ssh -W %h:%p jump"', SshOptions(proxy_command="ssh -W %h:%p jump")),
        ("-o StrictHostKeyChecking=yes", SshOptions()),
        ("-oStrictHostKeyChecking=accept-new", SshOptions(accept_unknown=True)),
        ("-i ~/.ssh/one -o IdentityFile=two", SshOptions(identities=("~/.ssh/one", "two"))),
    ],
)
def test_ssh_arguments_are_read_as_ssh_reads_them(arguments: str, expected: SshOptions) -> None:
    assert ssh_options(arguments) == expected


def test_an_ssh_option_without_its_value_is_refused() -> None:
    with pytest.raises(OpsError, match="-J needs a value"):
        ssh_options("-J")


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An inventory as one finds it: groups of groups, templates, an encrypted vault."""
    monkeypatch.setattr(ansible_inventory, "CACHE", tmp_path / "cache")
    home = tmp_path / "inventory"
    variables = home / "group_vars" / "all"
    variables.mkdir(parents=True)
    (home / "hosts.yml").write_text(
        yaml.safe_dump(
            {
                "ironbeat": {
                    "children": {
                        "workers": {
                            "hosts": {
                                "worker1": {"ansible_host": "10.0.0.1", "ansible_port": 2222}
                            },
                            "children": {"documents": {"hosts": {"worker2": None}}},
                        },
                        "web": {"hosts": {"here": {"ansible_connection": "local"}}},
                    }
                }
            }
        )
    )
    (variables / "main.yml").write_text(
        'ansible_user: admin\nansible_ssh_private_key_file: "{{ inventory_dir }}/key"\n'
        "service_root: /srv/ironbeat\n"
    )
    (variables / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n3031\n")
    return home


def test_ansible_itself_reads_the_inventory(inventory: Path) -> None:
    hosts = {host.name: host for host in ansible_inventory.read(str(inventory))}
    assert set(hosts) == {"worker1", "worker2", "here"}
    one, two = hosts["worker1"], hosts["worker2"]
    assert (one.address, one.port, one.user) == ("10.0.0.1", 2222, "admin")
    assert one.key_file == f"{inventory}/key"
    assert (two.address, two.port) == ("worker2", None)
    assert two.groups == {"ironbeat", "workers", "documents"}
    assert two.root == "/srv/ironbeat"
    assert hosts["here"].local and not one.local


def test_what_was_read_is_kept_until_the_inventory_changes(
    inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ansible_inventory.read(str(inventory))
    (kept,) = ansible_inventory.CACHE.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    asked = []
    ask = ansible_inventory._ask_ansible
    monkeypatch.setattr(
        ansible_inventory, "_ask_ansible", lambda path: asked.append(path) or ask(path)
    )
    assert ansible_inventory.read(str(inventory)) == first
    assert asked == []
    with (inventory / "group_vars" / "all" / "main.yml").open("a") as file:
        file.write("ansible_port: 2200\n")
    assert {host.port for host in ansible_inventory.read(str(inventory))} == {2222, 2200}
    assert len(asked) == 1


@pytest.mark.parametrize("computed", ["script", "plugin", "lookup"])
def test_an_inventory_that_is_computed_is_not_kept(inventory: Path, computed: str) -> None:
    if computed == "script":
        script = inventory / "more"
        script.write_text('#!/bin/sh\necho "{}"\n')
        script.chmod(0o755)
    elif computed == "plugin":
        (inventory / "more.yml").write_text("plugin: ansible.builtin.constructed\nstrict: false\n")
    else:
        with (inventory / "group_vars" / "all" / "main.yml").open("a") as file:
            file.write("ansible_port: \"{{ lookup('env', 'NOT_SET') or 22 }}\"\n")
    assert ansible_inventory._fingerprint(inventory) is None


def test_an_inventory_that_ansible_cannot_read_says_why(inventory: Path) -> None:
    (inventory / "group_vars" / "all" / "main.yml").write_text("ansible_port: [1,\n")
    with pytest.raises(OpsError, match="Ansible cannot read"):
        ansible_inventory.read(str(inventory))


def test_an_unknown_name_lists_the_inventories(tmp_path: Path) -> None:
    (tmp_path / "inventory" / "production").mkdir(parents=True)
    with pytest.raises(OpsError) as error:
        ansible_inventory.locate("prod", tmp_path)
    assert "production" in error.value.hint
    assert ansible_inventory.locate("production", tmp_path).name == "production"
    assert ansible_inventory.locate(str(tmp_path), tmp_path) == Path(os.path.realpath(tmp_path))
