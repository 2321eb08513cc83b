"""The live screen's view as lines of a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ironbeat.cli import views
from ironbeat.cli.consoles import harmless
from ironbeat.cli.looks import Kind, Look, Target
from ironbeat.cli.output import clock, duration, moment, narrow, table
from ironbeat.cli.runs import run_details, runs_table
from ironbeat.cli.screen import (
    FRAME,
    HELP,
    Pane,
    Row,
    Section,
    State,
    View,
    order_name,
    process_of,
    view_of,
)

Line = list[Segment]

# The last ones are cut off first.
KEYS = "q end  ? help  Enter open  / filter  s sort  r reverse  Tab list  ↑↓ select  p pause"
KEYS_OPENED = "Esc back  " + KEYS
KEYS_OF_A_TEXT = "Esc back  q end  ? help  ↑↓ PgUp PgDn scroll  p pause"


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines that are ready, as something that Rich prints."""

    lines: Sequence[Line]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """The segments of the lines."""
        for index, line in enumerate(self.lines):
            if index:
                yield Segment.line()
            yield from line


def lay_out(console: Console, state: State, look: Look | None) -> tuple[View, list[Line]]:
    """What ``state`` shows of ``look`` on the whole of ``console``, and its text as lines."""
    text = _rendered(console, _text(state, look))
    return view_of(state, look, console.size.height, len(text)), text


def draw(console: Console, state: State, look: Look | None, keyboard: bool = True) -> Lines:
    """The whole screen."""
    width, height = console.size
    view, text = lay_out(console, state, look)
    body = text[view.top : view.top + view.text_room]
    for pane in view.panes:
        if pane.shown >= 0:
            body += _pane(console, pane, look)
    room = max(0, height - FRAME)
    body = body[:room] + [[]] * (room - len(body))
    lines = [
        *_rendered(console, _head(state, look))[:1],
        *body,
        *_rendered(console, _foot(state, keyboard))[:1],
    ]
    return Lines([Segment.adjust_line_length(line, width) for line in lines[:height]])


def _rendered(console: Console, what: RenderableType) -> list[Line]:
    lines = console.render_lines(what, console.options.update(height=None), pad=False)
    return [list(harmless(line)) for line in lines]


def _head(state: State, look: Look | None) -> Text:
    line = Text("Ironbeat", style="bold", no_wrap=True, overflow="ellipsis")
    for place in state.places[1:]:
        assert place.target is not None
        line.append(f" › {place.target.kind} {place.target.key.removeprefix('worker ')}")
    if look is not None:
        line.append(f"   {moment(look.seen.at)}", style="not bold dim")
    if state.paused:
        line.append("   paused", style="bold yellow")
    if state.place.filter and state.typing is None:
        line.append(f"   filter: {state.place.filter}", style="bold cyan")
    return line


def _foot(state: State, keyboard: bool) -> Text:
    if state.typing is not None:
        line = Text("filter: ", style="bold cyan")
        line.append(state.place.filter, style="default")
        line.append("█", style="default")
        line.append("   Enter keep  Esc drop", style="not bold dim")
    elif not keyboard:
        line = Text("Ctrl-C ends", style="dim")
    elif state.place.target is None:
        line = Text(KEYS, style="dim")
    else:
        run = state.place.target.kind is Kind.RUN
        line = Text(KEYS_OF_A_TEXT if run else KEYS_OPENED, style="dim")
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


# -- text ------------------------------------------------------------------------------------------


def _text(state: State, look: Look | None) -> RenderableType:
    if state.help:
        made = table(None, ["!", ""], HELP, fold=True)
        made.show_header = False
        return made
    if look is None:
        return Text("reading …", style="dim")
    problems = [Text(problem, style="bold red") for problem in look.problems]
    target = state.place.target
    if target is None:
        return Group(*_overview(look), *problems)
    if look.question.target != target:
        return Group(*problems, Text("reading …", style="dim"))
    if look.detail is not None and look.detail.problem:
        problems.append(Text(look.detail.problem, style="bold red"))
    return Group(*problems, *_OPENED[target.kind](target, look))


def _overview(look: Look) -> list[RenderableType]:
    seen = look.seen
    parts: list[RenderableType] = [views.headline(seen.health), *views.problems(seen)]
    if seen.broken:
        parts.append(views.limits(seen.broken))
    return [*parts, views.outcomes(seen), views.stores(seen)]


def _facts(*pairs: tuple[str, Any]) -> Table:
    made = table(None, ["!", ""], [pair for pair in pairs if pair[1] not in (None, "")], fold=True)
    made.show_header = False
    return made


def _run(_: Target, look: Look) -> list[RenderableType]:
    run = look.detail.run if look.detail else None
    return [run_details(run)] if run else []


def _queue(target: Target, look: Look) -> list[RenderableType]:
    queue = next((each for each in look.seen.queues if each.name == target.key), None)
    if queue is None:
        return [Text("Nothing declares, consumes or waits in this queue any more.")]
    steps = queue.by_priority or {}
    return [
        _facts(
            ("waiting", queue.length),
            ("by priority", ", ".join(f"{step}: {n}" for step, n in steps.items() if n)),
            ("oldest", duration(queue.oldest_age_seconds) if queue.oldest else None),
            ("in the ledger", ", ".join(f"{n} {state}" for state, n in sorted(queue.live.items()))),
            ("consumers", queue.consumers),
        )
    ]


def _process(target: Target, look: Look) -> list[RenderableType]:
    process = process_of(look.seen, target.key)
    if process is None:
        return [Text("It has had no lease for ten minutes.", style="yellow")]
    return [
        views.processes([process]),
        _facts(
            ("host", process.host),
            ("started", process.started_at),
            ("lease renewed", f"{duration(process.silent_seconds)} ago"),
            ("version", process.version),
            ("concurrency", getattr(process, "concurrency", None)),
        ),
    ]


def _schedule(target: Target, look: Look) -> list[RenderableType]:
    found = next((each for each in look.seen.schedules if each.name == target.key), None)
    if found is None:
        return [Text("It is not among the schedules that were read.", style="yellow")]
    return [
        views.schedule_table([found], look.seen.at),
        _facts(
            ("task", found.task),
            ("queue", found.queue),
            ("time zone", found.timezone),
            ("next", found.next_at),
            ("catch-up", found.catch_up),
            ("overlap", found.overlap),
        ),
    ]


_OPENED: dict[Kind, Callable[[Target, Look], list[RenderableType]]] = {
    Kind.RUN: _run,
    Kind.QUEUE: _queue,
    Kind.PROCESS: _process,
    Kind.SCHEDULE: _schedule,
}


# -- lists -----------------------------------------------------------------------------------------


def _pane(console: Console, pane: Pane, look: Look | None) -> list[Line]:
    title = Text(no_wrap=True, overflow="ellipsis")
    title.append(f"{'▸' if pane.focused else ' '} {pane.section}", _tone(pane))
    title.append(f"  {_counted(pane)}", "dim")
    name = order_name(pane.section, pane.order)
    if name or pane.order.reverse:
        title.append(f"  by {name}" if name else "", "cyan")
        title.append(" reversed" if pane.order.reverse else "", "cyan")
    lines = _rendered(console, title)[:1]
    if not pane.visible or look is None:
        return lines
    made = _table(pane, look)
    for column in made.columns:
        column.header = Text(str(column.header), no_wrap=True, overflow="ellipsis")
    if pane.focused:
        made.rows[pane.selected - pane.first].style = "reverse"
    return lines + _rendered(console, made)[: pane.shown + 1]


def _tone(pane: Pane) -> str:
    return "bold cyan" if pane.focused else "bold"


def _counted(pane: Pane) -> str:
    found = len(pane.rows)
    shown = f"{pane.first + 1}–{pane.first + len(pane.visible)} of " if pane.shown < found else ""
    return f"{shown}{found}" + (f" of {pane.total} meet the filter" if found < pane.total else "")


def _table(pane: Pane, look: Look) -> Table:
    items = [row.item for row in pane.visible]
    if pane.section is Section.QUEUES:
        longest = max((row.item.length or 0 for row in pane.rows), default=0)
        return views.queue_bars(items, None, longest)
    if pane.section is Section.PROCESSES:
        return views.processes(items)
    if pane.section is Section.SCHEDULES:
        return views.schedule_table(items, look.seen.at)
    if pane.section is Section.WAITING:
        return _waiting(pane.visible)
    return runs_table(items)


def _waiting(found: Sequence[Row]) -> Table:
    short = narrow()
    rows = [
        (
            row.item.id[:8] if short else row.item.id,
            views.state_text(row.item.state),
            row.item.task,
            duration(row.item.age_seconds),
            clock(row.item.since),
            row.item.schedule,
            row.item.arguments,
        )
        for row in found
    ]
    columns = ["!id", "!state", "task", ">!age", "!created", "schedule", "arguments"]
    return table(None, columns, rows)
