"""From measurements to scores between 0 and 100, and how far they can be relied on.

Pure. Every map is smooth, so that a measurement that moves a little (another codec, another
microphone) moves its score a little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ironbeat.workloads.speech.alignment import Heard
from ironbeat.workloads.speech.praat import Voice
from ironbeat.workloads.speech.prosody import ramp

# What an overall score is made of. Pronunciation is what an exercise asks for.
WEIGHTS: Mapping[str, float] = {
    "pronunciation": 0.6,
    "fluency": 0.2,
    "pitch": 0.1,
    "voice_quality": 0.1,
}

# How alike the sounds of two unrelated sentences are, and those of native speakers who read the
# right one: measured on the recordings of docs/speech.md.
UNRELATED, NATIVE = 0.2, 0.96

# How much the first of the two looks at a pronunciation counts: it moves less from one recording of
# the same speech to another.
PLACES = 0.75

# A sound is called right, or near, from these likenesses on.
RIGHT_FROM, NEAR_FROM = 0.7, 0.4


def pronunciation(heard: Sequence[Heard], cost: float, longest: int) -> float:
    """How near what was said is to what was wanted.

    ``heard``: what stands in the place of each wanted sound, given its neighbours (it tells small
    mistakes well). ``cost``: of laying all that was said beside all that was wanted, the longer
    of the two having ``longest`` sounds (it tells another sentence well).
    """
    if not heard or not longest:
        return 0.0
    places = sum(each.right for each in heard) / len(heard)
    whole = max(0.0, 1.0 - cost / longest)
    near = (PLACES * places + (1.0 - PLACES) * whole - UNRELATED) / (NATIVE - UNRELATED)
    return 100.0 * min(1.0, max(0.0, near))


def voice_quality(found: Voice) -> float | None:
    """How steady and clear the voice is; ``None`` where too little of it could be measured.

    The limits are for running speech, which is less steady than a held vowel (for which jitter of
    1.04 % and shimmer of 3.81 % are Praat's usual ones).
    """
    measured = [
        (weight, score)
        for weight, score in (
            (0.5, None if found.hnr is None else ramp(found.hnr, 3.0, 13.0)),
            (0.25, None if found.jitter is None else ramp(found.jitter, 0.07, 0.02)),
            (0.25, None if found.shimmer is None else ramp(found.shimmer, 0.35, 0.12)),
        )
        if score is not None
    ]
    if not measured:
        return None
    return 100.0 * sum(w * score for w, score in measured) / sum(w for w, _ in measured)


def overall(parts: Mapping[str, float | None]) -> float:
    """The parts that were measured, as a weighted geometric mean.

    Not a sum: a pleasant voice does not make up for a sentence that was not said.
    """
    present = [(WEIGHTS[name], value) for name, value in parts.items() if value is not None]
    if not present:
        return 0.0
    total = sum(weight * math.log(max(value, 1.0)) for weight, value in present)
    mean = math.exp(total / sum(weight for weight, _ in present))
    # A logarithm knows no zero; what lies below 1 is 0.
    return 0.0 if mean <= 1.0 else min(100.0, mean)


@dataclass(frozen=True, slots=True)
class Confidence:
    """How far a score can be relied on, 0 to 1, and why not further, in words."""

    value: float
    reasons: tuple[str, ...]


# Mandarin's sounds are heard through a recogniser of English and Korean: docs/speech.md tells how
# often it is right. It is never reported as certain.
MANDARIN_AT_MOST = 0.5


def confidence(
    *, language: str, sounds: int, range_db: float, sureness: float, has_reference: bool
) -> Confidence:
    """``sounds``: how many were wanted; ``range_db``: loud against quiet moments; ``sureness``: the
    mean probability of what the recogniser took each sound for.
    """
    reasons: list[str] = []
    value = 0.5 + 0.5 * sureness
    if sureness < 0.75:
        reasons.append("the sounds are indistinct")
    noise = 0.5 + 0.5 * ramp(range_db, 10.0, 25.0)
    if noise < 0.9:
        reasons.append("there is noise in the recording")
    length = 0.4 + 0.6 * ramp(float(sounds), 0.0, 12.0)
    if length < 0.9:
        reasons.append(f"only {sounds} sound{'s' if sounds != 1 else ''} to judge by")
    value *= noise * length
    if not has_reference:
        value *= 0.95
        reasons.append("there is no reference recording for the pitch")
    if language == "zh":
        value = min(value, 1.0) * MANDARIN_AT_MOST
        reasons.append("Mandarin's sounds are recognised less reliably than English ones")
    return Confidence(round(value, 2), tuple(reasons))


def verdict(right: float) -> str:
    """``right``, ``near`` or ``wrong``."""
    return "right" if right >= RIGHT_FROM else "near" if right >= NEAR_FROM else "wrong"
