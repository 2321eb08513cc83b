"""``ironbeat metrics``: what ``/metrics`` carries, explained."""

from __future__ import annotations

from typing import Annotated

import typer

from ironbeat.cli.output import JsonFlag, show, table

app = typer.Typer()


@app.command()
def metrics(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the page docs/metrics.md.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Explain every metric of `/metrics`: its name, type, labels and meaning."""
    from ironbeat.watch import catalogue

    if markdown:
        typer.echo(catalogue.markdown(), nl=False)
        return
    found = list(catalogue.describe_metrics())
    show(
        found,
        as_json,
        lambda: table(
            None,
            ["metric", "type", "labels", "what it says"],
            [(each.series[0], each.type, " ".join(each.labels), each.meaning) for each in found],
            fold=True,
        ),
    )
