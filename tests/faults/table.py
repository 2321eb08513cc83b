"""The fault table: rows of Markdown, and their place in a document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tests.faults.accounting import Account
from tests.faults.scenarios import SCENARIOS

BEGIN = "<!-- python -m tests.faults --into -->"
END = "<!-- end of the fault table -->"
HEAD = (
    "| component | fault | runs | lost | doubled | overlapped | seconds | until | scenario |",
    "|---|---|---|---|---|---|---|---|---|",
)
_ROW = re.compile(r"^\|.*\| `([a-z0-9-]+)` \|$")


class NoPlace(Exception):
    """A document has no place for the table."""


def row(account: Account) -> str:
    """One scenario's row."""
    scenario = SCENARIOS[account.scenario]
    overlapped = str(account.overlapped)
    if scenario.overlaps:
        overlapped += f" (at most {scenario.overlaps})"
    seconds = f"{account.recovery_s:.1f}"
    if scenario.within is not None:
        seconds += f" (≤ {scenario.within:g})"
    return (
        f"| {scenario.component} | {scenario.fault} | {account.submitted + account.fires:,} | "
        f"{account.lost + account.missed} | {account.doubled} | {overlapped} | {seconds} | "
        f"{scenario.recovered} | `{account.scenario}` |"
    )


def table(rows: Mapping[str, str]) -> str:
    """The table of these rows (by scenario), in the scenarios' order."""
    return "\n".join((*HEAD, *(rows[name] for name in SCENARIOS if name in rows)))


def write_into(document: Path, rows: Mapping[str, str]) -> None:
    """Put rows into a document's table; the rows of other scenarios stay as they are.

    Raises :class:`NoPlace` if the document does not have the two lines between which it stands.
    """
    text = document.read_text()
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not (begin and end):
        raise NoPlace(f"{document} has no lines {BEGIN!r} and {END!r} to put the table between")
    kept = {found[1]: line for line in old.splitlines() if (found := _ROW.match(line))}
    document.write_text(f"{before}{BEGIN}\n{table(kept | dict(rows))}\n{END}{after}")
