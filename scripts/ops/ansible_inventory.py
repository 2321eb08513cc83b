"""Reading an inventory with Ansible itself, so that every form of it means the same here as there.

Loading Ansible takes longer than asking all hosts, so what was read is kept until the inventory
changes. Only what reaching a host takes is read: secrets of a vault file are neither needed, nor
asked for, nor kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.ops.failures import INCOMPLETE, NOT_FOUND, OpsError
from scripts.ops.inventory import Host, SshOptions, ssh_options

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "ops"
READ_SECONDS = 60.0
# Raised when what is kept of an inventory changes its form.
FORM = 1

# The variables that say how a host is reached.
WANTED = (
    "ansible_host",
    "ansible_port",
    "ansible_user",
    "ansible_connection",
    "ansible_ssh_private_key_file",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
    "ansible_ssh_args",
    "service_root",
)


def read(env: str) -> tuple[Host, ...]:
    """The hosts of the inventory ``env``: a name below ``inventory/``, or a path."""
    path = locate(env)
    key = _fingerprint(path)
    kept = CACHE / f"inventory-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"
    if key is not None and (found := _kept(kept, key)) is not None:
        return found
    hosts = tuple(host_of(each) for each in _ask_ansible(path))
    if not hosts:
        raise OpsError(f"the inventory {path} has no hosts", "See inventory/example.", INCOMPLETE)
    if key is not None:
        _keep(kept, key, hosts)
    return hosts


def locate(env: str, root: Path = ROOT) -> Path:
    """The inventory's file or directory. Raises :class:`OpsError`."""
    candidates = [root / "inventory" / env] if "/" not in env else []
    candidates.append(Path(env).expanduser())
    for each in candidates:
        if each.exists():
            return each.resolve()
    known = sorted(each.name for each in (root / "inventory").glob("[!.]*"))
    hint = f"There are: {', '.join(known)}; or give a path." if known else "Give a path."
    raise OpsError(f"there is no inventory {env!r}", hint, NOT_FOUND)


def host_of(answer: dict[str, Any]) -> Host:
    """A host from its name, groups and variables, as ``ansible_reader`` prints them."""
    variables = answer["variables"]
    arguments = " ".join(
        str(variables[name])
        for name in ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
        if variables.get(name)
    )
    port = variables.get("ansible_port")
    return Host(
        name=answer["name"],
        groups=frozenset(answer["groups"]),
        address=str(variables.get("ansible_host") or answer["name"]),
        port=int(port) if port else None,
        user=variables.get("ansible_user"),
        key_file=variables.get("ansible_ssh_private_key_file"),
        ssh=ssh_options(arguments),
        local=variables.get("ansible_connection") == "local",
        root=str(variables.get("service_root") or "/opt/ironbeat"),
    )


def _ask_ansible(path: Path) -> list[dict[str, Any]]:
    # In a process of its own: Ansible takes over signals, locale and output of the one it is in.
    command = [sys.executable, "-m", "scripts.ops.ansible_reader", str(path)]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        # Half an inventory would look like one without problems.
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
    }
    try:
        answer = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=READ_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise OpsError(
            f"Ansible has not read {path} within {READ_SECONDS:.0f} s",
            f"Try: ansible-inventory -i {path} --list",
            INCOMPLETE,
        ) from error
    if answer.returncode != 0:
        lines = [line for line in answer.stderr.splitlines() if line.strip()]
        raise OpsError(
            f"Ansible cannot read {path}: {lines[-1] if lines else 'it says nothing'}",
            f"Try: ansible-inventory -i {path} --list",
            INCOMPLETE,
        )
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    return found


def _fingerprint(path: Path) -> str | None:
    """What the answer depends on; ``None`` for an inventory that is computed, and never kept."""
    digest = hashlib.sha256(str(FORM).encode())
    for name, value in sorted(os.environ.items()):
        if name.startswith("ANSIBLE_"):
            digest.update(f"{name}={value}\0".encode())
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    for each in (*files, ROOT / "ansible.cfg"):
        if each.is_relative_to(path) and os.access(each, os.X_OK):
            return None
        try:
            content = each.read_bytes()
        except OSError:
            return None
        if re.search(rb"^plugin:|^[^#\n]*\b(?:lookup|query|q)\s*\(", content, re.MULTILINE):
            return None
        digest.update(f"{each}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _kept(file: Path, key: str) -> tuple[Host, ...] | None:
    try:
        kept = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    if kept.get("key") != key:
        return None
    return tuple(
        Host(
            **each
            | {
                "groups": frozenset(each["groups"]),
                "ssh": SshOptions(**each["ssh"] | {"identities": tuple(each["ssh"]["identities"])}),
            }
        )
        for each in kept["hosts"]
    )


def _keep(file: Path, key: str, hosts: tuple[Host, ...]) -> None:
    found = [asdict(host) | {"groups": sorted(host.groups)} for host in hosts]
    part = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"key": key, "hosts": found}))
        part.chmod(0o600)
        part.replace(file)
    except OSError:
        # A checkout that cannot be written to is read anew each time.
        part.unlink(missing_ok=True)
