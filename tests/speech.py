"""Speech for tests: synthetic voices, and files made of them."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
import soundfile

from ironbeat.workloads.speech import praat
from ironbeat.workloads.speech.recording import RATE, Samples


@cache
def spoken(text: str, language: str = "en", voice: str = "Male1") -> Samples:
    """A synthetic voice that says a text, at 16 kHz."""
    return praat.speak(text, language, words_a_minute=130, voice=voice)


def file(samples: Any, rate: int = RATE, **how: Any) -> bytes:
    """Samples as a sound file: WAV with 16 bits unless told otherwise."""
    target = io.BytesIO()
    soundfile.write(target, samples, rate, **({"format": "WAV", "subtype": "PCM_16"} | how))
    return target.getvalue()


def noise(seconds: float, level: float, seed: int = 1) -> Samples:
    """White noise, the same for the same seed."""
    drawn = np.random.default_rng(seed).standard_normal(int(seconds * RATE)) * level
    return drawn.astype(np.float32)
