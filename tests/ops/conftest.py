"""Options of the tests of what operators use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
import pytest
import yaml
from tests.ops import sshd

from scripts.ops.inventory import Host, SshOptions


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-readmes", action="store_true", help="write the tables of the roles' READMEs anew"
    )


@dataclass(frozen=True)
class Site:
    """A host that is reached over real SSH, and the inventory that names it."""

    server: sshd.Sshd
    inventory: Path
    key: Path
    known_hosts: Path

    def host(self, **changes: Any) -> Host:
        """The host as the inventory describes it, but for ``changes``."""
        return Host(
            **{
                "name": "here",
                "groups": frozenset({"ironbeat", "workers"}),
                "address": "127.0.0.1",
                "port": self.server.port,
                "user": sshd.USER,
                "key_file": str(self.key),
                "ssh": SshOptions(known_hosts=str(self.known_hosts)),
                **changes,
            }
        )


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("site")
    host_key, user_key = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()
    key, known_hosts = home / "key", home / "known_hosts"
    user_key.write_private_key_file(str(key))
    with sshd.serving(host_key, user_key) as server:
        entry = f"{host_key.get_name()} {host_key.get_base64()}"
        known_hosts.write_text(f"[127.0.0.1]:{server.port} {entry}\n")
        inventory = home / "hosts.yml"
        here = {
            "ansible_host": "127.0.0.1",
            "ansible_port": server.port,
            "ansible_user": sshd.USER,
            "ansible_ssh_private_key_file": str(key),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts}",
        }
        workers = {"hosts": {"here": here}}
        inventory.write_text(yaml.safe_dump({"ironbeat": {"children": {"workers": workers}}}))
        yield Site(server, inventory, key, known_hosts)
