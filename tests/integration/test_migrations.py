"""The tables go up, down, and up again; two upgrades at once take turns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from ironbeat import migrations
from ironbeat.migrations import MigrationError, branches, check, downgrade, upgrade
from ironbeat.workload import Workload

VERSIONS = Path(migrations.__file__).parent / "versions"
PLATFORM = sorted(path.stem for path in VERSIONS.glob("[0-9]*.py"))


def tables(url: str, schema: str = "ironbeat") -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (schema,)
        ).fetchall()
    return {name for (name,) in rows}


def test_upgrade_creates_the_tables_once(empty_database_url: str) -> None:
    assert check(empty_database_url, ()) == PLATFORM
    assert upgrade(empty_database_url, ()) == PLATFORM
    assert {"schedules", "fires", "runs", "run_history", "leases"} <= tables(empty_database_url)
    assert check(empty_database_url, ()) == []
    assert upgrade(empty_database_url, ()) == []


def test_downgrade_reverses_it(empty_database_url: str) -> None:
    upgrade(empty_database_url, ())
    downgrade("ironbeat", url=empty_database_url)
    assert tables(empty_database_url) == set()
    assert upgrade(empty_database_url, ()) == PLATFORM


def test_upgrades_at_once_apply_each_revision_once(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: upgrade(empty_database_url, ()), range(4)))
    assert sorted(results) == [[], [], [], PLATFORM]


def test_a_failed_revision_leaves_nothing_behind(
    empty_database_url: str, billing: Workload, tmp_path: Path
) -> None:
    broken = next(tmp_path.rglob("0001_invoices.py"))
    broken.write_text(broken.read_text().replace("bigint", "no_such_type"))
    with pytest.raises(Exception, match="no_such_type"):
        upgrade(empty_database_url, [billing])
    assert tables(empty_database_url, "billing") == set()
    assert check(empty_database_url, [billing]) == ["0001_invoices"]


def test_a_database_from_the_future_is_refused(empty_database_url: str) -> None:
    upgrade(empty_database_url, ())
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("UPDATE ironbeat_version SET version_num = '9999_future'")
    for attempt in (check, upgrade):
        with pytest.raises(MigrationError, match="9999_future"):
            attempt(empty_database_url, ())


@pytest.fixture
def billing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """A user's own workload, with a table, in a directory whose name is a nuisance."""
    versions = tmp_path / "50% off, ours" / f"acme_billing_{tmp_path.name}" / "migrations"
    versions.mkdir(parents=True)
    (versions.parent / "__init__.py").touch()
    (versions / "__init__.py").touch()
    (versions / "0001_invoices.py").write_text(
        "from alembic import op\n"
        "revision, down_revision, branch_labels = '0001_invoices', None, ('billing',)\n"
        "def upgrade():\n"
        "    op.execute('CREATE SCHEMA billing')\n"
        "    op.execute('CREATE TABLE billing.invoices (id bigint)')\n"
        "def downgrade():\n"
        "    op.execute('DROP SCHEMA billing CASCADE')\n"
    )
    monkeypatch.syspath_prepend(versions.parents[1])
    return Workload(name="billing", migrations=f"{versions.parent.name}.migrations")


def test_a_workload_has_a_branch_of_its_own(empty_database_url: str, billing: Workload) -> None:
    assert upgrade(empty_database_url, [billing]) == [*PLATFORM, "0001_invoices"]
    assert tables(empty_database_url, "billing") == {"invoices"}
    # Switched off, its revision troubles nobody; its tables stay.
    assert check(empty_database_url, ()) == []
    assert upgrade(empty_database_url, ()) == []
    assert tables(empty_database_url, "billing") == {"invoices"}


def test_a_missing_migrations_package_is_named() -> None:
    with pytest.raises(MigrationError, match=r"acme\.nowhere"):
        branches([Workload(name="billing", migrations="acme.nowhere")])


def test_an_unknown_branch_is_named(empty_database_url: str) -> None:
    with pytest.raises(MigrationError, match="no branch 'bilking'"):
        downgrade("bilking", url=empty_database_url, workloads=())
