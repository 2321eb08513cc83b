"""The page of hot questions: HTML with SVG in it, without script or outside request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from html import escape
from typing import Any

# Questions in the chart; more lines than colours cannot be told apart.
CHARTED = 6
WIDTH, HEIGHT, LEFT, BOTTOM = 860, 240, 40, 24
SPARK_WIDTH, SPARK_HEIGHT = 120, 22

_COLOURS = ("#3b6fd4", "#d4603b", "#2f9e66", "#9b4fc4", "#b8860b", "#4b9fb5")
_TRENDS = {
    "new": "✦ new",
    "rising": "▲ rising",
    "falling": "▼ falling",
    "steady": "● steady",
    "rare": "· rare",
}

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; vertical-align: top; }
tr { border-top: 1px solid #8883; } td.number, th.number { text-align: right; }
svg { max-width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: #888; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .3em; }
small, .quiet { color: #888; } .rising, .new { color: #2f9e66; } .falling { color: #c0553a; }
"""


def questions_page(body: dict[str, Any]) -> str:
    """The page for a payload as :mod:`.payload` makes it."""
    questions = body["questions"]
    told = (
        f"{body['messages']} messages until the end of {body['date']} ({body['timezone']}): "
        f"{body['grouped']} in {body['groups']} groups, {body['noise']} noise, "
        f"{body['not_classified']} not classified yet"
    )
    rows = "".join(_row(question, place) for place, question in enumerate(questions))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Hot questions</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>Hot questions</h1><p>{escape(told)}.</p>"
        f"{_chart(questions[:CHARTED], body['date']) if questions else '<p>None yet.</p>'}"
        "<table><thead><tr><th class='number'>#</th><th>question</th><th>four weeks</th>"
        "<th>trend</th><th class='number'>7 days</th><th class='number'>before</th>"
        f"<th class='number'>all</th></tr></thead><tbody>{rows}</tbody></table></body></html>"
    )


def _row(question: dict[str, Any], place: int) -> str:
    colour = _COLOURS[place] if place < CHARTED else "#888"
    examples = "".join(
        f"<br><small>{escape(text)}</small>"
        for text in question["examples"]
        if text != question["question"]
    )
    trend = question["trend"]
    return (
        f"<tr><td class='number'>{question['rank']}</td>"
        f"<td><span class='key' style='background:{colour}'></span>"
        f"<b>{escape(question['label'])}</b> <span class='quiet'>{question['id']}</span><br>"
        f"{escape(question['question'])}{examples}</td>"
        f"<td>{_spark(question['days'], colour)}</td>"
        f"<td class='{escape(trend)}'>{_TRENDS[trend]}</td>"
        f"<td class='number'>{question['recent']}</td>"
        f"<td class='number'>{question['previous']}</td>"
        f"<td class='number'>{question['messages']}</td></tr>"
    )


def _points(
    days: Sequence[int], most: int, width: float, height: float, left: float, top: float
) -> str:
    step = width / max(1, len(days) - 1)
    return " ".join(
        f"{left + step * place:.1f},{top + height * (1 - value / most):.1f}"
        for place, value in enumerate(days)
    )


def _spark(days: Sequence[int], colour: str) -> str:
    most = max(1, *days)
    points = _points(days, most, SPARK_WIDTH - 4, SPARK_HEIGHT - 4, 2, 2)
    return (
        f'<svg width="{SPARK_WIDTH}" height="{SPARK_HEIGHT}" role="img" '
        f'aria-label="messages a day, at most {most}">'
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/></svg>'
    )


def _chart(questions: Sequence[dict[str, Any]], last: str) -> str:
    """Messages a day of the hottest questions."""
    most = max(1, *(value for question in questions for value in question["days"]))
    number = len(questions[0]["days"])
    height, width = HEIGHT - BOTTOM - 10, WIDTH - LEFT - 10
    lines = "".join(
        f'<polyline points="{_points(question["days"], most, width, height, LEFT, 10)}" '
        f'fill="none" stroke="{colour}" stroke-width="2"><title>{escape(question["label"])}</title>'
        "</polyline>"
        for question, colour in zip(questions, _COLOURS, strict=False)
    )
    grid = "".join(
        f'<line x1="{LEFT}" x2="{LEFT + width}" y1="{10 + height * (1 - part)}" '
        f'y2="{10 + height * (1 - part)}" stroke="#8883"/>'
        f'<text x="{LEFT - 6}" y="{14 + height * (1 - part)}" text-anchor="end">'
        f"{round(most * part)}</text>"
        for part in (0.0, 0.5, 1.0)
    )
    end = date.fromisoformat(last)
    dates = "".join(
        f'<text x="{LEFT + width * place / max(1, number - 1):.1f}" y="{HEIGHT - 6}" '
        f'text-anchor="{anchor}">{end - timedelta(days=number - 1 - place)}</text>'
        for place, anchor in ((0, "start"), (number // 2, "middle"), (number - 1, "end"))
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Messages a day of the hottest questions">{grid}{lines}{dates}</svg>'
    )
