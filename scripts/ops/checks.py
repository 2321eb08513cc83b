"""What ``fab health`` looks at on a host, and what it makes of it. Pure.

``ok`` is well, ``warning`` wants a look in the next days, ``bad`` makes the suite unhealthy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, Literal

from cryptography import x509

from scripts.ops.processes import PROGRAMS
from scripts.ops.snapshot import Program, Snapshot
from scripts.ops.words import duration

Verdict = Literal["ok", "warning", "bad"]

DISK_WARNING, DISK_BAD = 0.10, 0.03
NODES_WARNING, NODES_BAD = 0.05, 0.01
MEMORY_WARNING, MEMORY_BAD = 0.10, 0.03
# A schedule is meant to the second; beyond this, logs of two hosts no longer tell what came first.
SKEW_WARNING_SECONDS, SKEW_BAD_SECONDS = 1.0, 5.0
# The role `proxy` renews a certificate of its own when fewer than 30 days are left.
CERTIFICATE_WARNING_DAYS, CERTIFICATE_BAD_DAYS = 28, 7
# A process that young may not have written its pidfile yet.
SETTLED_SECONDS = 10


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    host: str
    name: str
    verdict: Verdict
    said: str


def of_host(
    seen: Snapshot, health: Mapping[str, Any] | str | None, skew: float | None, now: datetime
) -> list[Check]:
    """All checks of a host.

    ``health`` is what the suite's own command says there, or why it says nothing; ``None`` where it
    is not installed. ``skew`` is how far the host's clock is from the others', in seconds.
    """
    if seen.unreachable:
        return [Check(seen.host, "reachable", "bad", seen.unreachable)]
    facts = seen.facts
    found = [Check(seen.host, "reachable", "ok", "answers")]
    found += _programs(seen)
    if health is not None:
        found += _suite(seen.host, health)
    for name, answer in facts.get("http", {}).items():
        found.append(_http(seen.host, name, answer))
    found += [_disk(seen.host, disk) for disk in facts.get("disks", ())]
    found.append(_memory(seen.host, facts["memory"]))
    if skew is not None:
        found.append(_clock(seen.host, skew))
    found += _pidfiles(seen)
    if "certificate" in facts:
        found += _certificate(seen.host, facts["certificate"], now)
    return found


def skews(snapshots: Sequence[Snapshot]) -> dict[str, float]:
    """How far each host's clock certainly is from the middle of all, in seconds.

    A host's time was taken between the question and its answer. Only what that cannot explain
    counts, so a slow answer never looks like a wrong clock.
    """
    spans = {
        each.host: (
            each.facts["time"] - each.facts["answered_at"],
            each.facts["time"] - each.facts["asked_at"],
        )
        for each in snapshots
        if "answered_at" in each.facts
    }
    if not spans:
        return {}
    middle = median((low + high) / 2 for low, high in spans.values())
    return {
        host: low - middle if middle < low else high - middle if middle > high else 0.0
        for host, (low, high) in spans.items()
    }


def _programs(seen: Snapshot) -> Iterator[Check]:
    for problem in seen.problems:
        yield Check(seen.host, "programs", "bad", problem)
    wrong = [program for program in seen.programs if program.problem]
    for program in wrong:
        yield Check(seen.host, "programs", "bad", f"{program.name} {program.problem}")
    if seen.programs and not wrong and not seen.problems:
        yield Check(seen.host, "programs", "ok", f"{len(seen.programs)} run")
    for program in seen.waiting:
        said = f"{program.name} runs {program.release}; current is {seen.release}: fab restart"
        yield Check(seen.host, "release", "warning", said)


def _suite(host: str, health: Mapping[str, Any] | str) -> Iterator[Check]:
    if isinstance(health, str):
        yield Check(host, "suite", "bad", health)
        return
    for name, said in health["checks"].items():
        well = said.startswith("ok")
        fallback: Verdict = "bad" if health["status"] == "unhealthy" else "warning"
        yield Check(host, name, "ok" if well else fallback, said)


def _http(host: str, name: str, answer: Mapping[str, Any]) -> Check:
    if "error" in answer:
        return Check(host, name, "bad", f"does not answer: {answer['error']}")
    status = answer["status"]
    if name == "flower":
        if status == 200:
            return Check(host, name, "bad", "lets everybody in without a password")
        well = status == 401
        return Check(host, name, "ok" if well else "bad", f"answers {status}")
    if status in (401, 403):
        return Check(host, name, "ok", "answers, and wants its token")
    try:
        said = json.loads(answer["body"])
        told = str(said["status"])
        wrong = [f"{key}: {text}" for key, text in said["checks"].items() if text[:2] != "ok"]
    except (ValueError, KeyError, TypeError):
        return Check(host, name, "bad", f"answers {status}, and not as the API does")
    verdict: Verdict = "bad" if status != 200 else "ok" if told == "healthy" else "warning"
    return Check(host, name, verdict, "; ".join([told, *wrong]))


def _disk(host: str, disk: Mapping[str, Any]) -> Check:
    share = disk["free"] / disk["total"] if disk["total"] else 0.0
    nodes = disk["free_nodes"]
    said = f"{disk['free'] / 1e9:,.1f} GB free ({share:.0%})"
    verdict = _low(share, DISK_WARNING, DISK_BAD)
    if nodes is not None and _low(nodes, NODES_WARNING, NODES_BAD) != "ok":
        verdict = _worse(verdict, _low(nodes, NODES_WARNING, NODES_BAD))
        said += f", {nodes:.0%} of its inodes"
    return Check(host, f"disk {disk['path']}", verdict, said)


def _memory(host: str, memory: Mapping[str, Any]) -> Check:
    total, free = memory["total_kb"], memory["available_kb"]
    share = free / total if total else 0.0
    said = f"{free / 1024:,.0f} MB available ({share:.0%})"
    return Check(host, "memory", _low(share, MEMORY_WARNING, MEMORY_BAD), said)


def _clock(host: str, skew: float) -> Check:
    size = abs(skew)
    verdict: Verdict = (
        "bad" if size > SKEW_BAD_SECONDS else "warning" if size > SKEW_WARNING_SECONDS else "ok"
    )
    said = (
        f"{duration(size)} {'ahead of' if skew > 0 else 'behind'} the others" if skew else "agrees"
    )
    return Check(host, "clock", verdict, said)


def _pidfiles(seen: Snapshot) -> Iterator[Check]:
    files = dict(seen.facts.get("pidfiles", {}))
    supervised = [each for each in seen.programs if each.group in PROGRAMS or each.name in files]
    wrong = [said for each in supervised if (said := _drift(each, files.pop(each.name, None)))]
    # What is left belongs to no program of this host; only a lock shows that somebody lives.
    wrong += [
        f"{name}.pid is held by process {file['pid']}, which supervisord does not know"
        for name, file in files.items()
        if file["locked"]
    ]
    for said in wrong:
        yield Check(seen.host, "pidfiles", "bad", said)
    if supervised and not wrong:
        yield Check(seen.host, "pidfiles", "ok", "tell the pids that run")


def _drift(program: Program, file: Mapping[str, Any] | None) -> str:
    if not program.pid or program.seconds < SETTLED_SECONDS:
        return ""
    if file is None:
        return f"{program.name}.pid is missing; it runs as {program.pid}"
    if file["pid"] != program.pid:
        return f"{program.name}.pid says {file['pid']}; it runs as {program.pid}"
    return ""


def _certificate(host: str, found: Mapping[str, Any] | None, now: datetime) -> Iterator[Check]:
    if found is None:
        yield Check(host, "certificate", "bad", "its file cannot be read")
        return
    left = x509.load_pem_x509_certificate(found["file"].encode()).not_valid_after_utc - now
    days = left.total_seconds() / 86400
    verdict: Verdict = (
        "bad"
        if days < CERTIFICATE_BAD_DAYS
        else "warning"
        if days < CERTIFICATE_WARNING_DAYS
        else "ok"
    )
    said = f"expires in {days:.0f} days" if days > 0 else f"expired {-days:.0f} days ago"
    yield Check(host, "certificate", verdict, said)
    if "error" in found:
        yield Check(host, "certificate", "bad", f"is not served: {found['error']}")
    elif _normal(found["served"]) != _normal(found["file"]):
        said = "the one that is served is not the one in its file: systemctl reload nginx"
        yield Check(host, "certificate", "bad", said)


def _normal(pem: str) -> str:
    return "".join(pem.split())


def _low(share: float, warning: float, bad: float) -> Verdict:
    return "bad" if share < bad else "warning" if share < warning else "ok"


def _worse(one: Verdict, other: Verdict) -> Verdict:
    order: tuple[Verdict, ...] = ("ok", "warning", "bad")
    return max(one, other, key=order.index)
