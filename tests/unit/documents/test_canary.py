"""When a canary is stopped."""

from __future__ import annotations

from typing import Any

import pytest

from ironbeat.workloads.documents.canary import Bound


def side(
    ended: int, failed: int = 0, p95: float | None = 100.0, retrying: int = 0
) -> dict[str, Any]:
    tried = ended + retrying
    return {
        "ended": ended,
        "failed": failed,
        "retrying": retrying,
        "error_rate": (failed + retrying) / tried if tried else None,
        "p95_ms": p95 if ended else None,
    }


@pytest.mark.parametrize(
    ("rq", "celery", "reason"),
    [
        (side(100), side(100), None),
        (side(100, 5), side(100, 6), None),
        (side(100, 5), side(100, 8), "error rate is 8.0%"),
        (side(100), side(100, p95=140.0), None),
        (side(100), side(100, p95=160.0), "95th percentile is 160 ms"),
        # Too little to tell, unless everything fails.
        (side(100), side(10, 5), None),
        (side(100), side(10, 10), "all 10 tasks of Celery failed"),
        # What failed and waits for its next try has not ended, and is no success.
        (side(100), side(0, retrying=10), "all 10 tasks of Celery failed"),
        (side(100), side(40, retrying=10), "error rate is 20.0%"),
        (side(90, retrying=10), side(90, retrying=10), None),
        # Without figures of RQ's the bound alone holds, and nothing is slower than nothing.
        (side(0), side(100, 1), None),
        (side(0), side(100, 3), "error rate is 3.0%"),
        (side(0), side(100, p95=9000.0), None),
        (side(100), side(0), None),
    ],
)
def test_the_bound(rq: dict[str, Any], celery: dict[str, Any], reason: str | None) -> None:
    found = Bound().broken(rq, celery)
    assert (found is None) if reason is None else (reason in (found or ""))
