"""A console that shows what others have written and obeys none of it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

#: What a terminal would obey: a task's arguments and errors are text of others.
CONTROLS = dict.fromkeys((*range(10), *range(11, 32), *range(127, 160)), "·")


class HarmlessConsole(Console):
    """Prints a dot in place of each control character, whatever the text came from."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """As rich's."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(segment.text.translate(CONTROLS), segment.style)
