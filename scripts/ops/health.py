"""``fab health``: the suite's own checks on every host, and what only looking at the host shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from scripts.ops import output, suite, words
from scripts.ops.checks import Check, of_host, skews
from scripts.ops.failures import OK, UNHEALTHY, OpsError
from scripts.ops.inventory import Host
from scripts.ops.reach import Reach
from scripts.ops.snapshot import Snapshot
from scripts.ops.survey import survey
from scripts.ops.words import Cell, Table, Toned

HEALTH_SECONDS = 8.0
_TONES: Mapping[str, words.Tone] = {"ok": "good", "warning": "warning", "bad": "bad"}

_SUM: Mapping[str, words.Tone] = {"healthy": "good", "degraded": "warning", "unhealthy": "bad"}


def show(hosts: Sequence[Host], *, as_json: bool) -> int:
    """Print every check of every host; the exit status says whether one of them is bad."""
    seen = survey(hosts, None, deep=True, also=ask)
    apart = skews(seen.snapshots)
    now = datetime.now(UTC)
    found = [
        check
        for each in seen.snapshots
        for check in of_host(each, each.facts.get("health"), apart.get(each.host), now)
    ]
    bad = any(check.verdict == "bad" for check in found)
    if as_json:
        output.document({"status": verdict(found), "checks": found})
    else:
        output.lines(page(found, colour=words.colours()))
        output.lines(f"  {each.host}: {each.hint}" for each in seen.snapshots if each.hint)
    return UNHEALTHY if bad else OK


def ask(reached: Reach, seen: Snapshot) -> Snapshot:
    """Add what the suite says of its health as seen from this host: it may be cut off alone."""
    if not suite.can_answer(reached.host):
        return seen
    try:
        health: Any = suite.document(reached, ["health"], HEALTH_SECONDS)
    except OpsError as error:
        health = error.message
    return replace(seen, facts={**seen.facts, "health": health})


def verdict(found: Sequence[Check]) -> str:
    """The checks in a word, as the API says it."""
    verdicts = {check.verdict for check in found}
    return "unhealthy" if "bad" in verdicts else "degraded" if "warning" in verdicts else "healthy"


def page(found: Sequence[Check], *, colour: bool = False) -> list[str]:
    """For each host a line of what is well, and one for each thing that is not."""
    rows: list[Sequence[Cell]] = []
    for host in dict.fromkeys(check.host for check in found):
        mine = [check for check in found if check.host == host]
        well = [check.name for check in mine if check.verdict == "ok"]
        if well:
            rows.append((host, Toned("ok", "good"), ", ".join(dict.fromkeys(well)), " "))
        for check in mine:
            if check.verdict != "ok":
                judged = Toned(check.verdict, _TONES[check.verdict])
                rows.append((host, judged, check.name, check.said))
    told = verdict(found)
    lines = Table(["host", "", "check", ""], rows).lines(colour=colour)
    return [*lines, "", words.painted(Toned(told, _SUM[told]), colour)]
