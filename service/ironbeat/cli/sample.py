"""``ironbeat sample``: deterministic rows to try a workload on."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ironbeat.cli.failures import CommandError, ExitStatus, not_found
from ironbeat.cli.output import JsonFlag, duration, show, table

app = typer.Typer()


@app.command()
def sample(
    workload: Annotated[str, typer.Argument(help="The workload's name.")],
    users: Annotated[
        int, typer.Option(min=1, help="How large: the number of users; all else follows from it.")
    ] = 1000,
    as_json: JsonFlag = False,
) -> None:
    """Load sample rows into a workload's tables: the same rows each time."""
    from ironbeat.cli.workloads import explain_absence
    from ironbeat.workload import discover

    known = {found.name: found for found in discover()}
    if workload not in known:
        explain_absence(workload)
        raise not_found("workload", workload, f"Installed are: {', '.join(known) or 'none'}.")
    source = known[workload].sample
    if source is None:
        raise CommandError(
            f"workload {workload!r} brings no sample rows",
            "Those that do: "
            + (", ".join(name for name, found in known.items() if found.sample) or "none")
            + ".",
            ExitStatus.NOT_FOUND,
        )
    module_name, _, attribute = source.partition(":")
    load: Callable[..., Mapping[str, int]] = getattr(
        importlib.import_module(module_name), attribute or "sample"
    )
    started = time.monotonic()
    with _progress(f"Sample rows for {workload}", quiet=as_json) as progress:
        try:
            loaded = dict(load(scale=users, progress=progress))
        except ValueError as error:
            raise CommandError(str(error), status=ExitStatus.REFUSED) from error
    from ironbeat.access import audit

    audit.tell(rows=loaded)
    result: dict[str, Any] = {
        "workload": workload,
        "users": users,
        "rows": loaded,
        "seconds": round(time.monotonic() - started, 3),
    }
    show(
        result,
        as_json,
        lambda: table(
            f"Loaded in {duration(result['seconds'])}", ["rows of", ">rows"], loaded.items()
        ),
    )


@contextmanager
def _progress(title: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """What a workload reports its progress to: a bar on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
