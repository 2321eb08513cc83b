"""The faults of every day, one after the other on one suite under load: nothing lost, nothing
doubled, healthy again by itself. `--all` causes every other one as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import table
from tests.faults.accounting import Account
from tests.faults.scenario import Skipped
from tests.faults.scenarios import SCENARIOS, problems, run, run_all
from tests.faults.suite import Suite, own_directory

EVERY_DAY = ("worker-killed", "beat-killed", "broker-killed")
# What no other test comes near, in half a minute each.
SOME = ("worker-paused", "redis-emptied", "database-killed")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    found = Suite(own_directory())
    try:
        found.up()
        yield found
    finally:
        found.end(logs=tmp_path_factory.mktemp("suite"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", EVERY_DAY + SOME)
def test_a_fault_loses_and_doubles_nothing(suite: Suite, name: str) -> None:
    account = run(name, suite)
    assert problems(account, timed=False) == []
    assert account.submitted == 1000
    assert account.fires > 100


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {*EVERY_DAY, *SOME}))
def test_rarer_faults_lose_and_double_nothing(name: str) -> None:
    [(_, found)] = run_all([name])
    if isinstance(found, Skipped):
        pytest.skip(str(found))
    if isinstance(found, Exception):
        raise found
    assert problems(found, timed=False) == []


def test_the_table_is_written_where_the_document_has_a_place_for_it(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("no place")
    account = Account("beat-killed", 1000, 500, 0, 0, 0, 0, 0, 1.26, 2.0)
    with pytest.raises(table.NoPlace, match=r"page\.md has no lines"):
        table.write_into(document, {"beat-killed": table.row(account)})
    assert document.read_text() == "no place"
    document.write_text(f"before\n{table.BEGIN}\n{table.END}\nafter\n")
    for name in ("beat-killed", "worker-killed"):
        changed = Account(name, 1000, 500, 0, 0, 0, 0, 0, 1.26, 2.0)
        table.write_into(document, {name: table.row(changed)})
    lines = document.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after"
    assert [line.split("`")[-2] for line in lines[4:6]] == ["worker-killed", "beat-killed"]
    assert "| 1,500 | 0 | 0 | 0 | 1.3 (≤ 10) |" in lines[5]
