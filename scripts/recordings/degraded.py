"""Mispronunciations made from real recordings, each the same for the same seed.

The sound is changed, not the text: parts of the recording are exchanged or cut out at the borders
of its sounds; ``respelled`` alone keeps the sound and asks for a neighbouring one instead, as if
the speaker had fronted, stopped or devoiced it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from ironbeat.workloads.speech import alignment, phones
from ironbeat.workloads.speech.alignment import Span
from ironbeat.workloads.speech.recording import RATE, Samples
from ironbeat.workloads.speech.spelling import Wanted

KINDS = ("substituted", "omitted", "words omitted", "slurred", "respelled")

# Of the sounds, as many are changed.
SHARE = 0.25
_FADE = 80


def changed(
    samples: Samples,
    wanted: Sequence[Wanted],
    spans: Sequence[Span],
    kind: str,
    rng: random.Random,
) -> Samples:
    """The recording with a quarter of its sounds (or a third of its words) mispronounced."""
    borders = [(int(span.start * RATE), int(span.end * RATE)) for span in spans]
    parts = [samples[start:end] for start, end in borders]
    head, tail = samples[: borders[0][0]], samples[borders[-1][1] :]
    picked = set(rng.sample(range(len(parts)), _some(len(parts), SHARE)))
    if kind == "substituted":
        for place in picked:
            unlike = [
                other
                for other, each in enumerate(wanted)
                if phones.likeness(wanted[place].sound, each.sound) < 0.4
                and len(parts[other]) > 2 * _FADE
            ]
            if unlike:
                start, end = borders[rng.choice(unlike)]
                parts[place] = samples[start:end]
    elif kind == "omitted":
        parts = [part for place, part in enumerate(parts) if place not in picked]
    elif kind == "words omitted":
        count = wanted[-1].word + 1
        gone = set(rng.sample(range(count), max(1, round(count / 3))))
        parts = [part for part, each in zip(parts, wanted, strict=True) if each.word not in gone]
    elif kind == "slurred":
        for place in picked:
            parts[place] = _muffled(parts[place])
    else:
        raise ValueError(f"{kind!r} changes no sound")
    return _joined([head, *parts, tail])


def respelled(sounds: Sequence[str], rng: random.Random) -> list[str]:
    """The wanted sounds with a quarter of them exchanged for neighbouring ones."""
    found = list(sounds)
    for place in rng.sample(range(len(found)), _some(len(found), SHARE)):
        near = [name for name in phones.NAMES if 0.2 < phones.likeness(found[place], name) < 0.6]
        if near:
            found[place] = rng.choice(near)
    return found


def _some(count: int, share: float) -> int:
    return max(1, round(count * share))


def _muffled(part: Samples) -> Samples:
    """What is left of a sound that is mumbled: nothing above about 700 Hz, and softer."""
    if not len(part):
        return part
    width = RATE // 1400
    kernel = np.ones(width, np.float32) / width
    once = np.convolve(part, kernel, "same")
    return (0.5 * np.convolve(once, kernel, "same")[: len(part)]).astype(np.float32)


def _joined(parts: Sequence[Samples]) -> Samples:
    """The parts one after another, faded into each other so that no click is heard."""
    whole = np.zeros(0, np.float32)
    ramp = np.linspace(0.0, 1.0, _FADE, dtype=np.float32)
    for part in parts:
        if len(part) < 2 * _FADE or len(whole) < _FADE:
            whole = np.concatenate([whole, part.astype(np.float32)])
            continue
        next_part = part.astype(np.float32).copy()
        next_part[:_FADE] *= ramp
        next_part[:_FADE] += whole[-_FADE:] * ramp[::-1]
        whole = np.concatenate([whole[:-_FADE], next_part])
    return whole


def aligned(samples: Samples, wanted: Sequence[Wanted]) -> list[Span]:
    """Where the wanted sounds of a recording are."""
    from ironbeat.workloads.speech import models, quality

    evidence = models.evidence(quality.levelled(samples))
    return alignment.spans(evidence, [each.sound for each in wanted])
