"""Hosts and groups of an Ansible inventory, as far as reaching them goes, and picking some.

Pure; ``ansible_inventory`` reads the inventory itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

from scripts.ops.failures import NOT_FOUND, USAGE, OpsError

# The group that holds all of the suite's hosts; other hosts of an inventory are not looked at.
SUITE = "ironbeat"

# Programs that supervisord runs on the hosts of a group.
PROGRAMS_OF_GROUPS = {
    "beat": ("beat",),
    "workers": ("worker",),
    "web": ("flower", "api"),
    "rq": ("rq_worker", "rq_dashboard"),
}

# What systemd runs on the hosts of a group. A pattern is matched against the units that are loaded.
UNITS_OF_GROUPS = {
    "database": ("postgresql@*.service",),
    "broker": ("redis-server.service",),
    "proxy": ("nginx.service",),
}


@dataclass(frozen=True)
class SshOptions:
    """What of an inventory's SSH arguments matters to Fabric.

    ``known_hosts`` is a file of host keys beside the user's own; with ``accept_unknown`` a host
    whose key is not known is let pass, as ``StrictHostKeyChecking=no`` does.
    """

    known_hosts: str | None = None
    accept_unknown: bool = False
    jump: str | None = None
    proxy_command: str | None = None
    identities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Host:
    """One host: how to reach it and what it is for. ``local``: it is this machine, without SSH."""

    name: str
    groups: frozenset[str] = frozenset()
    address: str = ""
    port: int | None = None
    user: str | None = None
    key_file: str | None = None
    ssh: SshOptions = field(default_factory=SshOptions)
    local: bool = False
    root: str = "/opt/ironbeat"

    @property
    def programs(self) -> tuple[str, ...]:
        """The programs of supervisord that its groups ask for."""
        return tuple(
            p for group, ps in PROGRAMS_OF_GROUPS.items() if group in self.groups for p in ps
        )

    @property
    def units(self) -> tuple[str, ...]:
        """The units of systemd that its groups ask for; patterns are allowed."""
        return tuple(u for group, us in UNITS_OF_GROUPS.items() if group in self.groups for u in us)


def ssh_options(arguments: str) -> SshOptions:
    """What ``ansible_ssh_common_args`` and its kin say; options without a meaning here pass."""
    known_hosts: str | None = None
    accept, jump, proxy = False, None, None
    identities: list[str] = []
    words = shlex.split(arguments)
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        flag, value = word[:2], word[2:]
        if flag not in ("-o", "-J", "-i"):
            continue
        if not value:
            if position == len(words):
                raise OpsError(f"{arguments!r}: {flag} needs a value", "", USAGE)
            value = words[position]
            position += 1
        if flag == "-J":
            jump = value
            continue
        if flag == "-i":
            identities.append(value)
            continue
        name, _, setting = re.sub(r"\s*=\s*|\s+", "=", value, count=1).partition("=")
        match name.lower():
            case "stricthostkeychecking":
                accept = setting.lower() in ("no", "off", "accept-new")
            case "userknownhostsfile":
                # OpenSSH takes several; the first is the one that is written to.
                known_hosts = setting.split()[0] if setting else None
            case "proxyjump":
                jump = setting
            case "proxycommand":
                proxy = setting
            case "identityfile":
                identities.append(setting)
    return SshOptions(known_hosts, accept, jump, proxy, tuple(identities))


def select(hosts: Sequence[Host], pattern: str | None = None) -> tuple[Host, ...]:
    """The suite's hosts that ``pattern`` means, in the inventory's order.

    The pattern is Ansible's ``--limit``: names of hosts and groups and ``*`` patterns, joined with
    ``,`` or ``:``; ``!x`` leaves out what ``x`` means and ``&x`` keeps only what it means. Raises
    :class:`OpsError` for a name that means nothing, and when nobody is left.
    """
    suite = [host for host in hosts if SUITE in host.groups] or list(hosts)
    terms = [term.strip() for term in re.split(r"[,:]", pattern or "all") if term.strip()]
    named = [term for term in terms if term[0] not in "!&"]
    chosen: set[str] = set()
    for term in named or ["all"]:
        chosen |= _meant(suite, term)
    for term in terms:
        if term[0] == "&":
            chosen &= _meant(suite, term[1:])
        elif term[0] == "!":
            chosen -= _meant(suite, term[1:])
    if not chosen:
        raise OpsError(f"--limit {pattern} leaves no host", _known(suite), NOT_FOUND)
    return tuple(host for host in suite if host.name in chosen)


def _meant(hosts: Sequence[Host], term: str) -> set[str]:
    if term in ("all", "*"):
        return {host.name for host in hosts}
    found = {
        host.name
        for host in hosts
        if fnmatchcase(host.name, term) or any(fnmatchcase(group, term) for group in host.groups)
    }
    if not found:
        close = get_close_matches(term, _names(hosts), n=3, cutoff=0.5)
        hint = f"Did you mean {', '.join(close)}?" if close else _known(hosts)
        raise OpsError(f"the inventory has no host and no group {term!r}", hint, NOT_FOUND)
    return found


def _names(hosts: Iterable[Host]) -> list[str]:
    return sorted({name for host in hosts for name in (host.name, *host.groups)})


def _known(hosts: Iterable[Host]) -> str:
    return f"There are: {', '.join(_names(hosts))}."
