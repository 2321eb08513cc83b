"""The faults of every day, one after the other on one suite under load: nothing lost, nothing
doubled, healthy again by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS, run
from tests.faults.suite import Suite

EVERY_DAY = ("worker-killed", "beat-killed", "broker-killed")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    directory = tmp_path_factory.mktemp("suite")
    # The database's own user has to reach its directory.
    for path in (directory, *directory.parents):
        if path == Path("/tmp"):
            break
        path.chmod(0o755)
    found = Suite(directory)
    try:
        found.up()
        yield found
    finally:
        found.down()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", EVERY_DAY)
def test_a_fault_loses_and_doubles_nothing(suite: Suite, name: str) -> None:
    account = run(name, suite, submissions=1000)
    assert account.problems() == []
    assert account.submitted == 1000
    assert account.fires > 100


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - set(EVERY_DAY)))
def test_rarer_faults_lose_and_double_nothing(suite: Suite, name: str) -> None:
    account = run(name, suite, submissions=500)
    assert account.problems() == []
