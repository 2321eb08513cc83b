"""``ironbeat speech …``: the owners' commands, and analyses by hand.

What the platform has a command for is handed to that command, with this workload's queues.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ironbeat import CommandError, ExitStatus, run_command
from ironbeat.workloads.speech import workload

QUEUES = ",".join(queue.name for queue in workload.queues)

app = typer.Typer(no_args_is_help=True, help="Audio analysis for speech therapy.")

# Every argument goes on as it is, --help too.
_FORWARDED: dict[str, Any] = {
    "context_settings": {
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": [],
    },
}


def _without(arguments: Sequence[str], *names: str) -> bool:
    """Whether none of these options is among the arguments."""
    return not any(
        argument == name
        or argument.startswith(f"{name}=")
        or (len(name) == 2 and argument.startswith(name) and not argument.startswith("--"))
        for argument in arguments
        for name in names
    )


@app.command(**_FORWARDED)
def worker(context: typer.Context) -> None:
    """Run a worker of this workload's queues: `ironbeat worker`, with --queues."""
    queues = ["--queues", QUEUES] if _without(context.args, "--queues", "-Q") else []
    run_command("worker", *queues, *context.args)


@app.command(**_FORWARDED)
def test(context: typer.Context) -> None:
    """Send a message to a worker and back by way of the queue health: `ironbeat test`."""
    queue = ["--queue", "health"] if _without(context.args, "--queue") else []
    run_command("test", *queue, *context.args)


def _forward(name: str, what: str, *, hidden: bool = False) -> None:
    def forward(context: typer.Context) -> None:
        run_command(name, *context.args)

    app.command(name, help=f"{what}: `ironbeat {name}`.", hidden=hidden, **_FORWARDED)(forward)


_forward("beat", "Run beat")
_forward("flower", "Run Flower")
_forward("status", "Workers, queues, schedules and limits")
_forward("health", "Whether the suite is healthy")
_forward("monitor", "Watch queues, workers and runs as they change")
_forward("monitor-cmd", "The former name of `monitor`", hidden=True)
_forward("task", "State, progress and result of a task")
_forward("cancel", "Cancel a task, waiting or running")
_forward("purge", "Take away what waits in one queue")


@app.command()
def analyze(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The recording.")],
    text: Annotated[str, typer.Option("--text", help="What was to be said.")],
    language: Annotated[str, typer.Option(help="en or zh.")] = "en",
    reference: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="How it sounds when said well.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Write the picture (SVG) here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything that was found.")] = False,
) -> None:
    """Judge a recording here and now, without queue or database."""
    from ironbeat.workloads.speech import analysis
    from ironbeat.workloads.speech.recording import Rejected
    from ironbeat.workloads.speech.spelling import UnknownSpelling

    exercise = analysis.Exercise(text, language, reference.read_bytes() if reference else None)
    try:
        found = analysis.analyse(file.read_bytes(), exercise)
    except (Rejected, UnknownSpelling) as refused:
        raise CommandError(
            f"{file} cannot be judged: {refused}", status=ExitStatus.REFUSED
        ) from refused
    if picture is not None:
        picture.write_text(found.picture, encoding="utf-8")
    scores = {
        name: getattr(found, name)
        for name in ("overall_score", *analysis.PARTS["full"], "confidence")
    }
    if as_json:
        print(json.dumps(scores | {"details": found.details}, ensure_ascii=False))
        return
    for name, value in scores.items():
        print(f"{name.replace('_', ' '):16}{'–' if value is None else value:>6}")
    for sound in found.details["sounds"]:
        if "advice" in sound:
            print(f"  {sound['start']:6.2f} s  {sound['word']}: {sound['advice']}")


@app.command()
def show(
    practice_record_id: int,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """The last analysis of a practice record."""
    from ironbeat.workloads.speech import store

    found = store.latest(practice_record_id)
    if found is None:
        raise CommandError(
            f"practice record {practice_record_id} has no analysis",
            "It is analysed by itself within five minutes of its upload.",
            ExitStatus.NOT_FOUND,
        )
    if as_json:
        print(json.dumps(found, ensure_ascii=False, default=str))
        return
    for name, value in found.items():
        if name != "details" and value is not None:
            print(f"{name:20}{value}")
