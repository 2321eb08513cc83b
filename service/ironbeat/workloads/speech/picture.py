"""The picture of an analysis: waveform with the sounds marked, pitch against the reference.

An SVG, written as text: it needs no drawing library and no fonts here (phonetic letters and Chinese
are set by whoever shows it), it can be read aloud, and the same analysis gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from ironbeat.workloads.speech.alignment import Span
from ironbeat.workloads.speech.prosody import PITCH_STEP
from ironbeat.workloads.speech.recording import RATE, Samples
from ironbeat.workloads.speech.scoring import verdict

WIDTH, HEIGHT = 960, 430
_LEFT, _RIGHT = 56, 16
_WAVE_TOP, _WAVE_HEIGHT = 60, 120
_SOUNDS_TOP = _WAVE_TOP + _WAVE_HEIGHT
_PITCH_TOP, _PITCH_HEIGHT = 262, 130

# Told apart by those who see no red and green, too; what is not right is also written below.
_COLOURS = {"right": "#0072b2", "near": "#e69f00", "wrong": "#d55e00"}
# Half the height of the pitch panel, in semitones.
_SEMITONES = 9.0

# Where a time in seconds lies from left to right.
Place = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn; ``pitch`` and ``reference`` in semitones on the recording's time axis."""

    samples: Samples
    text: str
    overall: float
    sounds: Sequence[str]
    heard: Sequence[str | None]
    right: Sequence[float]
    spans: Sequence[Span]
    pitch: NDArray[np.float64]
    reference: NDArray[np.float64] | None


def draw(drawing: Drawing) -> str:
    """The picture as SVG."""
    seconds = max(len(drawing.samples) / RATE, 0.01)

    def x(time: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * min(max(time / seconds, 0.0), 1.0)

    title = f"{drawing.text} — {drawing.overall:.1f} of 100"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="14" fill="#222">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(_description(drawing))}</desc>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-size="17" font-weight="600">{escape(_short(title))}</text>',
        _legend(drawing.reference is not None),
    ]
    parts += _bands(drawing, x)
    parts.append(_wave(drawing.samples))
    parts += _pitch_panel(drawing, x)
    parts += _seconds_axis(seconds, x)
    parts.append("</svg>")
    return "\n".join(parts)


def _description(drawing: Drawing) -> str:
    wrong = [
        f"{heard or 'nothing'} for {sound}"
        for sound, heard, right in zip(drawing.sounds, drawing.heard, drawing.right, strict=True)
        if verdict(right) == "wrong"
    ]
    if not wrong:
        return "Every sound was heard as it was wanted, or near it."
    return f"Not as wanted: {', '.join(wrong)}."


def _short(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _legend(has_reference: bool) -> str:
    entries = [(_COLOURS[name], name) for name in _COLOURS]
    pieces = []
    for number, (colour, name) in enumerate(entries):
        at = _LEFT + 90 * number
        pieces.append(f'<rect x="{at}" y="36" width="12" height="12" fill="{colour}"/>')
        pieces.append(f'<text x="{at + 18}" y="47" font-size="13">{name}</text>')
    pieces.append(
        f'<text x="{WIDTH - _RIGHT}" y="47" font-size="13" text-anchor="end">below: what was heard '
        "instead</text>"
    )
    top = _PITCH_TOP - 8
    pieces.append(
        f'<text x="{_LEFT}" y="{top}" font-size="13">pitch in semitones'
        + (", dashed: the reference" if has_reference else "")
        + "</text>"
    )
    return "".join(pieces)


def _bands(drawing: Drawing, x: Place) -> list[str]:
    parts = []
    for sound, heard, right, span in zip(
        drawing.sounds, drawing.heard, drawing.right, drawing.spans, strict=True
    ):
        judged = verdict(right)
        left, width = x(span.start), max(1.0, x(span.end) - x(span.start))
        middle, colour = left + width / 2, _COLOURS[judged]
        parts.append(
            f'<rect x="{left:.1f}" y="{_WAVE_TOP}" width="{width:.1f}" height="{_WAVE_HEIGHT}" '
            f'fill="{colour}" fill-opacity="{0.10 if judged == "right" else 0.30}"/>'
        )
        parts.append(
            f'<text x="{middle:.1f}" y="{_SOUNDS_TOP + 18}" text-anchor="middle" '
            f'fill="{colour}">{escape(sound)}</text>'
        )
        if judged != "right" and heard != sound:
            parts.append(
                f'<text x="{middle:.1f}" y="{_SOUNDS_TOP + 37}" text-anchor="middle" '
                f'fill="{colour}" font-weight="600">{escape(heard or "–")}</text>'
            )
    return parts


def _wave(samples: Samples) -> str:
    columns = WIDTH - _LEFT - _RIGHT
    edges = np.linspace(0, len(samples), columns + 1).astype(int)
    middle, half = _WAVE_TOP + _WAVE_HEIGHT / 2, _WAVE_HEIGHT / 2 - 4
    peak = float(np.abs(samples).max(initial=0.0)) or 1.0
    strokes = []
    for column in range(columns):
        piece = samples[edges[column] : max(edges[column] + 1, edges[column + 1])]
        if not len(piece):
            continue
        low, high = float(piece.min()) / peak, float(piece.max()) / peak
        strokes.append(
            f"M{_LEFT + column} {middle - half * high:.1f}V{middle - half * low + 0.5:.1f}"
        )
    return f'<path d="{"".join(strokes)}" stroke="#444" stroke-width="1"/>'


def _pitch_panel(drawing: Drawing, x: Place) -> list[str]:
    middle = _PITCH_TOP + _PITCH_HEIGHT / 2
    parts = [
        f'<rect x="{_LEFT}" y="{_PITCH_TOP}" width="{WIDTH - _LEFT - _RIGHT}" '
        f'height="{_PITCH_HEIGHT}" fill="none" stroke="#999"/>',
        f'<path d="M{_LEFT} {middle}H{WIDTH - _RIGHT}" stroke="#ccc"/>',
    ]
    for level in (-6, 0, 6):
        at = middle - level / _SEMITONES * _PITCH_HEIGHT / 2
        parts.append(
            f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" font-size="12">{level:+d}'
            "</text>"
        )
    if drawing.reference is not None:
        parts.append(_line(drawing.reference, x, "#777", 'stroke-dasharray="5 4"'))
    parts.append(_line(drawing.pitch, x, _COLOURS["right"], ""))
    return parts


def _line(line: NDArray[np.float64], x: Place, colour: str, more: str) -> str:
    middle = _PITCH_TOP + _PITCH_HEIGHT / 2
    points, pen = [], "M"
    for index, value in enumerate(line):
        if np.isnan(value):
            pen = "M"
            continue
        bounded = min(_SEMITONES, max(-_SEMITONES, float(value)))
        y = middle - bounded / _SEMITONES * _PITCH_HEIGHT / 2
        points.append(f"{pen}{x(index * PITCH_STEP):.1f} {y:.1f}")
        pen = "L"
    return f'<path d="{"".join(points)}" fill="none" stroke="{colour}" stroke-width="2" {more}/>'


def _seconds_axis(seconds: float, x: Place) -> list[str]:
    step = next(step for step in (0.5, 1.0, 2.0, 5.0, 10.0) if seconds / step <= 16)
    return [
        f'<text x="{x(mark * step):.1f}" y="{HEIGHT - 14}" text-anchor="middle" '
        f'font-size="12">{mark * step:g} s</text>'
        for mark in range(int(seconds / step) + 1)
    ]
