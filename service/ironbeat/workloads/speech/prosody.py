"""Fluency and pitch: pace, pauses, and the line that the voice draws.

Pure functions on measured tracks; :mod:`.praat` measures them. Pitch is in semitones from the
speaker's own median, so that a child and a man are compared by what they do and not by how high
they speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ironbeat.workloads.speech.alignment import Evidence, Span

Floats = NDArray[np.float64]

PITCH_STEP = 0.01

# A silence within the utterance counts as a pause from this length on (Goldman-Eisler, 1968).
PAUSE_SECONDS = 0.25

# Syllables a second while speaking, pauses left out: what adults do when they read aloud is 3 to
# 6; a therapist's model sentence is slower.
COMFORTABLE_RATE = (2.3, 6.0)
IMPOSSIBLE_RATE = (0.6, 10.0)

# The standard deviation of the pitch in semitones: below the first the voice is flat.
LIVELY_FROM = 1.8
FLAT_AT = 0.3


@dataclass(frozen=True, slots=True)
class Timing:
    """When there was speech: ``seconds`` from the first to the last of it, and the pauses in it."""

    start: float
    end: float
    pauses: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        """From the first voice to the last."""
        return self.end - self.start

    @property
    def paused(self) -> float:
        """How much of it was pauses."""
        return sum(pause.end - pause.start for pause in self.pauses)


def timing(voiced: Floats, chunk_seconds: float, threshold: float = 0.5) -> Timing:
    """Speech and pauses, by the probability of a voice in each chunk."""
    speaking = np.flatnonzero(voiced >= threshold)
    if not len(speaking):
        return Timing(0.0, 0.0, ())
    gaps = np.flatnonzero(np.diff(speaking) > 1)
    pauses = tuple(
        Span(float(speaking[gap] + 1) * chunk_seconds, float(speaking[gap + 1]) * chunk_seconds)
        for gap in gaps
        if (speaking[gap + 1] - speaking[gap] - 1) * chunk_seconds >= PAUSE_SECONDS
    )
    return Timing(
        float(speaking[0]) * chunk_seconds, float(speaking[-1] + 1) * chunk_seconds, pauses
    )


@dataclass(frozen=True, slots=True)
class Fluency:
    """``rate``: syllables a second of speaking. ``pause_share``: of the whole, 0 to 1."""

    score: float
    rate: float
    pause_share: float
    pauses: int
    longer_than_reference: float | None


def fluency(found: Timing, syllables: int, reference: Timing | None = None) -> Fluency:
    """Pace and pauses; against a reference, also how much longer or shorter it took."""
    speaking = max(0.05, found.seconds - found.paused)
    rate = syllables / speaking
    share = found.paused / found.seconds if found.seconds else 0.0
    score = 100.0 * _inside(rate, COMFORTABLE_RATE, IMPOSSIBLE_RATE) * ramp(share, 0.7, 0.12)
    ratio = None
    if reference is not None and reference.seconds > 0:
        ratio = found.seconds / reference.seconds
        # Half as long again, or two thirds as long, is a matter of style.
        score *= ramp(abs(float(np.log(max(ratio, 1e-3)))), 2.0, 0.4)
    return Fluency(score, rate, share, len(found.pauses), ratio)


@dataclass(frozen=True, slots=True)
class Pitch:
    """``likeness``: of the line to the one it was compared with, -1 to 1; ``spread``: semitones."""

    score: float
    likeness: float | None
    spread: float
    median_hz: float | None


def semitones(track: Floats) -> Floats:
    """A pitch track in hertz (0: no voice) as semitones from its own median; NaN without voice."""
    voiced = track > 0
    if not voiced.any():
        return np.full(len(track), np.nan)
    with np.errstate(divide="ignore"):
        line = 12.0 * np.log2(track / np.median(track[voiced]))
    line[~voiced] = np.nan
    return line


def spread(line: Floats) -> float:
    """How much a line moves, as a standard deviation that outliers (octave errors) do not drive."""
    voiced = line[~np.isnan(line)]
    if len(voiced) < 5:
        return 0.0
    low, high = np.percentile(voiced, [10, 90])
    # Of a normal distribution the two lie 2.563 standard deviations apart.
    return float(high - low) / 2.563


def pitch(track: Floats, reference: Floats | None = None) -> Pitch:
    """The line of the voice: lively or flat; against a reference on the same time axis, how alike.

    ``reference`` is another pitch track in hertz that was brought onto this one's time
    (:func:`onto`).
    """
    line = semitones(track)
    wide = spread(line)
    median = float(np.median(track[track > 0])) if (track > 0).any() else None
    lively = ramp(wide, FLAT_AT, LIVELY_FROM)
    if reference is None:
        return Pitch(100.0 * lively, None, wide, median)
    model = semitones(reference)
    both = ~np.isnan(line) & ~np.isnan(model)
    if both.sum() < 10:
        return Pitch(100.0 * lively, None, wide, median)
    ours, theirs = _smoothed(line)[both], _smoothed(model)[both]
    ours, theirs = np.clip(ours, -8, 8), np.clip(theirs, -8, 8)
    likeness = _correlation(ours, theirs)
    ratio = abs(float(np.log((wide + 0.3) / (spread(model) + 0.3))))
    score = 100.0 * (0.7 * ramp(likeness, -0.4, 0.6) + 0.3 * ramp(ratio, 2.0, 0.5))
    return Pitch(score, likeness, wide, median)


def onto(
    track: Floats, path: Sequence[tuple[int, int]], ours: Evidence, theirs: Evidence, length: int
) -> Floats:
    """A reference's pitch track on our time axis, ``length`` steps of :data:`PITCH_STEP` long.

    ``path`` pairs our frames with the reference's (:func:`warp`).
    """
    pairs = np.array(path, dtype=float)
    # The middle of each frame, in seconds.
    here = (pairs[:, 0] + 0.5) * ours.frame_seconds + ours.start
    there = (pairs[:, 1] + 0.5) * theirs.frame_seconds + theirs.start
    times, first = np.unique(here, return_index=True)
    counts = np.diff(np.append(first, len(here)))
    middle = np.add.reduceat(there, first) / counts
    wanted = np.arange(length) * PITCH_STEP
    places = np.interp(wanted, times, middle) / PITCH_STEP
    index = np.clip(np.rint(places).astype(int), 0, max(0, len(track) - 1))
    return track[index] if len(track) else np.zeros(length)


def warp(ours: Evidence, theirs: Evidence) -> list[tuple[int, int]]:
    """Dynamic time warping: which frame of ours says what which frame of theirs says.

    Frames are compared by the sounds they hold (Hellinger distance), which do not depend on whose
    voice it is as spectra do. At most three frames of one fall on one of the other in a row
    without a cost.
    """
    a, b = np.exp(ours.log_probs / 2), np.exp(theirs.log_probs / 2)
    distance = np.sqrt(np.maximum(0.0, 1.0 - a @ b.T))
    rows, columns = distance.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    # Along the anti-diagonals, whose cells depend on the two before only.
    slack = 0.05
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        best = np.minimum(total[i - 1, j - 1], np.minimum(total[i - 1, j], total[i, j - 1]) + slack)
        total[i, j] = distance[i - 1, j - 1] + best
    path: list[tuple[int, int]] = []
    i, j = rows, columns
    while i > 0 and j > 0:
        path.append((i - 1, j - 1))
        ways = (total[i - 1, j - 1], total[i - 1, j] + slack, total[i, j - 1] + slack)
        step = int(np.argmin(ways))
        i -= step != 2
        j -= step != 1
    return path[::-1]


# -- tones

# The four tones of Mandarin as the height of the voice at five moments (Chao, 1930), 1 to 5.
TONE_SHAPES: dict[int, tuple[float, ...]] = {
    1: (5.0, 5.0, 5.0, 5.0, 5.0),
    2: (3.0, 3.0, 3.5, 4.2, 5.0),
    3: (2.2, 1.5, 1.0, 1.3, 2.6),
    4: (5.0, 4.6, 3.7, 2.4, 1.0),
}
# One step of Chao's five in semitones: a speaker's five steps span about an octave.
_CHAO_STEP = 2.4


def tone_likeness(line: Floats, level: float = 0.0) -> dict[int, float]:
    """How probable each tone is for the pitch of one syllable, in semitones (NaN: no voice).

    ``level`` is the middle of the speaker's voice on the same scale. Empty where too little of the
    syllable is voiced.
    """
    voiced = np.flatnonzero(~np.isnan(line))
    if len(voiced) < 6:
        return {}
    inner = line[voiced[0] : voiced[-1] + 1]
    known = np.flatnonzero(~np.isnan(inner))
    inner = np.interp(np.arange(len(inner)), known, inner[known])
    # The edges belong to the consonants.
    edge = len(inner) // 10
    inner = inner[edge : len(inner) - edge]
    shape = np.interp(np.linspace(0, len(inner) - 1, 5), np.arange(len(inner)), inner) - level
    scores = {}
    for tone, chao in TONE_SHAPES.items():
        model = (np.array(chao) - 3.0) * _CHAO_STEP
        form = float((((shape - shape.mean()) - (model - model.mean())) ** 2).mean())
        height = float((shape.mean() - model.mean()) ** 2)
        scores[tone] = -(form + 0.25 * height) / (2 * 2.0**2)
    most = max(scores.values())
    weights = {tone: float(np.exp(score - most)) for tone, score in scores.items()}
    whole = sum(weights.values())
    return {tone: weight / whole for tone, weight in weights.items()}


# -- small pieces


def _smoothed(line: Floats, half: int = 3) -> Floats:
    """The running mean over what is voiced nearby."""
    voiced = ~np.isnan(line)
    kernel = np.ones(2 * half + 1)
    total = np.convolve(np.where(voiced, line, 0.0), kernel, "same")
    count = np.convolve(voiced.astype(float), kernel, "same")
    return np.where(voiced, total / np.maximum(count, 1.0), np.nan)


def _correlation(one: Floats, other: Floats) -> float:
    a, b = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    # A flat line has no shape to compare: neither alike nor unlike.
    return float((a * b).sum()) / scale if scale > 1e-9 else 0.0


def ramp(value: float, zero: float, one: float) -> float:
    """0 at ``zero`` and beyond, 1 at ``one`` and beyond, smooth between.

    It falls where ``zero`` is the larger.
    """
    x = min(1.0, max(0.0, (value - zero) / (one - zero)))
    return x * x * (3.0 - 2.0 * x)


def _inside(value: float, good: tuple[float, float], bad: tuple[float, float]) -> float:
    return ramp(value, bad[0], good[0]) * ramp(value, bad[1], good[1])
