"""``ironbeat analytics …``: a run by hand, imports, searches."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from ironbeat import audited

app = typer.Typer(name="analytics", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Role = Annotated[str, typer.Option(help="Whose messages: user or assistant.")]
Limit = Annotated[int, typer.Option(min=1, max=100, help="Print at most so many.")]


@app.callback()
def group() -> None:
    """Chat questions: import messages, group and rank them, search."""


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date; write it as 2026-03-01") from None


def _role(text: str) -> str:
    if text not in ("user", "assistant"):
        raise typer.BadParameter(f"{text!r} is no role; it is user or assistant")
    return text


@app.command()
@audited("analytics.run", "date")
def run(
    date: Annotated[
        str | None, typer.Option(help="Rank as of the end of this day (2026-03-01); else today.")
    ] = None,
    role: Role = "user",
    full: Annotated[bool, typer.Option("--full", help="Group everything from scratch.")] = False,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Embed what is new, group and rank it here and now, and print the groups."""
    day, role = _day(date), _role(role)
    from ironbeat.workloads.analytics import classification, payload, vectors
    from ironbeat.workloads.analytics.embedder import ModelUnusable

    try:
        embedded = vectors.rebuild(role=role, min_length=5, force=False, budget_seconds=86400.0)
        made = classification.classify(role=role, full=full, day=day)
    except ModelUnusable as error:
        raise typer.BadParameter(str(error)) from error
    found = payload.read(role=role, day=day)
    body = json.loads(found.body) if found else {"questions": []}
    body["questions"] = body["questions"][:limit]
    if as_json:
        _print({"embedding": embedded, "classification": made, **body})
        return
    typer.echo(
        f"{embedded['embedded']} messages embedded ({embedded['computed']} computed) in "
        f"{embedded['seconds']:.1f} s; {made['texts']} texts in {made['groups']} groups, "
        f"{made['noise']} noise, {made.get('new_texts', 0)} new"
        f"{', from scratch' if made.get('from_scratch') else ''}"
    )
    if stages := made.get("seconds"):
        typer.echo("  ".join(f"{name} {spent:.2f} s" for name, spent in stages.items()))
    if body["questions"]:
        typer.echo(_table(body["questions"]))


@app.command()
def groups(
    date: Annotated[str | None, typer.Option(help="As of this day, if it was computed.")] = None,
    role: Role = "user",
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Print the groups as they were last computed."""
    from ironbeat.workloads.analytics import payload

    found = payload.read(role=_role(role), day=_day(date))
    if found is None:
        typer.echo("Nothing was computed yet: `ironbeat analytics run`.", err=True)
        raise typer.Exit(3)
    body = json.loads(found.body)
    body["questions"] = body["questions"][:limit]
    if as_json:
        _print(body)
    else:
        typer.echo(_table(body["questions"]) if body["questions"] else "No groups.")


@app.command("import")
@audited("analytics.import", "file")
def import_messages(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What to import.")],
    format: Annotated[
        str | None, typer.Option(help="jsonl or csv; else by the file's name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Import chat messages from JSON Lines or CSV: all of the file, or nothing.

    Fields: content and role (user, assistant); if there are any, created_at, chat_id and id. A file
    may be imported again: what is there already is passed over.
    """
    from ironbeat.workloads.analytics.importing import ImportRefused, import_file

    try:
        counts = import_file(file, format)
    except (ImportRefused, UnicodeDecodeError) as error:
        raise typer.BadParameter(str(error)) from error
    if as_json:
        _print(counts)
    else:
        typer.echo(
            f"{counts['read']} messages read, {counts['added']} added, "
            f"{counts['known']} were there already"
        )


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="What to look for, in any language.")],
    role: Role = "user",
    limit: Limit = 10,
    as_json: Json = False,
) -> None:
    """Print the messages nearest in meaning, with the group each belongs to."""
    from ironbeat.workloads.analytics import vectors
    from ironbeat.workloads.analytics.embedder import ModelUnusable

    if not text.strip():
        raise typer.BadParameter("say what to look for")
    try:
        found = vectors.similar(text, role=_role(role), number=limit)
    except ModelUnusable as error:
        raise typer.BadParameter(str(error)) from error
    if as_json:
        _print(found)
        return
    for row in found:
        group = f"  [{row['group_id']} {row['label']}]" if row["group_id"] else ""
        typer.echo(f"{row['similarity']:.3f}  {row['content']}{group}")


def _table(questions: list[dict[str, Any]]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("#", "group", "hot", "7 days", "before", "all", "trend"):
        table.add_column(name, justify="left" if name == "trend" else "right")
    for name in ("label", "question"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for question in questions:
        values = [
            *(question[key] for key in ("rank", "id", "hotness", "recent", "previous")),
            *(question[key] for key in ("messages", "trend", "label", "question")),
        ]
        table.add_row(*(Text(str(value)) for value in values))
    console = Console(width=160, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()
