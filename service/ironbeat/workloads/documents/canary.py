"""Moving the work to Celery a share at a time, and all of it back to RQ.

A *canary* raises the ratio, watches both sides over the same time, and sets the ratio back by
itself when Celery does worse than was allowed. A *rollback* sets the ratio to 0, moves what waits,
and waits until Celery executes nothing of this workload any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ironbeat import get_settings, make_setting_last
from ironbeat.workloads.documents import QUEUE, ledger
from ironbeat.workloads.documents.pipeline import manager

Verdict = Literal["kept", "stopped", "undecided"]
Tell = Callable[[Mapping[str, Any]], None]

LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Bound:
    """What Celery may be worse by: ``errors`` in its error rate (0.02: two in a hundred more),
    ``slower`` as a multiple of RQ's 95th percentile; ``least`` tasks must have ended, or failed
    and be about to be tried again, to tell.
    """

    errors: float = 0.02
    slower: float = 1.5
    least: int = 30

    def broken(self, rq: Mapping[str, Any], celery: Mapping[str, Any]) -> str | None:
        """Why Celery is worse than allowed, or ``None``. Pure.

        RQ's figures count only where enough of its tasks ended; without them Celery is held to the
        bound alone.
        """
        told = _tried(rq) >= self.least
        failed = celery["failed"] + celery["retrying"]
        if _tried(celery) < self.least:
            # A few that all fail say enough.
            if failed >= max(3, self.least // 3) and failed == _tried(celery):
                return f"all {failed} tasks of Celery failed"
            return None
        usual = (rq["error_rate"] or 0.0) if told else 0.0
        if celery["error_rate"] > usual + self.errors:
            return (
                f"Celery's error rate is {celery['error_rate']:.1%}; RQ's {usual:.1%} and "
                f"{self.errors:.1%} more were allowed"
            )
        if not told or not rq["p95_ms"] or celery["p95_ms"] is None:
            return None
        if celery["p95_ms"] > rq["p95_ms"] * self.slower:
            return (
                f"Celery's 95th percentile is {celery['p95_ms']:.0f} ms; {self.slower:g} times "
                f"RQ's {rq['p95_ms']:.0f} ms was allowed"
            )
        return None


def _tried(side: Mapping[str, Any]) -> int:
    """How many tasks of a side have come to something, be it to another try."""
    return int(side["ended"] + side["retrying"])


def canary(
    ratio: float,
    *,
    seconds: float,
    bound: Bound = Bound(),
    tell: Tell = lambda figures: None,
) -> dict[str, Any]:
    """Set the ratio and watch for ``seconds``; set it back when Celery is worse than allowed.

    Returns ``verdict`` (``kept``, ``stopped``, or ``undecided`` where too little ended to tell; the
    ratio stays then, too), ``reason``, ``ratio``, ``before`` and the last figures of both sides.
    """
    began = time.monotonic()
    before = manager().set_ratio(ratio)
    while True:
        watched = time.monotonic() - began
        figures = ledger.compared(max(1.0, watched))
        tell({"watched": watched, "ratio": ratio, **figures})
        reason = bound.broken(figures["rq"], figures["celery"])
        if reason is None and not figures["celery"]["workers"] and watched > LOOK_SECONDS * 3:
            reason = "no worker of Celery's is there" if figures["celery"]["waiting"] else None
        if reason is not None:
            manager().set_ratio(before)
            # What waits on the side that fails shall not fail there.
            moved = manager().move(QUEUE, "rq") if before == 0 else []
            return _outcome("stopped", reason, before, before, figures) | {"moved": len(moved)}
        if watched >= seconds:
            enough = _tried(figures["celery"]) >= bound.least
            why = None if enough else f"only {figures['celery']['ended']} tasks of Celery ended"
            return _outcome("kept" if enough else "undecided", why, ratio, before, figures)
        time.sleep(min(LOOK_SECONDS, max(0.05, seconds - watched)))


def _outcome(
    verdict: Verdict, reason: str | None, ratio: float, before: float, figures: Mapping[str, Any]
) -> dict[str, Any]:
    return {"verdict": verdict, "reason": reason, "ratio": ratio, "before": before, **figures}


def planned(ratio: float) -> dict[str, Any]:
    """What a change of the ratio would do, without doing it."""
    now = manager().use_celery_ratio
    return {"dry_run": True, "ratio": ratio, "before": now, **ledger.compared(3600.0)}


def rollback(*, seconds: float, tell: Tell = lambda figures: None) -> dict[str, Any]:
    """All back to RQ: ratio 0, what waits moved, and Celery drained for at most ``seconds``.

    Returns ``before`` (the ratio), ``moved`` (runs), ``drained``, what Celery still executes, and
    ``use_celery``: what still sets USE_CELERY to true and could not be changed, or ``None``.
    """
    before = manager().set_ratio(0.0)
    moved = manager().move(QUEUE, "rq")
    deadline = time.monotonic() + seconds
    while True:
        # A submitter that read the ratio just before sends to Celery for half a second more; so do
        # retries of what Celery has under way.
        moved += manager().move(QUEUE, "rq")
        celery = ledger.compared(60.0)["celery"]
        tell({"moved": len(moved), **celery})
        open_ = celery["running"] + celery["waiting"]
        if not open_ and time.monotonic() > deadline - seconds + 1.0:
            break
        if time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    return {
        "before": before,
        "ratio": manager().use_celery_ratio,
        "moved": len(set(moved)),
        "drained": not open_,
        "celery_running": celery["running"],
        "celery_waiting": celery["waiting"],
        "rq": ledger.compared(60.0)["rq"],
        "use_celery": make_setting_last("use_celery", "false")
        if get_settings().use_celery
        else None,
    }
