"""What the scenarios' tests share. They run on hosts that Molecule has made and converged."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from hosts import Suite


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> Suite:
    scenario = os.environ.get("MOLECULE_SCENARIO_DIRECTORY") or request.config.invocation_params.dir
    return Suite.of(Path(scenario))
