"""Changes made on the command line, in the audit.

The platform's commands that change something stand here, in one place; a workload says it of its
own with :func:`audited`. A test goes through all commands: each is audited, or only reads, or is
named there with a reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import typer

Parameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """What a command changes.

    ``action`` is a thing and a verb; ``named_by`` are the parameters that name what it is done to,
    where ``subject`` does not; ``when`` tells by the parameters whether it changes anything.
    ``makes_tables``: the audit's own may not be there before it.
    """

    action: str
    named_by: tuple[str, ...] = ()
    subject: str = ""
    when: Callable[[Parameters], bool] = lambda _: True
    makes_tables: bool = False

    def done_to(self, parameters: Parameters) -> str:
        """What a call is done to."""
        return self.subject or "/".join(
            ", ".join(of) if isinstance(of, list | tuple) else str(of)
            for of in map(parameters.get, self.named_by)
            if of is not None
        )


def _is_installed(parameters: Parameters) -> bool:
    """A workload that is not there is told of before anybody looks for a database."""
    from ironbeat.workload import discover

    return parameters["workload"] in {found.name for found in discover()}


#: Command path -> what it changes.
AUDITED: Mapping[tuple[str, ...], Change] = {
    ("schedule", "add"): Change("schedule.add", ("name",)),
    ("schedule", "edit"): Change("schedule.edit", ("name",)),
    ("schedule", "pause"): Change("schedule.pause", ("names",)),
    ("schedule", "resume"): Change("schedule.resume", ("names",)),
    ("schedule", "remove"): Change("schedule.remove", ("name",)),
    ("schedule", "run"): Change("schedule.run", ("name",)),
    ("schedule", "backfill"): Change("schedule.backfill", ("name",)),
    ("schedule", "import"): Change("schedule.import"),
    ("test",): Change("run.submit", subject="ironbeat.echo"),
    ("cancel",): Change("run.cancel", ("id",)),
    ("retry",): Change("run.retry", ("id",)),
    ("dead", "replay"): Change("dead.replay", ("ids",)),
    ("dead", "drop"): Change("dead.drop", ("ids",)),
    ("purge",): Change("queue.purge", ("queue",)),
    ("users", "add"): Change("user.add", ("name",)),
    ("users", "passwd"): Change("user.passwd", ("name",)),
    ("users", "role"): Change("user.role", ("name",)),
    ("users", "remove"): Change("user.remove", ("name",)),
    ("db", "upgrade"): Change("database.upgrade", makes_tables=True),
    ("db", "downgrade"): Change("database.downgrade", ("branch",)),
    ("sample",): Change("sample.load", ("workload",), when=_is_installed),
}
# How it is printed, and whether it asks: no part of what was changed.
_MANNERS = frozenset({"as_json", "yes", "wait", "timeout"})


def watch_over(name: str, command: Any) -> Any:
    """Have the changes that ``command`` (or its subcommands) makes written down."""
    for path, change in AUDITED.items():
        if path[0] == name:
            found = command if len(path) == 1 else command.commands.get(path[1])
            if found is not None and found.callback is not None:
                found.callback = _noted(found.callback, change)
    return command


def audited(
    action: str,
    *named_by: str,
    subject: str = "",
    when: Callable[[Parameters], bool] = lambda _: True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: have the changes that a workload's command makes written down.

    It stands below ``@app.command()``. ``action`` is the workload's name and a verb
    (``billing.refund``), ``named_by`` the parameters that name what it is done to; ``when``, given
    the parameters, tells whether a call changes anything. A ``dry_run`` changes nothing.
    """
    change = Change(action, named_by, subject, when)
    return lambda callback: _noted(callback, change)


def change_of(command: Any) -> Change | None:
    """What is written down of a command's calls, if anything is."""
    return getattr(command.callback, "ironbeat_change", None)


def _noted(callback: Callable[..., Any], change: Change) -> Callable[..., Any]:
    @functools.wraps(callback)
    def noted(**parameters: Any) -> Any:
        if parameters.get("dry_run") or not change.when(parameters):
            return callback(**parameters)
        return _write_down(callback, change, parameters)

    noted.ironbeat_change = change  # type: ignore[attr-defined]
    return noted


def _write_down(callback: Callable[..., Any], change: Change, parameters: Parameters) -> Any:
    from ironbeat.access import audit
    from ironbeat.observability.masking import Masker, secrets_of
    from ironbeat.settings import get_settings

    settings = get_settings()
    detail = {
        name: value
        for name, value in parameters.items()
        if value not in (None, False, "", ()) and name not in {*_MANNERS, *change.named_by}
    }
    ended: typer.Exit | None = None
    with audit.noted(
        settings.database_url.get_secret_value(),
        audit.Actor(audit.somebody(), "cli"),
        change.action,
        change.done_to(parameters),
        Masker(secrets_of(settings)).within(detail),
        late=change.makes_tables,
    ) as note:
        try:
            return callback(**parameters)
        except typer.Exit as error:
            # It went as far as it should; the status tells of what it was done to.
            ended = error
            note.detail["exit_status"] = error.exit_code
    raise ended
