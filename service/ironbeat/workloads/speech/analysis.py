"""One recording against its exercise, from the file to scores, feedback and a picture.

Deterministic: the same file, exercise and version give the same result, to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from ironbeat.workloads.speech import (
    alignment,
    models,
    phones,
    praat,
    prosody,
    quality,
    recording,
    scoring,
    spelling,
)
from ironbeat.workloads.speech.alignment import Evidence, Heard, Span
from ironbeat.workloads.speech.picture import Drawing, draw
from ironbeat.workloads.speech.prosody import Floats
from ironbeat.workloads.speech.recording import RATE, Recording, Rejected, Samples
from ironbeat.workloads.speech.spelling import Wanted, Word

# Each version is a way to compute; results of different versions are not compared with each other.
MODEL_VERSIONS = ("v2.1",)

AnalysisType = Literal["full", "pronunciation", "prosody", "voice"]

# Which parts of the score an analysis of each type has.
PARTS: dict[str, tuple[str, ...]] = {
    "full": ("pronunciation", "fluency", "pitch", "voice_quality"),
    "pronunciation": ("pronunciation",),
    "prosody": ("fluency", "pitch"),
    "voice": ("voice_quality",),
}

Report = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Exercise:
    """What was to be said, and how it sounds when it is said well (a file; optional).

    ``sounds`` are the wanted sounds themselves (names of :data:`phones.NAMES`), where the text's
    spelling does not tell them: nonsense words, names.
    """

    text: str
    language: str = "en"
    reference: bytes | None = None
    sounds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Analysis:
    """The result: scores from 0 to 100 (``None``: not asked for, or not measurable).

    ``details`` is what the feedback is made of, as JSON; ``picture`` an SVG.
    """

    model_version: str
    analysis_type: str
    engine: str
    overall_score: float
    pronunciation: float | None
    fluency: float | None
    pitch: float | None
    voice_quality: float | None
    confidence: float
    details: dict[str, Any]
    picture: str


@dataclass(frozen=True, slots=True)
class _Listened:
    """A recording with what the models found in it."""

    recording: Recording
    samples: Samples
    evidence: Evidence
    timing: prosody.Timing
    quality: quality.Quality
    pitch: Floats


def check(params: dict[str, Any]) -> tuple[str, str]:
    """The model version and type that ``params`` ask for; both have a default.

    Raises :class:`ValueError` naming what is possible.
    """
    unknown = sorted(set(params) - {"model_version", "analysis_type"})
    if unknown:
        raise ValueError(
            f"params has {', '.join(map(repr, unknown))}; known are 'model_version' and "
            "'analysis_type'"
        )
    version = params.get("model_version", MODEL_VERSIONS[-1])
    kind = params.get("analysis_type", "full")
    if version not in MODEL_VERSIONS:
        raise ValueError(
            f"model_version {version!r} is not installed; use {', '.join(MODEL_VERSIONS)}"
        )
    if kind not in PARTS:
        raise ValueError(f"analysis_type {kind!r} does not exist; use {', '.join(PARTS)}")
    return version, kind


def analyse(
    content: bytes,
    exercise: Exercise,
    *,
    model_version: str = MODEL_VERSIONS[-1],
    analysis_type: str = "full",
    report: Report = lambda percent, step: None,
) -> Analysis:
    """Judge a recording. ``report(percent, step)`` is called as the work goes on.

    Raises :class:`Rejected` where the recording cannot be judged, and
    :class:`spelling.UnknownSpelling` where the exercise's text cannot be told in sounds.
    """
    parts = PARTS[analysis_type]
    report(0, "reading the recording")
    words = (
        spelling.spelled_out(exercise.text, exercise.sounds)
        if exercise.sounds
        else spelling.words(exercise.text, exercise.language)
    )
    found = _listen(content, report)
    report(45, "listening to the reference")
    reference = _reference(exercise.reference) if exercise.reference else None

    report(60, "comparing the sounds")
    said = alignment.decode(found.evidence)
    wanted = spelling.chosen(words, said)
    sounds = [each.sound for each in wanted]
    heard = alignment.heard_as(found.evidence, sounds)
    spans = alignment.spans(found.evidence, sounds)
    cost, steps = alignment.beside(sounds, said)
    pronounced = scoring.pronunciation(heard, cost, max(len(sounds), len(said)))

    report(75, "measuring pace and pitch")
    model = _on_our_time(found, reference)
    fluent = prosody.fluency(
        found.timing, _syllables(words, sounds), reference.timing if reference else None
    )
    pitched = prosody.pitch(found.pitch, model)
    tones = _tones(found.pitch, words, wanted, spans)
    pitch_score = _with_tones(pitched, tones)

    report(85, "measuring the voice")
    speech = found.samples[int(found.timing.start * RATE) : int(found.timing.end * RATE)]
    voice = praat.voice(speech) if "voice_quality" in parts else praat.Voice(None, None, None)

    measured: dict[str, float | None] = {
        "pronunciation": pronounced,
        "fluency": fluent.score,
        "pitch": pitch_score,
        "voice_quality": scoring.voice_quality(voice),
    }
    scores = {name: _rounded(value) if name in parts else None for name, value in measured.items()}
    trust = scoring.confidence(
        language=exercise.language,
        sounds=len(sounds),
        range_db=found.quality.range_db,
        sureness=float(np.mean([each.probability for each in heard])),
        has_reference=reference is not None,
    )
    overall = round(scoring.overall(scores), 1)

    report(92, "drawing the picture")
    feedback = _feedback(words, wanted, heard, spans, praat.formants(found.samples, spans))
    picture = draw(
        Drawing(
            samples=found.samples,
            text=exercise.text,
            overall=overall,
            sounds=sounds,
            heard=[each.sound for each in heard],
            right=[each.right for each in heard],
            spans=spans,
            pitch=prosody.semitones(found.pitch),
            reference=None if model is None else prosody.semitones(model),
        )
    )
    return Analysis(
        model_version=model_version,
        analysis_type=analysis_type,
        engine=models.engine(),
        overall_score=overall,
        **scores,
        confidence=trust.value,
        details={
            "certain": exercise.language != "zh" and trust.value >= 0.8,
            "confidence_reasons": list(trust.reasons),
            "recording": {**found.recording.source, **asdict(found.quality)},
            "sounds": feedback,
            "added": [step.heard for step in steps if step.wanted is None],
            "words": _by_word(words, wanted, heard),
            "fluency": _plain(asdict(fluent)),
            "pitch": _plain(asdict(pitched)) | ({"tones": tones} if tones else {}),
            "voice": _plain(asdict(voice)),
        },
        picture=picture,
    )


def _listen(content: bytes, report: Report | None = None) -> _Listened:
    found = recording.read(content)
    tell = report or (lambda percent, step: None)
    tell(10, "checking the recording's quality")
    quality.require_sound(found)
    samples = quality.levelled(found.samples)
    voiced = models.voice(samples)
    measured = quality.require_speech(found, voiced, models.VOICE_CHUNK)
    tell(25, "listening to the sounds")
    return _Listened(
        recording=found,
        samples=samples,
        evidence=models.evidence(samples),
        timing=prosody.timing(voiced, models.VOICE_CHUNK / RATE, quality.VOICE_FROM),
        quality=measured,
        pitch=praat.pitch_track(samples),
    )


@lru_cache(maxsize=32)
def _reference(content: bytes) -> _Listened:
    """A reference is listened to once for all who practise with it (about 200 KB each)."""
    try:
        return _listen(content)
    except Rejected as refused:
        raise Rejected(
            f"reference_{refused.code}",
            f"The exercise's reference recording cannot be used: {refused.message}",
        ) from refused


def _on_our_time(found: _Listened, reference: _Listened | None) -> Floats | None:
    """The reference's pitch, moved to where the learner says the same."""
    if reference is None:
        return None
    path = prosody.warp(found.evidence, reference.evidence)
    moved = prosody.onto(
        reference.pitch, path, found.evidence, reference.evidence, len(found.pitch)
    )
    # Where the learner is silent, before and after, there is nothing to compare with.
    moved[: int(found.timing.start / prosody.PITCH_STEP)] = 0.0
    moved[int(found.timing.end / prosody.PITCH_STEP) + 1 :] = 0.0
    return moved


def _syllables(words: Sequence[Word], sounds: Sequence[str]) -> int:
    if words[0].tone is not None:
        return len(words)
    return sum(isinstance(phones.SOUNDS[sound], phones.Vowel) for sound in sounds)


def _tones(
    track: Floats, words: Sequence[Word], wanted: Sequence[Wanted], spans: Sequence[Span]
) -> list[dict[str, Any]]:
    """For each Mandarin syllable: the tone that was wanted, and the one that was heard."""
    line = prosody.semitones(track)
    found: list[dict[str, Any]] = []
    for index, word in enumerate(words):
        if word.tone is None:
            continue
        places = [span for span, each in zip(spans, wanted, strict=True) if each.word == index]
        start, end = places[0].start, places[-1].end
        piece = line[int(start / prosody.PITCH_STEP) : int(end / prosody.PITCH_STEP) + 1]
        likely = prosody.tone_likeness(piece)
        heard = max(likely, key=likely.__getitem__) if likely else None
        found.append(
            {
                "syllable": word.text,
                "wanted": word.tone,
                "heard": heard,
                # A light tone has no shape of its own.
                "score": None
                if word.tone == 5 or not likely
                else round(100 * likely[word.tone], 1),
            }
        )
    return found


def _with_tones(pitched: prosody.Pitch, tones: Sequence[dict[str, Any]]) -> float:
    """In Mandarin the pitch is first of all the tones; the sentence's line counts as much."""
    judged = [tone["score"] for tone in tones if tone["score"] is not None]
    if not judged:
        return pitched.score
    toned = sum(judged) / len(judged)
    return toned if pitched.likeness is None else (toned + pitched.score) / 2


def _feedback(
    words: Sequence[Word],
    wanted: Sequence[Wanted],
    heard: Sequence[Heard],
    spans: Sequence[Span],
    formants: Sequence[tuple[float, float] | None],
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for each, found, span, formant in zip(wanted, heard, spans, formants, strict=True):
        verdict = scoring.verdict(found.right)
        row: dict[str, Any] = {
            "sound": each.sound,
            "word": words[each.word].text,
            "start": round(span.start, 2),
            "end": round(span.end, 2),
            "score": round(100 * found.right, 1),
            "verdict": verdict,
            "heard": found.sound,
        }
        if verdict != "right":
            row["advice"] = _advice(each.sound, found.sound)
        if isinstance(phones.SOUNDS[each.sound], phones.Vowel) and formant:
            row["formants_hz"] = list(formant)
        rows.append(row)
    return rows


def _advice(wanted: str, heard: str | None) -> str:
    if heard is None:
        return f"/{wanted}/ was left out"
    if heard == wanted:
        return f"/{wanted}/ is indistinct"
    difference = phones.difference(wanted, heard)
    return f"/{heard}/ for /{wanted}/" + (f": {difference}" if difference else "")


def _by_word(
    words: Sequence[Word], wanted: Sequence[Wanted], heard: Sequence[Heard]
) -> list[dict[str, Any]]:
    rights: list[list[float]] = [[] for _ in words]
    for each, found in zip(wanted, heard, strict=True):
        rights[each.word].append(found.right)
    return [
        {"word": word.text, "score": round(100 * sum(right) / len(right), 1)}
        for word, right in zip(words, rights, strict=True)
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in values.items()
    }
