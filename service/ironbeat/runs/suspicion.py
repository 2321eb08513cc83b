"""Which of a dead worker's runs may have killed it. Pure.

A worker claims several runs at once and executes one of them (a pool with threads or children: a
few). Only what was executing is suspect. What the process left on its host says it exactly; a
neighbour that saw it dead may have passed that on in the lease; else the lease's last renewal
names what had been running for a while. Where nobody knows, a single claim is suspect, and of
several those that a worker has died with before: so a run that kills hosts as a whole is bounded,
too, and its neighbours are punished for nothing that happened once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ironbeat.runs.blackbox import Report

DIED = "the worker died"


def died_of_it(times: int) -> str:
    """Why a run is dead that its workers died of so many times."""
    often = "once" if times == 1 else f"{times} times"
    return f"its worker died {often} while running it"


@dataclass(frozen=True, slots=True)
class Judged:
    """One claimed run of a dead worker: whether it is suspect, and what is known of the death."""

    id: str
    suspect: bool
    error: str = DIED
    words: str | None = None

    def row(self) -> dict[str, Any]:
        """As the ledger takes it."""
        return {"id": self.id, "suspect": self.suspect, "error": self.error, "words": self.words}


def judge(
    claimed: Mapping[str, bool], reports: Sequence[Report], info: Mapping[str, Any] | None
) -> list[Judged]:
    """Every claimed run with its verdict.

    ``claimed`` maps the ids to whether a worker has died with that run before; ``info`` is what
    the lease told last.
    """
    told = info if isinstance(info, Mapping) else {}
    testimony = told.get("testimony")
    words: dict[str, str] = {}
    if reports:
        executing = {each.id for report in reports for each in report.executing}
        words = {
            each.id: report.words for report in reports for each in report.executing if report.words
        }
    elif isinstance(testimony, Mapping):
        executing = set(_texts(testimony.get("executing")))
        said = testimony.get("words")
        words = dict.fromkeys(executing, said) if isinstance(said, str) and said else {}
    else:
        executing = _guessed(claimed, told)
    memory = told.get("rss_mb")
    size = f" ({memory:g} MB at its last renewal)" if isinstance(memory, int | float) else ""
    return [
        Judged(id, id in executing, _error(words.get(id)) + size, _storable(words.get(id)))
        if id in executing
        else Judged(id, False)
        for id in claimed
    ]


def _guessed(claimed: Mapping[str, bool], told: Mapping[str, Any]) -> set[str]:
    if len(claimed) == 1:
        return set(claimed)
    running = told.get("running")
    entries = running if isinstance(running, Sequence) else ()
    named = {str(each.get("id")) for each in entries if isinstance(each, Mapping)} & set(claimed)
    return named or {id for id, died_before in claimed.items() if died_before}


def _error(words: str | None) -> str:
    """The death in one line."""
    first = (words or "").partition("\n")[0].strip()
    return f"{DIED}: {first}" if first.startswith("Fatal Python error") else DIED


def _storable(words: str | None) -> str | None:
    return None if words is None else words.replace("\x00", "\\x00")


def _texts(value: Any) -> Iterable[str]:
    return (str(each) for each in value) if isinstance(value, list | tuple) else ()
