"""What is tried with recordings, to measure how well the workload speech judges them."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from ironbeat.workloads.speech import (
    alignment,
    analysis,
    models,
    praat,
    prosody,
    quality,
    recording,
    spelling,
)
from ironbeat.workloads.speech.analysis import Analysis, Exercise
from ironbeat.workloads.speech.recording import RATE, Samples

from . import degraded

WRONG_SENTENCES = 4


def encoded(samples: Any, rate: int = RATE, **how: Any) -> bytes:
    """Samples as a file; WAV with 16 bits unless told otherwise."""
    target = io.BytesIO()
    soundfile.write(target, samples, rate, **({"format": "WAV", "subtype": "PCM_16"} | how))
    return target.getvalue()


@lru_cache(maxsize=256)
def reference(text: str, language: str = "en") -> bytes:
    """A synthetic voice that says the text: a reference that is nobody's own recording."""
    return encoded(praat.speak(text, language))


def judged(content: bytes, text: str, sounds: Sequence[str] = ()) -> Analysis:
    """A recording of an English sentence against its text and a synthetic reference."""
    return analysis.analyse(content, Exercise(text, "en", reference(text), tuple(sounds)))


def score(content: bytes, text: str, sounds: Sequence[str] = ()) -> float:
    """Its overall score; 0 for what is refused."""
    try:
        return judged(content, text, sounds).overall_score
    except recording.Rejected:
        return 0.0


@dataclass(frozen=True)
class Trial:
    """The scores of one sentence: said rightly, mispronounced in each way, and not said at all."""

    text: str
    right: float
    mispronounced: dict[str, float] = field(default_factory=dict)
    wrong: list[float] = field(default_factory=list)

    def pairs(self) -> Iterator[tuple[str, bool]]:
        """Each pair of which one should be the better, and whether it is."""
        for kind, value in self.mispronounced.items():
            yield f"right > {kind}", self.right > value
        for kind, value in self.mispronounced.items():
            for other in self.wrong:
                yield f"{kind} > wrong", value > other


def english(content: bytes, text: str, others: Sequence[bytes], seed: int) -> Trial:
    """Try one recording; ``others`` are recordings of other sentences."""
    rng = random.Random(seed)
    samples = recording.read(content).samples
    said = alignment.decode(models.evidence(quality.levelled(samples)))
    wanted = spelling.chosen(spelling.words(text, "en"), said)
    spans = degraded.aligned(samples, wanted)
    mispronounced = {
        kind: score(encoded(degraded.changed(samples, wanted, spans, kind, rng)), text)
        for kind in degraded.KINDS
        if kind != "respelled" and not (kind == "words omitted" and wanted[-1].word == 0)
    }
    other_sounds = degraded.respelled([each.sound for each in wanted], rng)
    mispronounced["respelled"] = score(content, text, other_sounds)
    wrong = [score(other, text) for other in others]
    wrong.append(score(encoded(samples[::-1]), text))
    return Trial(text, score(content, text), mispronounced, wrong)


def encodings(content: bytes) -> dict[str, bytes]:
    """The same clip at other rates, levels and in other formats."""
    samples = recording.read(content).samples
    peak = float(np.abs(samples).max())

    def at(rate: int) -> Samples:
        return soxr.resample(samples, RATE, rate).astype(np.float32)

    return {
        "48 kHz": encoded(at(48_000), 48_000),
        "44.1 kHz stereo": encoded(np.stack([at(44_100)] * 2, axis=1), 44_100),
        "22.05 kHz": encoded(at(22_050), 22_050),
        "gain -20 dB": encoded(samples * 0.1),
        "gain to full": encoded(samples * (0.99 / peak)),
        "MP3": encoded(at(44_100), 44_100, format="MP3", subtype="MPEG_LAYER_III"),
        "OGG": encoded(samples, RATE, format="OGG", subtype="VORBIS"),
        "FLAC": encoded(samples, RATE, format="FLAC"),
    }


def moves(content: bytes, text: str) -> dict[str, float]:
    """How far the overall score moves with each encoding, in points."""
    plain = score(content, text)
    return {name: abs(score(again, text) - plain) for name, again in encodings(content).items()}


@dataclass(frozen=True)
class Syllable:
    """One Mandarin syllable by one speaker: how near it is to each of several syllables.

    ``sounds``: the likeness to itself first, then to others; ``tone`` wanted, and heard.
    """

    sounds: tuple[float, ...]
    tone: int
    heard_tone: int | None


def mandarin(zhuyin: str, others: Sequence[str], path: Path) -> Syllable:
    """Try one syllable; the others are those that it is not."""
    samples = quality.levelled(recording.read(path.read_bytes()).samples)
    evidence = models.evidence(samples)
    said = alignment.decode(evidence)
    values = []
    for each in (zhuyin, *others):
        sounds = list(spelling.words(each, "zh")[0].variants[0])
        heard = alignment.heard_as(evidence, sounds)
        cost, _ = alignment.beside(sounds, said)
        whole = max(0.0, 1.0 - cost / max(len(sounds), len(said), 1))
        values.append(sum(one.right for one in heard) / len(heard) + whole)
    tones = prosody.tone_likeness(prosody.semitones(praat.pitch_track(samples)))
    heard_tone = max(tones, key=tones.__getitem__) if tones else None
    return Syllable(tuple(values), int(zhuyin[-1]), heard_tone)
