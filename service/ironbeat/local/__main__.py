"""The commands behind ``scripts/up``: up, ``--down``, ``--status``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from ironbeat.local.bringing import NotHealthy, down, shown_path, status, up
from ironbeat.local.installation import Installation, InstallationError
from ironbeat.local.progress import Progress
from ironbeat.local.supervised import SPARE, SupervisorError
from ironbeat.settings import Settings, SettingsError

FAILED = 1
NOT_RUNNING = 3


def main(arguments: list[str]) -> int:
    """Do what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/up",
        description="Bring the whole suite up on this machine: PostgreSQL, Redis, beat, workers, "
        "Flower and the API. A second run goes on where the first one stopped.",
        epilog="DATABASE_URL and REDIS_URL, set on the first run, are used instead of servers of "
        "its own; IRONBEAT_REDIS_SERVER is a redis-server program to run. Other settings "
        "(WORKER_CONCURRENCY=4 scripts/up) are kept in var/env.",
    )
    parser.add_argument("root", type=Path, help=argparse.SUPPRESS)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--down", action="store_true", help="stop everything and keep the data")
    what.add_argument("--status", action="store_true", help="show the processes; 3: none runs")
    parser.add_argument(
        "--now", action="store_true", help="with --down: do not wait for running tasks"
    )
    # scripts/up itself reads this one, and makes the environment accordingly.
    parser.add_argument(
        "--with",
        metavar="LIST",
        help="install what these workloads need, separated by commas: analytics, documents, "
        "speech, or all; remembered by the next run; none: the core alone again",
    )
    parser.usage = "scripts/up [--with LIST] [--down [--now] | --status]"
    chosen = parser.parse_args(arguments)
    state_dir = Path(os.environ.get("IRONBEAT_STATE_DIR") or chosen.root / "var").absolute()
    installation = Installation(chosen.root, state_dir)
    progress = Progress()
    started = time.monotonic()
    try:
        if chosen.status:
            return _show_status(installation)
        if chosen.down:
            if installation.exists:
                down(installation, progress, chosen.now)
            else:
                print("Nothing was brought up here yet.")
            return 0
        settings = up(installation, progress)
    except (NotHealthy, InstallationError, SupervisorError, SettingsError) as error:
        print(f"up: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\nup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    print(_welcome(installation, settings, time.monotonic() - started))
    return 0


def _show_status(installation: Installation) -> int:
    processes = status(installation) if installation.exists else []
    if not processes:
        print("Nothing runs. ./scripts/up brings it up.")
        return NOT_RUNNING
    for each in processes:
        since = f"{each.seconds} s, pid {each.pid}" if each.pid else each.problem
        print(f"{each.name:<12} {each.state:<9} {since:<28} {shown_path(each.logfile)}")
    settings = installation.activate()
    print(f"\n{_addresses(installation, settings)}")
    return 0 if all(each.running or each.group == SPARE for each in processes) else FAILED


def _addresses(installation: Installation, settings: Settings) -> str:
    env_file = shown_path(installation.env_file)
    user = "ironbeat"
    if settings.flower_basic_auth:
        user = settings.flower_basic_auth.get_secret_value().partition(":")[0]
    return (
        f"  Page    http://{settings.api_host}:{settings.api_port}/\n"
        f"          user operator (may change) or viewer (may look), passwords: "
        f"IRONBEAT_DASHBOARD_OPERATOR_PASSWORD and …_VIEWER_PASSWORD in {env_file}\n"
        f"  API     http://{settings.api_host}:{settings.api_port}/docs\n"
        f"          token: IRONBEAT_API_TOKEN in {env_file}\n"
        f"  Flower  http://{settings.flower_host}:{settings.flower_port}\n"
        f"          user {user}, password: IRONBEAT_FLOWER_BASIC_AUTH in {env_file}\n"
        f"  Logs    {shown_path(settings.log_dir)}"
    )


def _welcome(installation: Installation, settings: Settings, seconds: float) -> str:
    ironbeat = shown_path(installation.programs / "ironbeat")
    commands = {
        f"{ironbeat} status": "what runs, what is due, what failed",
        f"{ironbeat} test --message hello": "a task all the way through",
        f"{shown_path(installation.root / 'scripts' / 'up')} --down": "stop it; the data are kept",
    }
    if installation.env_file != installation.programs.parents[1] / "var" / "env":
        commands = {
            f"IRONBEAT_ENV_FILE={shown_path(installation.env_file)} {command}"
            if command.startswith(ironbeat)
            else f"IRONBEAT_STATE_DIR={shown_path(installation.state_dir)} {command}": what
            for command, what in commands.items()
        }
    widest = max(map(len, commands))
    return "\n".join(
        [
            f"\nIronbeat is up ({seconds:.0f} s).\n",
            _addresses(installation, settings),
            "\nNext:",
            *(f"  {command:<{widest}}  {what}" for command, what in commands.items()),
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
