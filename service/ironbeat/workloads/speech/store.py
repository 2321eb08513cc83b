"""Exercises, practice records and analyses in the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ironbeat import connection, load_queries

# Nothing here takes longer than reading 20 MB; what does has met something that is broken.
STATEMENT_TIMEOUT_SECONDS = 60

BATCH_ROWS = 500


class PracticeRecordNotFound(LookupError):
    """There is no practice record, or no exercise, of this number."""


@dataclass(frozen=True, slots=True)
class Practice:
    """A practice record with its exercise."""

    id: int
    learner: str
    text: str
    language: str
    sounds: tuple[str, ...]
    content: bytes
    reference: bytes | None


@contextmanager
def transaction() -> Iterator[psycopg.Cursor[dict[str, Any]]]:
    """A cursor in a transaction of its own whose statements are bounded in time."""
    with (
        connection() as opened,
        opened.transaction(),
        opened.cursor(row_factory=dict_row) as cursor,
    ):
        cursor.execute(
            "SELECT set_config('statement_timeout', %s, true)", [f"{STATEMENT_TIMEOUT_SECONDS}s"]
        )
        yield cursor


def run(
    cursor: psycopg.Cursor[dict[str, Any]], query: str, **parameters: Any
) -> psycopg.Cursor[dict[str, Any]]:
    """Run a query of ``queries.sql``."""
    return cursor.execute(load_queries(__package__ or "", "queries.sql")[query], parameters)


def practice(id: int) -> Practice:
    """A practice record with both recordings. Raises :class:`PracticeRecordNotFound`."""
    with transaction() as cursor:
        row = run(cursor, "practice", id=id).fetchone()
    if row is None:
        raise PracticeRecordNotFound(f"there is no practice record {id}")
    return Practice(**row | {"sounds": tuple(row["sounds"] or ())})


def exists(id: int) -> bool:
    """Whether there is such a practice record."""
    with transaction() as cursor:
        row = run(cursor, "exists", id=id).fetchone()
    return bool(row and row["found"])


_UNSCORED: dict[str, Any] = dict.fromkeys(
    ("overall_score", "pronunciation", "fluency", "pitch", "voice_quality", "confidence",
     "reason_code", "reason", "picture")
)  # fmt: skip


def store(practice_record_id: int, *, details: dict[str, Any], **columns: Any) -> int:
    """Write an analysis; returns its number. What ``columns`` do not name is empty."""
    values = _UNSCORED | columns | {"details": Jsonb(details)}
    with transaction() as cursor:
        row = run(cursor, "store", practice_record_id=practice_record_id, **values).fetchone()
    return int(row["id"]) if row else 0


def latest(practice_record_id: int) -> dict[str, Any] | None:
    """The last analysis of a practice record, without its picture."""
    with transaction() as cursor:
        return run(cursor, "latest", id=practice_record_id).fetchone()


def picture(practice_record_id: int) -> str | None:
    """The picture of the last analysis that has one: an SVG."""
    with transaction() as cursor:
        row = run(cursor, "picture", id=practice_record_id).fetchone()
    return row["picture"] if row else None


def add_exercise(
    text: str,
    language: str = "en",
    *,
    reference: bytes | None = None,
    sounds: tuple[str, ...] = (),
) -> int:
    """A new exercise; returns its number."""
    with transaction() as cursor:
        reference_id = _audio(cursor, reference) if reference is not None else None
        row = run(
            cursor,
            "add_exercise",
            text=text,
            language=language,
            sounds=list(sounds) or None,
            reference_id=reference_id,
        ).fetchone()
    return int(row["id"]) if row else 0


def add_practice(
    exercise_id: int, content: bytes, learner: str = "", *, sample: bool = False
) -> int:
    """What somebody recorded for an exercise; returns the practice record's number.

    Raises :class:`PracticeRecordNotFound` for an exercise that does not exist.
    """
    with transaction() as cursor:
        row = run(
            cursor,
            "add_practice",
            exercise_id=exercise_id,
            learner=learner,
            audio_id=_audio(cursor, content),
            sample=sample,
        ).fetchone()
        if row is None:
            raise PracticeRecordNotFound(f"there is no exercise {exercise_id}")
    return int(row["id"])


def _audio(cursor: psycopg.Cursor[dict[str, Any]], content: bytes) -> int:
    row = run(cursor, "add_audio", content=content).fetchone()
    return int(row["id"]) if row else 0
