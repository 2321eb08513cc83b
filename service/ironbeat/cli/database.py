"""``ironbeat db``: the tables' revisions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ironbeat.cli.confirmation import confirm
from ironbeat.cli.failures import CommandError, ExitStatus
from ironbeat.cli.output import JsonFlag, show

app = typer.Typer(name="db", no_args_is_help=True)


@app.callback()
def db() -> None:
    """Bring the database's tables up to date, or tell what is missing."""


@app.command()
def upgrade(as_json: JsonFlag = False) -> None:
    """Make or update the tables of the platform and of every workload that is switched on."""
    from ironbeat import migrations
    from ironbeat.access import audit

    applied = migrations.upgrade()
    audit.tell(applied=applied)
    show(
        {"applied": applied},
        as_json,
        lambda: "\n".join(f"applied {name}" for name in applied) or "The tables are up to date.",
    )


@app.command()
def check(as_json: JsonFlag = False) -> None:
    """Tell which revisions `upgrade` would apply; exit status 1 when there are any."""
    from ironbeat import migrations

    pending = migrations.check()
    show(
        {"pending": pending},
        as_json,
        lambda: (
            "\n".join(f"pending {name}" for name in pending) + "\nRun `ironbeat db upgrade`."
            if pending
            else "The tables are up to date."
        ),
    )
    if pending:
        raise typer.Exit(ExitStatus.FAILED)


@app.command()
def downgrade(
    branch: Annotated[str, typer.Argument(help="`ironbeat` (all of the platform) or a workload.")],
    revision: Annotated[
        str, typer.Argument(help="Back to this revision, `-1` for one back, or `base`: away.")
    ] = "base",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Take the tables of one branch back. This destroys their rows; it asks first."""
    from ironbeat import migrations

    known = [each.name for each in migrations.branches()]
    if branch not in known:
        raise CommandError(
            f"there is no branch {branch!r}",
            f"Known are: {', '.join(known)}.",
            ExitStatus.NOT_FOUND,
        )
    confirm(f"Take {branch} back to {revision} and lose the rows of its tables?", yes, as_json)
    migrations.downgrade(branch, revision)
    result: dict[str, Any] = {"branch": branch, "revision": revision}
    show(result, as_json, lambda: f"{branch} is at {revision}.")
