"""Bringing the database's tables up to date, and telling what is missing.

The platform and each workload have an Alembic branch of their own, labelled with their name, and a
version table of their own in the schema ``public``. They never depend on each other's revisions:
the platform goes up first and down last. So a workload can be installed, switched off or removed
without the others noticing.

Each revision is one transaction. Two upgrades at once take turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, pool, text

from ironbeat.database import connect_arguments, driver_url
from ironbeat.settings import get_settings
from ironbeat.workload import Workload, discover

PLATFORM = "ironbeat"

# Identifies our advisory lock among those of other programs on the same database.
_LOCK_KEY = 0x49524F4E42454154  # "IRONBEAT"
LOCK_WAIT_SECONDS = 300


class MigrationError(Exception):
    """The tables cannot be migrated; the message says why and what to do."""


@dataclass(frozen=True)
class Branch:
    """The revisions of the platform, or of one workload."""

    name: str
    versions: Path

    @property
    def version_table(self) -> str:
        """The table that says which revision the database has."""
        suffix = "" if self.name == PLATFORM else "_" + self.name.replace("-", "_")
        return f"ironbeat_version{suffix}"

    def config(self) -> Config:
        """What Alembic needs to know."""
        config = Config()
        for option, value in (
            ("script_location", str(Path(__file__).parent)),
            ("version_locations", str(self.versions)),
            # One location, whatever characters its path has.
            ("path_separator", "newline"),
        ):
            config.set_main_option(option, value.replace("%", "%%"))
        config.attributes["version_table"] = self.version_table
        return config


def upgrade(url: str | None = None, workloads: Iterable[Workload] | None = None) -> list[str]:
    """Bring the tables of the platform and of ``workloads`` up to date.

    ``workloads`` defaults to the enabled ones. Returns the revisions that were applied, in order.
    Raises :class:`MigrationError` when the database is ahead of this program.
    """
    applied = []
    with _exclusively(url) as connection:
        for branch in branches(workloads):
            before = _pending(connection, branch)
            if before:
                _run(connection, branch, "upgrade", f"{branch.name}@head")
                applied += before
    return applied


def downgrade(
    branch: str,
    revision: str = "base",
    url: str | None = None,
    workloads: Iterable[Workload] | None = None,
) -> None:
    """Take one branch back to ``revision`` (by default: away). This destroys data.

    Raises :class:`MigrationError` when there is no such branch or revision.
    """
    if branch == PLATFORM:
        workloads = ()
    found = {each.name: each for each in branches(workloads)}
    if branch not in found:
        raise MigrationError(f"there is no branch {branch!r}; there are {sorted(found)}")
    target = revision if revision.startswith("-") else f"{branch}@{revision}"
    with _exclusively(url) as connection:
        _run(connection, found[branch], "downgrade", target)


def check(url: str | None = None, workloads: Iterable[Workload] | None = None) -> list[str]:
    """The revisions that :func:`upgrade` would apply, in order; empty: the tables are current.

    Raises :class:`MigrationError` when the database is ahead of this program.
    """
    with _connected(url) as connection:
        return [
            revision for branch in branches(workloads) for revision in _pending(connection, branch)
        ]


def branches(workloads: Iterable[Workload] | None = None) -> list[Branch]:
    """The platform's branch, then those of ``workloads`` (default: the enabled ones)."""
    if workloads is None:
        workloads = discover(get_settings().enabled_workloads)
    found = [Branch(PLATFORM, Path(__file__).parent / "versions")]
    for workload in workloads:
        if workload.migrations is not None:
            found.append(Branch(workload.name, _package_directory(workload)))
    return found


def first_revisions(workloads: Iterable[Workload]) -> dict[str, str]:
    """The revision that makes each workload's tables, for those of ``workloads`` that have any."""
    return {
        branch.name: base
        for branch in branches(workloads)
        if branch.name != PLATFORM
        for base in ScriptDirectory.from_config(branch.config()).get_bases()
    }


def _package_directory(workload: Workload) -> Path:
    package = workload.migrations or ""
    try:
        specification = find_spec(package)
    except ImportError:
        specification = None
    if specification is None or not specification.submodule_search_locations:
        raise MigrationError(
            f"workload {workload.name!r} keeps its migrations in {package!r}, which is no package; "
            "correct Workload.migrations or add the package"
        )
    directory = Path(next(iter(specification.submodule_search_locations)))
    versions = directory / "versions"
    return versions if versions.is_dir() else directory


@contextmanager
def _connected(url: str | None) -> Iterator[Connection]:
    url = url or get_settings().database_url.get_secret_value()
    engine = create_engine(
        driver_url(url),
        poolclass=pool.NullPool,
        connect_args=connect_arguments("ironbeat migrations"),
    )
    with engine.connect() as connection:
        yield connection


@contextmanager
def _exclusively(url: str | None) -> Iterator[Connection]:
    """A connection, while no other upgrade runs on the database.

    The lock is held by a transaction of a second connection, so that revisions may commit one by
    one and the lock still goes by itself if this process dies.
    """
    with _connected(url) as guard, guard.begin():
        guard.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT_SECONDS}s'"))
        guard.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        guard.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        with _connected(url) as connection:
            yield connection


def _run(connection: Connection, branch: Branch, verb: str, target: str) -> None:
    config = branch.config()
    config.attributes["connection"] = connection
    try:
        getattr(command, verb)(config, target)
    except CommandError as error:
        raise MigrationError(f"{verb} of {branch.name} to {target}: {error}") from error


def _pending(connection: Connection, branch: Branch) -> list[str]:
    script = ScriptDirectory.from_config(branch.config())
    with connection.begin():
        context = MigrationContext.configure(
            connection,
            opts={"version_table": branch.version_table, "version_table_schema": "public"},
        )
        heads = context.get_current_heads()
    applied: set[str] = set()
    for head in heads:
        try:
            script.get_revision(head)
        except CommandError as error:
            raise MigrationError(
                f"the database is at revision {head} of {branch.name}, which this version of "
                "Ironbeat does not know: install the version that made it, or a later one"
            ) from error
        applied.update(each.revision for each in script.iterate_revisions(head, "base"))
    known = [each.revision for each in script.walk_revisions()]
    return [revision for revision in reversed(known) if revision not in applied]
