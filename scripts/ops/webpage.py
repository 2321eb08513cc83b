"""A report as one HTML file that needs nothing else: to be sent on, printed, kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from html import escape

from scripts.ops.plots import Plot, svg
from scripts.ops.words import Cell, Table, Toned, plain

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; }
body { padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
td { border-top: 1px solid color-mix(in srgb, currentColor 15%, transparent); }
.right { text-align: right; }
.good { color: light-dark(#17692f, #6fd08c); } .warning { color: light-dark(#8a5300, #f0b45a); }
.bad { color: light-dark(#b3131b, #ff8a85); font-weight: 600; } .dim { opacity: .65; }
figure { margin: 1.2rem 0; max-width: 48rem; } figcaption { margin-bottom: .2rem; }
figcaption span { margin-left: 1rem; white-space: nowrap; }
figcaption span::before { content: "■ "; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 11px; fill: currentColor; opacity: .75; } svg .left { text-anchor: end; }
svg .grid { stroke: currentColor; opacity: .15; } svg .touch { fill: transparent; }
svg rect { fill: currentColor; }
svg polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
svg polyline { stroke-linecap: round; }
"""


def page(
    heading: Sequence[str],
    complaints: Sequence[str],
    plots: Sequence[Plot],
    tables: Sequence[Table],
    zone: tzinfo,
) -> str:
    """The page: its heading, what is wrong, how the period went, and the tables under it."""
    title, *rest = heading
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in rest),
    ]
    if complaints:
        items = "".join(f"<li>{escape(each)}</li>" for each in complaints)
        parts.append(f'<ul class="bad">{items}</ul>')
    for plot in plots:
        parts += _figure(plot, zone)
    for table in tables:
        parts += _table(table)
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _figure(plot: Plot, zone: tzinfo) -> list[str]:
    names = "".join(
        f'<span class="{each.tone}">{escape(each.name)}</span>'
        for each in plot.series
        if any(each.values)
    )
    caption = f"<figcaption>{escape(plot.title)} {names}</figcaption>"
    return ["<figure>", caption, svg(plot, zone), "</figure>"]


def _table(table: Table) -> list[str]:
    right = [name.startswith(">") for name in table.columns]
    head = "".join(
        _cell("th", Toned(name.removeprefix(">") or " "), side)
        for name, side in zip(table.columns, right, strict=True)
    )
    parts = [f"<h2>{escape(table.title)}</h2>", '<div class="scroll"><table>', f"<tr>{head}</tr>"]
    for row in table.rows:
        cells = (_cell("td", cell, side) for cell, side in zip(row, right, strict=True))
        parts.append(f"<tr>{''.join(cells)}</tr>")
    return [*parts, "</table></div>"]


def _cell(tag: str, cell: Cell, right: bool) -> str:
    classes = [*(["right"] if right else [])]
    if isinstance(cell, Toned) and cell.tone:
        classes.append(cell.tone)
    attribute = f' class="{" ".join(classes)}"' if classes else ""
    return f"<{tag}{attribute}>{escape(plain(cell))}</{tag}>"
