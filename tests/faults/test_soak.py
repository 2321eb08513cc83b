"""Two beats and two hundred one-second schedules: each slot runs once. A minute of what
`scripts/bench soak` does for ten.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.faults.suite import ROOT


@pytest.mark.timeout(900)
def test_two_beats_run_every_slot_once() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "soak", "--seconds", "60", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=840,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout)["ironbeat"]
    assert figures["slots"] >= 200 * 55
    assert (figures["missed"], figures["doubled"]) == (0, 0)
