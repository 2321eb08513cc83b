"""What `fab status` says last: how things are, in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.ops import status
from scripts.ops.snapshot import Snapshot
from scripts.ops.suite import Answered
from scripts.ops.survey import Survey


def limit(name: str, ok: bool | None, severity: str = "warning") -> dict[str, Any]:
    return {
        "title": name, "value": 30, "bound": "< 10", "unit": "", "ok": ok, "severity": severity,
        "note": "queue default",
    }  # fmt: skip


def seen(limits: list[dict[str, Any]], health: str = "healthy") -> Survey:
    told = {
        "health": {"status": health, "checks": {"database": "ok", "redis": "no answer"}},
        "problems": [], "queues": [], "beats": [], "schedulers": [], "workers": [],
        "outcomes": None, "limits": limits,
    }  # fmt: skip
    return Survey((Snapshot("one"), Snapshot("two")), Answered(told, "one"))


@pytest.mark.parametrize(
    ("survey", "last"),
    [
        (seen([limit("length", True), limit("age", None)]), "all is well"),
        (seen([limit("length", False), limit("age", True)]), "all run; a limit is broken"),
        (seen([limit("length", False), limit("x", False, "info")]), "all run; 2 limits are broken"),
        (seen([], "degraded"), "all run; degraded: redis: no answer"),
    ],
)  # fmt: skip
def test_the_last_line_does_not_say_more_than_the_lines_above_it(survey: Survey, last: str) -> None:
    assert status.page(survey)[-1] == f"2 hosts, 0 programs: {last}"
    assert status.complaints(survey) == []


def test_a_critical_limit_is_a_complaint() -> None:
    survey = seen([limit("Longest queue", False, "critical")])
    assert status.page(survey)[-1] == "Longest queue: 30, normal is < 10"
    assert status.complaints(survey)
