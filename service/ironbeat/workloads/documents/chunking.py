"""Cutting a document into chunks that respect its sentences and headings. Pure.

A chunk lies under one heading and consists of whole sentences, of which it repeats the last ones of
its predecessor under the same heading, so that what is said across a cut can be found from either
side. Only a sentence that is longer than a chunk is cut itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ironbeat.workloads.documents.text import pieces, sentences, tidy, units

TARGET_UNITS = 320.0
LIMIT_UNITS = 480.0
OVERLAP_UNITS = 40.0


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph of a document, or a heading: ``level`` 1 to 6, and 0 for a paragraph."""

    text: str
    level: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: ``position`` from 0 on, the headings it stands under, its text."""

    position: int
    heading: str
    text: str


def chunks(
    blocks: Iterable[Block],
    *,
    target: float = TARGET_UNITS,
    limit: float = LIMIT_UNITS,
    overlap: float = OVERLAP_UNITS,
) -> Iterator[Chunk]:
    """The chunks of a document, in order. Sizes are in units (:func:`.text.units`)."""
    position = 0
    for heading, paragraphs in _sections(blocks):
        for text in _cut(paragraphs, target, limit, overlap):
            yield Chunk(position, heading, text)
            position += 1


def _sections(blocks: Iterable[Block]) -> Iterator[tuple[str, list[str]]]:
    """Paragraphs by the headings that they stand under, outermost first."""
    path: list[tuple[int, str]] = []
    paragraphs: list[str] = []
    for block in blocks:
        text = tidy(block.text)
        if not text:
            continue
        if not block.level:
            paragraphs.append(text)
            continue
        if paragraphs:
            yield _named(path), paragraphs
        paragraphs = []
        path = [(level, name) for level, name in path if level < block.level]
        path.append((block.level, text))
    if paragraphs:
        yield _named(path), paragraphs


def _named(path: Sequence[tuple[int, str]]) -> str:
    return " › ".join(name for _, name in path)


def _cut(paragraphs: Sequence[str], target: float, limit: float, overlap: float) -> Iterator[str]:
    waiting: list[str] = []
    fresh = 0.0
    for sentence, ends_paragraph in _sentences(paragraphs, limit):
        size = units(sentence)
        if fresh and sum(map(units, waiting)) + size > limit:
            yield _joined(waiting)
            waiting, fresh = _tail(waiting, min(overlap, limit - size)), 0.0
        waiting.append(sentence + ("\n" if ends_paragraph else ""))
        fresh += size
        if fresh >= target:
            yield _joined(waiting)
            waiting, fresh = _tail(waiting, overlap), 0.0
    if fresh:
        yield _joined(waiting)


def _sentences(paragraphs: Sequence[str], limit: float) -> Iterator[tuple[str, bool]]:
    for paragraph in paragraphs:
        parts = [part for each in sentences(paragraph) for part in pieces(each, limit)]
        for number, part in enumerate(parts, 1):
            yield part, number == len(parts)


def _tail(waiting: Sequence[str], room: float) -> list[str]:
    """The last sentences, as many as fit into ``room``."""
    kept: list[str] = []
    for sentence in reversed(waiting):
        room -= units(sentence)
        if room < 0:
            break
        kept.insert(0, sentence)
    return kept


def _joined(parts: Sequence[str]) -> str:
    text = ""
    for part in parts:
        # Between two Chinese sentences stands no space.
        glue = "" if not text or text[-1] in "\n。！？；…”」』）" else " "
        text += glue + part
    return text.strip()
