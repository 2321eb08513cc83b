"""What Praat measures in a recording: pitch, steadiness of the voice, formants.

Praat (Boersma and Weenink) is what speech therapists measure with; it comes as the package
``praat-parselmouth``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ironbeat.workloads.speech.alignment import Span
from ironbeat.workloads.speech.prosody import PITCH_STEP
from ironbeat.workloads.speech.recording import RATE, Samples

Floats = NDArray[np.float64]

# From a man's lowest to a child's highest; a second look narrows it to the speaker's own.
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 600.0

# Shorter than this no pitch can be measured.
_SHORTEST_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Voice:
    """``jitter`` and ``shimmer`` (local) as shares, ``hnr`` (harmonics to noise) in decibels;
    ``None`` where too little of the recording is voiced.
    """

    jitter: float | None
    shimmer: float | None
    hnr: float | None


def _sound(samples: Samples) -> Any:
    import parselmouth

    return parselmouth.Sound(samples.astype(np.float64), RATE)


def pitch_track(samples: Samples) -> Floats:
    """The pitch in hertz, one value each :data:`PITCH_STEP`; 0 where there is no voice."""
    length = int(len(samples) / RATE / PITCH_STEP) + 1
    track = np.zeros(length)
    if len(samples) < _SHORTEST_SECONDS * RATE:
        return track
    sound = _sound(samples)
    low, high = _range(sound)
    found = sound.to_pitch_ac(time_step=PITCH_STEP, pitch_floor=low, pitch_ceiling=high)
    values = found.selected_array["frequency"]
    places = np.rint(np.asarray(found.xs()) / PITCH_STEP).astype(int)
    inside = places < length
    track[places[inside]] = values[inside]
    return track


def _range(sound: Any) -> tuple[float, float]:
    """The speaker's own range: from the quartiles of a first look (Hirst, 2011)."""
    found = sound.to_pitch_ac(
        time_step=PITCH_STEP, pitch_floor=_LOWEST_HZ, pitch_ceiling=_HIGHEST_HZ
    ).selected_array["frequency"]
    voiced = found[found > 0]
    if len(voiced) < 5:
        return _LOWEST_HZ, _HIGHEST_HZ
    quarter, three = np.percentile(voiced, [25, 75])
    return max(_LOWEST_HZ, 0.7 * float(quarter)), min(_HIGHEST_HZ, 2.0 * float(three))


def voice(samples: Samples) -> Voice:
    """How steady and clear the voice is."""
    from parselmouth.praat import call

    if len(samples) < _SHORTEST_SECONDS * RATE:
        return Voice(None, None, None)
    sound = _sound(samples)
    low, high = _range(sound)
    pulses = call(sound, "To PointProcess (periodic, cc)", low, high)
    jitter = call(pulses, "Get jitter (local)", 0, 0, 0.0001, 0.02, 1.3)
    shimmer = call([sound, pulses], "Get shimmer (local)", 0, 0, 0.0001, 0.02, 1.3, 1.6)
    harmonicity = sound.to_harmonicity_cc(time_step=PITCH_STEP, minimum_pitch=low).values[0]
    # Praat writes -200 where there is no voice.
    voiced = harmonicity[harmonicity > -100]
    hnr = float(np.mean(voiced)) if len(voiced) >= 5 else None
    return Voice(_known(jitter), _known(shimmer), hnr)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def formants(samples: Samples, spans: Sequence[Span]) -> list[tuple[float, float] | None]:
    """The first two formants in hertz in the middle of each span; ``None`` where there are none."""
    if len(samples) < _SHORTEST_SECONDS * RATE:
        return [None for _ in spans]
    found = _sound(samples).to_formant_burg(time_step=PITCH_STEP, maximum_formant=5500.0)
    result: list[tuple[float, float] | None] = []
    for span in spans:
        middle = (span.start + span.end) / 2
        first, second = (found.get_value_at_time(number, middle) for number in (1, 2))
        known = np.isfinite(first) and np.isfinite(second)
        result.append((round(float(first)), round(float(second))) if known else None)
    return result


def speak(
    text: str, language: str, *, words_a_minute: int = 150, voice: str = "Female1"
) -> Samples:
    """A synthetic voice that says a text: what sample exercises and tests are made of.

    Praat brings eSpeak for it. ``language``: ``en`` or ``zh``.
    """
    import parselmouth
    import soxr
    from parselmouth.praat import call

    name = {"en": "English (America)", "zh": "Chinese (Mandarin)"}[language]
    synthesizer = call("Create SpeechSynthesizer", name, voice)
    call(
        synthesizer, "Speech output settings", 44100.0, 0.01, 1.0, 1.0, words_a_minute,
        "IPA",
    )  # fmt: skip
    made = call(synthesizer, "To Sound", text, "no")
    made = made if isinstance(made, list) else [made]
    [sound] = [each for each in made if isinstance(each, parselmouth.Sound)]
    return soxr.resample(sound.values[0], sound.sampling_frequency, RATE).astype(np.float32)
