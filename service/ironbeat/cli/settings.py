"""``ironbeat settings``: every setting, its value and where that comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from ironbeat.cli.failures import not_found
from ironbeat.cli.output import JsonFlag, show, table

app = typer.Typer()


@app.command()
def settings(
    name: Annotated[str | None, typer.Argument(help="Only this one; or a part of names.")] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only those that differ from their default.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show every setting, its value and where it comes from; secrets are masked."""
    from ironbeat.settings import describe, get_settings, unknown_names

    found = list(describe(get_settings()))
    if name:
        wanted = name.lower().removeprefix("ironbeat_")
        exact = [
            each
            for each in found
            if wanted == each.name or any(wanted == alias.lower() for alias in each.names)
        ]
        found = exact or [each for each in found if wanted in each.name]
        if not found:
            raise not_found("setting", name, "`ironbeat settings` lists all of them.")
    if changed:
        found = [each for each in found if each.origin != "default"]
    show(
        found,
        as_json,
        lambda: table(
            None,
            ["setting", "value", "from", "set by", "what it is"],
            [
                (each.name, each.value, each.origin, " ".join(each.names), each.description)
                for each in found
            ],
            fold=True,
        ),
    )
    for mistyped, nearest in unknown_names().items():
        meant = f"; did you mean {nearest}?" if nearest else ""
        typer.echo(f"{mistyped} is set, but there is no such setting{meant}", err=True)
