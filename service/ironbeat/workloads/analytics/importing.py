"""Chats from files: JSON Lines or CSV, checked line by line, all of a file or nothing.

Fields: ``content`` and ``role`` are needed; ``created_at`` (ISO 8601, or seconds since 1970),
``chat_id`` and ``id`` are welcome. A message whose ``id`` is there already is passed over, so that
a file may be imported again; without ids, a name is made of where, when and what.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from zoneinfo import ZoneInfo

from ironbeat import get_settings
from ironbeat.workloads.analytics.database import one, transaction

ROLES = ("user", "assistant")
# A line this long is no chat message but a mistake.
MOST_CHARACTERS = 100_000
MOST_PROBLEMS = 10


class ImportRefused(ValueError):
    """A file cannot be imported; the message names the lines and what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it goes into the table."""

    external_id: str
    chat_id: str | None
    role: str
    content: str
    created_at: datetime


def import_file(path: Path, kind: str | None = None) -> dict[str, int]:
    """Import ``path``, ``jsonl`` or ``csv`` (default: by its name); counts of what it held.

    Raises :class:`ImportRefused` naming the first lines that are wrong, with nothing changed.
    """
    kind = kind or {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}.get(path.suffix.lower())
    if kind not in ("jsonl", "csv"):
        raise ImportRefused(
            f"{path.name}: is it JSON Lines or CSV? Name it .jsonl or .csv, or say --format"
        )
    zone = ZoneInfo(get_settings().timezone)
    with path.open(encoding="utf-8-sig", newline="") as stream, transaction() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE incoming (external_id text, chat_id text, role text,"
            " content text, created_at timestamptz) ON COMMIT DROP"
        )
        problems: list[str] = []
        with cursor.copy("COPY incoming FROM STDIN") as copy:
            for line, found in _records(stream, kind):
                try:
                    message = _message(found, zone)
                except ValueError as error:
                    problems.append(f"line {line}: {error}")
                    if len(problems) >= MOST_PROBLEMS:
                        break
                else:
                    copy.write_row(
                        (
                            message.external_id,
                            message.chat_id,
                            message.role,
                            message.content,
                            message.created_at,
                        )
                    )
        if problems:
            raise ImportRefused(f"{path.name}: {'; '.join(problems)}. Nothing was imported.")
        counts = one(cursor, "import")
    return {**counts, "known": counts["read"] - counts["added"]}


def _records(stream: TextIO, kind: str) -> Iterator[tuple[int, Any]]:
    if kind == "csv":
        reader = csv.DictReader(stream)
        missing = {"content", "role"} - set(reader.fieldnames or ())
        if missing:
            raise ImportRefused(
                f"the first line names no column {' and '.join(sorted(missing))}; needed are "
                "content and role, and known are created_at, chat_id, id"
            )
        for row in reader:
            yield reader.line_num, row
        return
    for number, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            yield number, json.loads(text)
        except ValueError as error:
            yield number, f"no JSON: {error}"


def _message(found: Any, zone: ZoneInfo) -> Message:
    """The message in a record. Raises ``ValueError`` saying what is wrong with it."""
    if isinstance(found, str):
        raise ValueError(found)
    if not isinstance(found, Mapping):
        raise ValueError(f"an object is wanted, not {type(found).__name__}")
    content, role = found.get("content"), found.get("role")
    if not isinstance(content, str) or not content.strip():
        raise ValueError("content is missing or empty")
    if len(content) > MOST_CHARACTERS:
        raise ValueError(f"content has {len(content)} characters, more than {MOST_CHARACTERS}")
    if "\0" in content:
        raise ValueError("content holds a NUL character")
    if role not in ROLES:
        raise ValueError(f"role is {role!r}; it is one of {', '.join(ROLES)}")
    created = _instant(found.get("created_at"), zone)
    chat = str(found["chat_id"]) if found.get("chat_id") not in (None, "") else None
    name = found.get("id")
    if name in (None, ""):
        made = "\0".join((chat or "", created.isoformat(), role, content))
        name = f"made:{hashlib.sha256(made.encode()).hexdigest()[:32]}"
    return Message(str(name), chat, role, content, created)


def _instant(value: Any, zone: ZoneInfo) -> datetime:
    if value in (None, ""):
        return datetime.now(UTC)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _within(datetime.fromtimestamp(value, UTC))
    try:
        made = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(
            f"created_at is {value!r}; write it as 2026-03-01T09:30:00+08:00"
        ) from None
    return _within(made if made.tzinfo else made.replace(tzinfo=zone))


def _within(value: datetime) -> datetime:
    if not 1990 <= value.year <= 2100:
        raise ValueError(f"created_at is in the year {value.year}")
    return value
