"""Sample rows: exercises with a model voice, and learners of several kinds who practise them.

All are spoken by Praat's synthesizer, and the same each time. Learners who mispronounce read a text
with the mistake spelled into it. ``scale`` users make a twentieth as many recordings.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import soundfile

from ironbeat.workloads.speech import praat, store
from ironbeat.workloads.speech.recording import RATE

FEWEST, USERS_A_RECORDING = 12, 20


class SampleRefused(ValueError):
    """Sample rows would mix with recordings of one's own."""


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence, and what learners say who front, stop, glide or leave out some of its sounds."""

    text: str
    mispronounced: tuple[str, ...]
    language: str = "en"


SENTENCES = (
    _Sentence("the red rabbit runs", ("the wed wabbit wuns", "the red rabbi run")),
    _Sentence("thank you for the cake", ("tank you for the tate", "sank you for cake")),
    _Sentence("she sells sea shells", ("see sells she sells", "he tells tea tells")),
    _Sentence("the yellow lamp is lit", ("the yeyow wamp is wit", "the yellow lap is it")),
    _Sentence("go to the green garden", ("doe to the dreen darden", "go to green gard")),
    _Sentence("five fat fish swim", ("pive pat pish wim", "vive vat vish zwim")),
    _Sentence("please put the spoon down", ("peas put the poon down", "please put the spoon")),
    _Sentence("three thin trees", ("tee tin tees", "three thin keys")),
    _Sentence("你好早上好", ("你號早上號",), "zh"),
)
_WRONG = "I have no idea what this is about"
_LEARNERS = ("Female2", "Male1", "Male3", "Female4")


def load(*, scale: int, progress: Callable[[int, int], None]) -> dict[str, int]:
    """Add the exercises and the recordings of ``scale`` users; returns how many of each.

    A load that is stopped goes on where it was. Raises :class:`SampleRefused` where there are
    recordings that are not from here, and ``ValueError`` for a scale below 1.
    """
    if scale < 1:
        raise ValueError(f"scale is {scale}; it must be at least 1 user")
    wanted = max(FEWEST, scale // USERS_A_RECORDING)
    with store.transaction() as cursor:
        present = store.run(cursor, "present").fetchone() or {"sample": 0, "practice_records": 0}
    if present["sample"] < present["practice_records"]:
        raise SampleRefused(
            f"there are {present['practice_records'] - present['sample']} practice records that "
            "are no samples; sample rows go into empty tables. Nothing was changed."
        )
    done = present["sample"]
    exercises: dict[str, int] = {}
    for number in range(done, wanted):
        sentence = SENTENCES[number % len(SENTENCES)]
        if sentence.text not in exercises:
            exercises[sentence.text] = store.add_exercise(
                sentence.text,
                sentence.language,
                reference=_spoken(sentence.text, sentence.language),
            )
        content = recorded(sentence, number)
        learner = f"sample learner {number % 40 + 1}"
        store.add_practice(exercises[sentence.text], content, learner, sample=True)
        progress(number + 1 - done, wanted - done)
    return {"exercises": len(exercises), "practice_records": max(0, wanted - done)}


def recorded(sentence: _Sentence, number: int) -> bytes:
    """What the learner of this number says: rightly, with mistakes, or something else."""
    turn = zlib.crc32(f"{sentence.text} {number}".encode())
    said: tuple[str, ...] = (sentence.text, sentence.text, *sentence.mispronounced)
    if sentence.language == "en":
        said += (_WRONG,)
    voice = _LEARNERS[turn // 7 % len(_LEARNERS)]
    return _spoken(said[turn % len(said)], sentence.language, 110 + turn // 31 % 5 * 15, voice)


def _spoken(text: str, language: str, words_a_minute: int = 130, voice: str = "Female1") -> bytes:
    samples = praat.speak(text, language, words_a_minute=words_a_minute, voice=voice)
    target = io.BytesIO()
    soundfile.write(target, samples, RATE, format="FLAC")
    return target.getvalue()
