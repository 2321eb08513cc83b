"""``ironbeat documents …``: process a directory, follow it, move work between the queues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ironbeat import audited

app = typer.Typer(
    name="documents", no_args_is_help=True, help="Metadata for the chunks of documents."
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback()
def group() -> None:
    """Metadata for the chunks of documents."""


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def _fail(message: str, hint: str, status: int) -> typer.Exit:
    typer.echo(f"ironbeat: {message}\n{hint}".rstrip(), err=True)
    return typer.Exit(status)


@app.command()
@audited("documents.process", "directory")
def process(
    directory: Annotated[
        Path, typer.Argument(help="Files below it are read: txt, md, html, pdf, docx.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write JSON Lines there.")
    ] = None,
    use_celery: Annotated[
        bool, typer.Option("--use-celery", help="All to Celery, whatever the ratio.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the metadata.")] = True,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Wait no longer than so many seconds.")
    ] = None,
    readers: Annotated[int | None, typer.Option(min=1, help="Processes that read files.")] = None,
    as_json: Json = False,
) -> None:
    """Have the metadata of all documents in a directory made. Run it again to go on.

    A file that cannot be read is named with its reason and passed over. Exit status 1 when chunks
    failed, 7 when the time to wait was over first.
    """
    from ironbeat.workloads.documents.processor import DocumentProcessor

    processor = DocumentProcessor(directory, output, use_celery=use_celery, readers=readers)
    try:
        with _Bar(show=not as_json) as bar:
            report = (
                processor.process(bar.show, timeout=timeout) if wait else processor.submit(bar.show)
            )
    except NotADirectoryError as error:
        raise _fail(str(error), "Give a directory of documents.", 2) from error
    figures = {
        "batch_id": report.batch_id,
        "files": report.files,
        "documents": len(report.submitted),
        "unchanged": report.unchanged,
        "chunks": report.chunks,
        "done": report.done,
        "failed": report.failed,
        "skipped": report.skipped,
        "ended": report.ended,
        "sides": _sides(report.batch_id),
    }
    if as_json:
        _print(figures)
    else:
        _tell(figures)
    if report.failed:
        raise typer.Exit(1)
    if wait and not report.ended:
        raise typer.Exit(7)


def _sides(batch_id: str | None) -> dict[str, int]:
    from ironbeat.workloads.documents import store

    found: dict[str, int] = {}
    for row in store.rows("sides", batch_id=batch_id):
        name = row["side"] or "waiting"
        found[name] = found.get(name, 0) + row["chunks"]
    return found


def _tell(figures: dict[str, Any]) -> None:
    sides = ", ".join(f"{count} by {name}" for name, count in figures["sides"].items())
    typer.echo(
        f"{figures['files']} files, {figures['documents']} submitted, {figures['unchanged']} "
        f"unchanged; {figures['chunks']} chunks: {figures['done']} done, {figures['failed']} failed"
        + (f" ({sides})" if sides else "")
    )
    for path, reason in figures["skipped"].items():
        typer.echo(f"skipped {path}: {reason}")
    if not figures["ended"]:
        typer.echo(f"It goes on; ironbeat documents batch {figures['batch_id']} follows it.")


class _Bar:
    """A progress bar on standard error, where a person looks."""

    def __init__(self, *, show: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not show,
        )
        self._read = self._bars.add_task("read", total=None)
        self._done = self._bars.add_task("metadata", total=None)

    def __enter__(self) -> _Bar:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, report: Any) -> None:
        """Show how far it is."""
        self._bars.update(self._read, completed=report.read, total=report.files)
        self._bars.update(
            self._done, completed=report.done + report.failed, total=report.chunks or None
        )


@app.command("list")
def list_documents(
    status: Annotated[str | None, typer.Option(help="Only these: completed, skipped, …")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: Json = False,
) -> None:
    """List the newest documents and how they stand."""
    from ironbeat.workloads.documents import store

    rows = store.rows("listing", status=status, limit=limit)
    if as_json:
        _print(rows)
        return
    for row in rows:
        reason = f"  {row['reason']}" if row["reason"] else ""
        typer.echo(
            f"{row['id'][:8]}  {row['status']:<10}  {row['done']:>5}/{row['total']:<5}  "
            f"{row['language'] or '–':<3}  {row['path'] or row['title']}{reason}"
        )


@app.command()
def batch(
    id: Annotated[str, typer.Argument(help="The batch's id.")], as_json: Json = False
) -> None:
    """Show how a batch stands."""
    from ironbeat.workloads.documents import store

    stands = store.row("batch", batch_id=id)
    if stands is None or not stands["documents"]:
        raise _fail(f"there is no batch {id!r}", "`ironbeat documents process` names it.", 3)
    stands["sides"] = _sides(id)
    if as_json:
        _print(stands)
        return
    typer.echo(
        f"{stands['ended']} of {stands['documents']} documents ended, "
        f"{stands['skipped']} of them skipped; "
        f"{stands['done']} of {stands['chunks']} chunks done, {stands['failed']} failed"
    )


@app.command()
def export(
    output: Annotated[Path, typer.Argument(help="A directory; a file of JSON Lines a document.")],
    batch_id: Annotated[str | None, typer.Option("--batch", help="Only this batch.")] = None,
) -> None:
    """Write the metadata of documents as JSON Lines."""
    from ironbeat.workloads.documents import store
    from ironbeat.workloads.documents.processor import write_lines

    found = (
        store.rows("of_batch", batch_id=batch_id)
        if batch_id
        else store.rows("listing", status=None, limit=1_000_000)
    )
    written = [row for row in found if row["done"]]
    for row in written:
        name = (row["path"] or row["id"]).replace(":", "_").lstrip("/")
        write_lines(output / f"{name}.jsonl", row, store.rows("chunks_of", id=row["id"]))
    typer.echo(f"{len(written)} documents written to {output}")


@app.command()
def ratio(
    value: Annotated[
        float | None, typer.Argument(min=0, max=1, help="The share for Celery; none: show it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the share that goes to Celery, or set it for everybody, in under a second."""
    from ironbeat.workloads.documents.pipeline import manager

    before = manager().use_celery_ratio
    if value is not None:
        before = manager().set_ratio(value)
    now = manager().use_celery_ratio
    if as_json:
        _print({"ratio": now, "before": before})
    else:
        typer.echo(f"{now:g} to Celery" + (f" (was {before:g})" if value is not None else ""))


@app.command()
@audited("documents.move", "to", when=lambda given: bool(given["yes"]))
def move(
    to: Annotated[str, typer.Argument(help="rq or celery.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; else say what would be moved.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Move all runs that wait on one queue to the other. What is being executed stays."""
    from ironbeat.workloads.documents import QUEUE, ledger
    from ironbeat.workloads.documents.pipeline import manager

    if to not in ("rq", "celery"):
        raise _fail(f"there is no side {to!r}", "There are rq and celery.", 2)
    waiting = ledger.waiting(QUEUE, "celery" if to == "rq" else "rq")
    moved = manager().move(QUEUE, "rq" if to == "rq" else "celery") if yes else []
    if as_json:
        _print({"to": to, "waiting": waiting, "moved": len(moved), "dry_run": not yes})
    else:
        typer.echo(
            f"{len(moved)} moved to {to}" if yes else f"{waiting} would move to {to} (--yes)"
        )


@app.command()
def sides(
    since: Annotated[float, typer.Option(min=1, help="Look back so many seconds.")] = 900.0,
    as_json: Json = False,
) -> None:
    """Compare both queues: what waits, runs, has failed, and how long tasks took."""
    from ironbeat.workloads.documents import ledger
    from ironbeat.workloads.documents.pipeline import manager

    found = {"ratio": manager().use_celery_ratio, **ledger.compared(since)}
    if as_json:
        _print(found)
        return
    typer.echo(f"ratio {found['ratio']:g}; the last {since:g} s:")
    for name in ("rq", "celery"):
        side = found[name]
        typer.echo(
            f"{name:<7} workers {side['workers']}  waiting {side['waiting']}  running "
            f"{side['running']}  ended {side['ended']}  failed {side['failed']}  error rate "
            f"{_share(side['error_rate'])}  p50 {_ms(side['p50_ms'])}  p95 {_ms(side['p95_ms'])}"
        )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} ms"


@app.command()
@audited("documents.canary", "ratio")
def canary(
    ratio: Annotated[float, typer.Option("--ratio", min=0, max=1, help="The share for Celery.")],
    seconds: Annotated[float, typer.Option(min=1, help="Watch so long.")] = 300.0,
    errors: Annotated[
        float, typer.Option(min=0, max=1, help="Celery's error rate may be so much above RQ's.")
    ] = 0.02,
    slower: Annotated[
        float, typer.Option(min=1, help="Celery's 95th percentile may be so many times RQ's.")
    ] = 1.5,
    least: Annotated[int, typer.Option(min=1, help="So many must have ended to tell.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Move a share to Celery, compare both sides, and stop by itself where Celery is worse.

    Exit status 1 when it was stopped, 7 when too little ended to tell.
    """
    from ironbeat.workloads.documents import canary as steps

    if dry_run:
        found = steps.planned(ratio)
    else:
        bound = steps.Bound(errors, slower, least)
        found = steps.canary(ratio, seconds=seconds, bound=bound, tell=_told(as_json))
    if as_json:
        _print(found)
    elif dry_run:
        typer.echo(f"would set the ratio from {found['before']:g} to {ratio:g} and watch it")
    else:
        reason = f": {found['reason']}" if found["reason"] else ""
        typer.echo(f"{found['verdict']}{reason}; the ratio is {found['ratio']:g}")
    raise typer.Exit({"stopped": 1, "undecided": 7}.get(found.get("verdict", ""), 0))


@app.command()
@audited("documents.rollback", subject="documents")
def rollback(
    seconds: Annotated[float, typer.Option(min=1, help="Let Celery drain so long.")] = 1800.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Send everything to RQ: ratio 0, what waits is moved, Celery drains. Nothing is lost.

    It lasts over restarts; USE_CELERY=true in the file of settings becomes false.

    Exit status 7 when Celery still executes something after that time.
    """
    from ironbeat.workloads.documents import canary as steps

    if dry_run:
        found = steps.planned(0.0)
        if as_json:
            _print(found)
        else:
            typer.echo(
                f"would set the ratio from {found['before']:g} to 0, move "
                f"{found['celery']['waiting']} runs to RQ and wait for "
                f"{found['celery']['running']} that Celery executes"
            )
        return
    found = steps.rollback(seconds=seconds, tell=_told(as_json))
    if as_json:
        _print(found)
    else:
        typer.echo(
            f"the ratio is {found['ratio']:g} (was {found['before']:g}); {found['moved']} runs "
            f"moved "
            f"to RQ; Celery {'is drained' if found['drained'] else 'is still busy'}; RQ: "
            f"{found['rq']['workers']} workers, {found['rq']['waiting']} waiting"
        )
        if found["use_celery"]:
            typer.echo(
                f"USE_CELERY is still on by {found['use_celery']}; the stored ratio holds all the "
                "same. Take it out there."
            )
    if not found["drained"]:
        raise typer.Exit(7)


def _told(as_json: bool) -> Any:
    """Progress for people, on standard error."""

    def tell(figures: Any) -> None:
        if as_json:
            return
        if "watched" in figures:
            rq, celery = figures["rq"], figures["celery"]
            typer.echo(
                f"{figures['watched']:5.0f} s  rq {rq['ended']} ended, {_share(rq['error_rate'])} "
                f"failed, p95 {_ms(rq['p95_ms'])}  celery {celery['ended']} ended, "
                f"{_share(celery['error_rate'])} failed, p95 {_ms(celery['p95_ms'])}",
                err=True,
            )
        else:
            typer.echo(
                f"moved {figures['moved']}; Celery runs {figures['running']}, "
                f"has {figures['waiting']} waiting",
                err=True,
            )

    return tell
