"""Changes made on the command line, in the audit: which commands those are, in one place."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import typer

# Command path -> the action's name, and the parameter that names what it is done to.
AUDITED: Mapping[tuple[str, ...], tuple[str, str]] = {
    ("schedule", "add"): ("schedule.add", "name"),
    ("schedule", "edit"): ("schedule.edit", "name"),
    ("schedule", "pause"): ("schedule.pause", "names"),
    ("schedule", "resume"): ("schedule.resume", "names"),
    ("schedule", "restore"): ("schedule.restore", "names"),
    ("schedule", "remove"): ("schedule.remove", "name"),
    ("schedule", "run"): ("schedule.run", "name"),
    ("schedule", "backfill"): ("schedule.backfill", "name"),
    ("cancel",): ("run.cancel", "id"),
    ("retry",): ("run.retry", "id"),
    ("dead", "replay"): ("dead.replay", "ids"),
    ("dead", "drop"): ("dead.drop", "ids"),
    ("purge",): ("queue.purge", "queue"),
    ("users", "add"): ("user.add", "name"),
    ("users", "passwd"): ("user.passwd", "name"),
    ("users", "role"): ("user.role", "name"),
    ("users", "remove"): ("user.remove", "name"),
}
# How it is printed, and whether it asks: no part of what was changed.
_MANNERS = frozenset({"as_json", "yes", "wait", "timeout"})


def watch_over(name: str, command: Any) -> Any:
    """Have the changes that ``command`` (or its subcommands) makes written down."""
    for path, (action, subject) in AUDITED.items():
        if path[0] == name:
            found = command if len(path) == 1 else command.commands.get(path[1])
            if found is not None and found.callback is not None:
                found.callback = _noted(found.callback, action, subject)
    return command


def _noted(callback: Any, action: str, subject: str) -> Any:
    @functools.wraps(callback)
    def noted(**parameters: Any) -> Any:
        if parameters.get("dry_run"):
            return callback(**parameters)
        from ironbeat.access import audit
        from ironbeat.observability.masking import masked
        from ironbeat.settings import get_settings

        url = get_settings().database_url.get_secret_value()
        of = parameters.get(subject)
        detail = {
            key: value
            for key, value in parameters.items()
            if value not in (None, False, "", ()) and key not in {*_MANNERS, subject}
        }
        actor = audit.Actor(audit.somebody(), "cli")
        told = ", ".join(of) if isinstance(of, list | tuple) else str(of or "")
        ended: typer.Exit | None = None
        with audit.noted(url, actor, action, told, masked(detail)) as note:
            try:
                return callback(**parameters)
            except typer.Exit as error:
                # It went as far as it should; the status tells of what it was done to.
                ended = error
                note.detail["exit_status"] = error.exit_code
        raise ended

    return noted
