"""Reading a recording: whatever its format, rate and channels, one channel at 16 kHz comes out.

What cannot be judged is refused with a :class:`Rejected`, whose words are for the person who will
tell the learner what to do; :mod:`.quality` has the grounds that need the sound itself.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

RATE = 16_000

# A sentence takes seconds. Longer recordings are for several exercises, or the microphone was left
# on; either way nobody would read one score for them.
LONGEST_SECONDS = 60.0

# Of a whole minute in stereo at 48 kHz and 24 bit; what is larger is no practice recording.
LARGEST_BYTES = 20 * 1024 * 1024

FORMATS = ("WAV", "FLAC", "OGG", "MP3")

Samples = NDArray[np.float32]


class Rejected(ValueError):
    """A recording that cannot be judged. ``code`` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Recording:
    """Sound as it is analysed: ``samples`` at :data:`RATE`, one channel, -1 to 1.

    ``source`` says how it came: format, rate in hertz, channels, seconds. ``flat`` is the share of
    its loud samples that lie at the very top (before any change of rate), ``sha256`` of the file.
    """

    samples: Samples
    source: dict[str, object]
    flat: float
    sha256: str

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / RATE


def read(content: bytes) -> Recording:
    """Decode a file. Raises :class:`Rejected` with ``unreadable``, ``empty`` or ``too_long``."""
    if len(content) > LARGEST_BYTES:
        raise Rejected(
            "too_long",
            f"The file is larger than {LARGEST_BYTES // 1024 // 1024} MB. Record one sentence and "
            "send it as it is.",
        )
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            form, rate, channels = file.format, file.samplerate, file.channels
            # One frame more than is accepted tells that there is more; the rest is never decoded.
            sound = file.read(int(LONGEST_SECONDS * rate) + 1, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        raise Rejected(
            "unreadable",
            f"The file cannot be opened as sound. Send it as {', '.join(FORMATS[:-1])} or "
            f"{FORMATS[-1]}, and see that the upload was complete.",
        ) from error
    if not len(sound) or not np.isfinite(sound).all():
        raise Rejected("empty", "The file holds no sound. Record again.")
    if len(sound) > LONGEST_SECONDS * rate:
        raise Rejected(
            "too_long",
            f"The recording is longer than {LONGEST_SECONDS:.0f} seconds. Record the sentence "
            "alone, and stop the recording after it.",
        )
    one = _one_channel(sound)
    samples = one if rate == RATE else soxr.resample(one, rate, RATE, quality="HQ")
    return Recording(
        samples=np.ascontiguousarray(samples, dtype=np.float32),
        source={
            "format": form,
            "rate": rate,
            "channels": channels,
            "seconds": round(len(sound) / rate, 3),
        },
        flat=_flat(one),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _one_channel(sound: NDArray[np.float32]) -> Samples:
    mean: Samples = sound.mean(axis=1)
    if sound.shape[1] == 1:
        return mean
    loudest: Samples = sound[:, int((sound**2).mean(axis=0).argmax())]
    # Channels that are each other's opposite (a cable with two poles swapped) cancel out.
    return mean if (mean**2).mean() > 0.1 * (loudest**2).mean() else loudest


def _flat(samples: Samples) -> float:
    """The share of loud samples that lie at the very top: 0.01 and more where it was cut off."""
    magnitude = np.abs(samples)
    peak = float(magnitude.max(initial=0.0))
    loud = magnitude > 0.25 * peak
    if peak <= 0.0 or not loud.any():
        return 0.0
    return float((magnitude[loud] > 0.985 * peak).mean())
