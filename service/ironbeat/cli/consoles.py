"""What others have written is shown on a terminal, and obeyed by none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.measure import Measurement
from rich.segment import Segment

#: What a terminal would obey: a task's arguments and errors are text of others.
CONTROLS = dict.fromkeys((*range(10), *range(11, 32), *range(127, 160)), "·")


def harmless(segments: Iterable[Segment]) -> Iterator[Segment]:
    """The same with a dot in place of each control character; what rich itself sends stays.

    For what is laid out already: a control character has no width, and its dot has one.
    """
    for segment in segments:
        if segment.control or segment.text.isprintable():
            yield segment
        else:
            yield Segment(segment.text.translate(CONTROLS), segment.style)


def harmless_console(width: int | None = None) -> Console:
    """A console on standard output that prints everything so."""
    made = Console(width=width, highlight=False)
    made.push_render_hook(_Hook())
    return made


class _Hook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """What is printed, made harmless."""
        return [_Harmless(each) for each in renderables]


@dataclass(frozen=True)
class _Harmless:
    inner: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        return harmless(console.render(self.inner, options))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.inner)
