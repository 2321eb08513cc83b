"""Reading files of every kind, and refusing what cannot be judged with a reason."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from tests.speech import file, noise, spoken

from ironbeat.workloads.speech import models, quality, recording
from ironbeat.workloads.speech.recording import RATE, Rejected

TEXT = "thank you for the cake"


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"subtype": "FLOAT"},
        {"subtype": "PCM_U8"},
        {"format": "FLAC"},
        {"format": "OGG", "subtype": "VORBIS"},
        {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    ],
    ids=lambda how: "-".join(how.values()) or "WAV",
)
def test_every_format_and_rate_becomes_the_same_sound(rate: int, how: dict[str, str]) -> None:
    samples = spoken(TEXT)
    at_rate = soxr.resample(samples, RATE, rate)
    found = recording.read(file(np.stack([at_rate, at_rate], axis=1), rate, **how))
    assert found.seconds == pytest.approx(len(samples) / RATE, abs=0.15)
    assert found.samples.dtype == np.float32 and found.samples.ndim == 1
    # As loud as it was, less what the lower rates and the codecs leave out.
    assert np.sqrt((found.samples**2).mean()) == pytest.approx(
        np.sqrt((samples**2).mean()), rel=0.2
    )


def test_channels_that_are_each_others_opposite_do_not_cancel_out() -> None:
    samples = spoken(TEXT)
    found = recording.read(file(np.stack([samples, -samples], axis=1)))
    assert np.abs(found.samples).max() == pytest.approx(np.abs(samples).max(), rel=0.01)


def judged(content: bytes) -> quality.Quality:
    found = recording.read(content)
    quality.require_sound(found)
    voiced = models.voice(quality.levelled(found.samples))
    return quality.require_speech(found, voiced, models.VOICE_CHUNK)


def test_a_clear_recording_is_accepted_at_any_level() -> None:
    samples = spoken(TEXT)
    for gain in (1.0, 0.1, 0.02):
        assert judged(file(samples * gain)).speech_seconds > 0.8


def clipped() -> bytes:
    samples = spoken(TEXT)
    most = 0.25 * np.abs(samples).max()
    return file(np.clip(samples, -most, most) * 2)


@pytest.mark.parametrize(
    ("code", "content", "told"),
    [
        ("unreadable", lambda: b"this is no sound", "WAV, FLAC, OGG or MP3"),
        ("unreadable", lambda: file(spoken(TEXT))[:30], "upload was complete"),
        ("empty", lambda: file(np.zeros(0, np.float32)), "no sound"),
        ("silence", lambda: file(np.zeros(32_000, np.float32)), "microphone"),
        ("silence", lambda: file(noise(2, 0.0003)), "muted"),
        ("noise", lambda: file(noise(3, 0.1)), "quiet room"),
        # The synthetic voice is never quite the same twice: well within what is noise each time.
        ("noise", lambda: file(spoken(TEXT) * 0.3 + noise(9, 0.03)[: len(spoken(TEXT))]), "noise"),
        ("clipping", clipped, "too loud"),
        ("too_short", lambda: file(spoken("ta")[:1600]), "too_short"),
        ("too_long", lambda: file(np.tile(spoken(TEXT), 60)), "60 seconds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_judged_is_refused_with_its_reason(code, content, told) -> None:
    with pytest.raises(Rejected) as refused:
        judged(content())
    assert refused.value.code == code
    if told != code:
        assert told in refused.value.message


def test_a_huge_file_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(Rejected, match="20 MB"):
        recording.read(bytes(recording.LARGEST_BYTES + 1))
