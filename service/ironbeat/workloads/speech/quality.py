"""Whether a recording can be judged at all: heard well enough, long enough, by a voice.

Pure: it takes samples and where a voice was found, and raises :class:`Rejected` with words for the
clinician, or returns what it measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ironbeat.workloads.speech.recording import RATE, Recording, Rejected, Samples

# Loud samples at the very top: of clean speech under 0.5 %, of speech cut off at half its height
# several times more.
FLAT_AT_MOST = 0.03

# The quietest that still counts as sound: -54 dB below the loudest a file can hold.
QUIETEST_PEAK = 0.002

SHORTEST_SPEECH_SECONDS = 0.25

# A chunk holds a voice from this probability on.
VOICE_FROM = 0.5

# Loud against quiet moments, in decibels: below this the recogniser mishears every third sound.
LEAST_RANGE_DB = 10.0

# A stretch of sound is called loud or quiet by frames of this length.
FRAME = 400

# To what the loud moments are brought before anything is measured, and the floor, 60 dB below.
_LOUD = 0.12
_FLOOR = _LOUD / 1000


@dataclass(frozen=True, slots=True)
class Quality:
    """``range_db``: loud against quiet moments. ``speech_seconds``: with a voice in them."""

    range_db: float
    speech_seconds: float
    flat: float
    peak: float


def levelled(samples: Samples) -> Samples:
    """The samples at one level and on one floor of noise, so that neither gain nor codec matters.

    The recogniser is sensitive to what lies far below the voice: to silence that is exactly zero,
    to the steps of a quiet 16-bit recording, to what a codec leaves out. A little noise, always the
    same, hides the difference and nothing else.
    """
    loud = float(np.percentile(_levels(samples), 95))
    if loud <= 0.0:
        return samples
    floor = np.random.default_rng(0).standard_normal(len(samples)) * _FLOOR
    levelled: Samples = np.clip(samples * (_LOUD / loud) + floor, -1.0, 1.0).astype(np.float32)
    return levelled


def require_sound(recording: Recording) -> None:
    """Refuse what has no sound in it, or was cut off at the top, before any model looks at it."""
    peak = float(np.abs(recording.samples).max(initial=0.0))
    if peak < QUIETEST_PEAK:
        raise Rejected(
            "silence",
            "Nothing can be heard. Check that the right microphone is chosen and not muted, and "
            "record again.",
        )
    if recording.flat > FLAT_AT_MOST:
        raise Rejected(
            "clipping",
            "The recording is too loud and distorted (the sound is cut off at the top). Turn the "
            "microphone down or move away from it, and record again.",
        )


def require_speech(recording: Recording, voiced: NDArray[np.float64], chunk: int) -> Quality:
    """Refuse what has no voice, too little of it, or too much else. ``voiced`` by chunk."""
    speech = float((voiced >= VOICE_FROM).sum()) * chunk / RATE
    range_db = _range(recording.samples)
    if speech <= 0.0 or voiced.max(initial=0.0) < VOICE_FROM:
        raise Rejected(
            "noise" if range_db < LEAST_RANGE_DB or recording.seconds > 1.0 else "too_short",
            "No voice can be heard, only other sounds. Record in a quiet room, close to the "
            "microphone.",
        )
    if speech < SHORTEST_SPEECH_SECONDS:
        raise Rejected(
            "too_short",
            f"There are only {speech:.1f} seconds of speech. Start the recording before the first "
            "word and stop it after the last.",
        )
    if range_db < LEAST_RANGE_DB:
        raise Rejected(
            "noise",
            "There is too much noise around the voice to judge single sounds. Record in a quiet "
            "room, close to the microphone.",
        )
    peak = float(np.abs(recording.samples).max(initial=0.0))
    return Quality(round(range_db, 1), round(speech, 2), round(recording.flat, 4), round(peak, 4))


def _levels(samples: Samples) -> NDArray[np.float64]:
    """The level of each frame (root of the mean square)."""
    frames = len(samples) // FRAME
    if not frames:
        return np.array([float(np.sqrt((samples.astype(np.float64) ** 2).mean()))])
    square = samples[: frames * FRAME].astype(np.float64).reshape(frames, FRAME) ** 2
    levels: NDArray[np.float64] = np.sqrt(square.mean(axis=1))
    return levels


def _range(samples: Samples) -> float:
    levels = np.maximum(_levels(samples), 1e-6)
    loud, quiet = np.percentile(levels, 95), np.percentile(levels, 5)
    return float(20.0 * np.log10(loud / quiet))
