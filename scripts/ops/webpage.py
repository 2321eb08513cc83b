"""A report as one HTML file that needs nothing else: to be sent on, printed, kept."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

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
"""


def page(heading: Sequence[str], complaints: Sequence[str], tables: Sequence[Table]) -> str:
    """The page: its heading, what is wrong, and the tables under it."""
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
    for table in tables:
        parts += _table(table)
    parts.append("</body></html>\n")
    return "\n".join(parts)


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
