"""``python -m ironbeat.embedded postgres|redis``: prepare the data, then become the server.

Address, user and password come from the settings ``database_url`` and ``broker_url``; they never
stand on a command line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ironbeat.embedded.account import Account, account_for, servers_directory
from ironbeat.embedded.postgres import Postgres
from ironbeat.embedded.process import Command, EmbeddedError
from ironbeat.embedded.redis import Redis
from ironbeat.settings import Settings, SettingsError, get_settings

LOOPBACK = frozenset({"127.0.0.1", "localhost"})


def postgres(settings: Settings) -> Command:
    """The PostgreSQL server that ``database_url`` describes, prepared."""
    url = settings.database_url.get_secret_value()
    user, password, port = _address(url, "database_url", 5432)
    home, account = _home(settings.state_dir)
    return Postgres(
        home=home / "postgres",
        port=port,
        user=user,
        password=password,
        database=unquote(urlsplit(url).path.lstrip("/")),
        account=account,
    ).prepare()


def redis(settings: Settings) -> Command:
    """The Redis-compatible server that ``broker_url`` describes, prepared."""
    _, password, port = _address(settings.broker_url.get_secret_value(), "broker_url", 6379)
    home, account = _home(settings.state_dir)
    return Redis(
        home=home / "redis",
        port=port,
        password=password,
        account=account,
        program=settings.redis_server,
    ).prepare()


def _home(state_dir: Path) -> tuple[Path, Account]:
    state_dir.mkdir(parents=True, exist_ok=True)
    account = account_for(state_dir)
    return servers_directory(state_dir, account), account


def _address(url: str, setting: str, default_port: int) -> tuple[str, str, int]:
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK:
        raise EmbeddedError(
            f"{setting} points to {parts.hostname}: an embedded server is reached on 127.0.0.1 only"
        )
    if not parts.password:
        raise EmbeddedError(f"{setting} has no password; scripts/up generates one")
    return (
        unquote(parts.username or ""),
        unquote(parts.password),
        parts.port or default_port,
    )


def main(arguments: list[str]) -> int:
    """Entry point; returns only when the server could not be started."""
    servers = {"postgres": postgres, "redis": redis}
    if len(arguments) != 1 or arguments[0] not in servers:
        print("usage: python -m ironbeat.embedded postgres|redis", file=sys.stderr)
        return 2
    try:
        servers[arguments[0]](get_settings()).become()
    except (EmbeddedError, SettingsError, OSError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
