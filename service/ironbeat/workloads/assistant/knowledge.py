"""Retrieval over what other workloads have stored, where they are installed.

Nothing of those workloads is imported: their tables are read if they are there. Passages are ranked
by how many of the question's words (of Chinese, pairs of characters) they hold, rare ones first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from psycopg import sql

from ironbeat import connection

log = structlog.get_logger()

MOST_PASSAGES = 3
MOST_TERMS = 12
LONGEST_PASSAGE = 400
# Without an index a search reads the table; one that takes longer finds nothing.
SEARCH_MILLISECONDS = 1500
# A passage must hold this share of the question's terms.
LEAST_SHARE = 0.5

_WORD = re.compile(r"[a-z0-9]{3,}")
_CHINESE = re.compile(r"[\u3400-\u9fff]{2,}")
_STOP = frozenset(
    [
        "the",
        "and",
        "for",
        "are",
        "was",
        "were",
        "with",
        "from",
        "this",
        "that",
        "what",
        "which",
        "who",
        "how",
        "why",
        "when",
        "where",
        "does",
        "did",
        "can",
        "you",
        "your",
        "about",
        "have",
        "has",
        "had",
        "not",
        "but",
        "tell",
        "please",
        "me",
        "there",
    ]
)


@dataclass(frozen=True, slots=True)
class Source:
    """A table with passages: the column of their text, and that of where they are from."""

    schema: str
    table: str
    text: str
    origin: str


SOURCES = (Source("documents", "chunks", "text", "document_id"),)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of stored knowledge."""

    text: str
    source: str


def search(question: str, *, limit: int = MOST_PASSAGES) -> list[Passage]:
    """The passages that answer a question best; none where nothing is stored, or nothing fits."""
    terms = terms_of(question)
    if not terms:
        return []
    found: list[tuple[float, Passage]] = []
    try:
        with connection() as opened:
            for source in SOURCES:
                if _present(opened, source):
                    found += _search(opened, source, terms, limit)
    except psycopg.Error as error:
        # An answer without knowledge is better than none.
        log.warning("no knowledge was searched", action="knowledge", reason=str(error)[:200])
        return []
    found.sort(key=lambda each: -each[0])
    return [passage for _, passage in found[:limit]]


def terms_of(question: str) -> list[str]:
    """The words of a question that say what it is about."""
    lowered = question.lower()
    words = [word for word in _WORD.findall(lowered) if word not in _STOP]
    pairs = [run[i : i + 2] for run in _CHINESE.findall(lowered) for i in range(len(run) - 1)]
    return list(dict.fromkeys([*words, *pairs]))[:MOST_TERMS]


def _present(opened: psycopg.Connection[Any], source: Source) -> bool:
    row = opened.execute(
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = %s"
        " AND table_name = %s AND column_name = ANY(%s)",
        [source.schema, source.table, [source.text, source.origin]],
    ).fetchone()
    return row is not None and row[0] == 2


def _search(
    opened: psycopg.Connection[Any], source: Source, terms: Sequence[str], limit: int
) -> list[tuple[float, Passage]]:
    query = sql.SQL(
        "SELECT text, origin, share FROM ("
        " SELECT {text} AS text, {origin}::text AS origin, ("
        "  SELECT count(*) FROM unnest(%(terms)s::text[]) AS t"
        "  WHERE strpos(lower({text}), t) > 0)::float8 / cardinality(%(terms)s::text[]) AS share"
        " FROM {table}) AS ranked"
        " WHERE share >= %(least)s ORDER BY share DESC, length(text) LIMIT %(limit)s"
    ).format(
        text=sql.Identifier(source.text),
        origin=sql.Identifier(source.origin),
        table=sql.Identifier(source.schema, source.table),
    )
    parameters = {"terms": list(terms), "least": LEAST_SHARE, "limit": limit}
    with opened.transaction():
        opened.execute(
            "SELECT set_config('statement_timeout', %s, true)", [f"{SEARCH_MILLISECONDS}ms"]
        )
        rows = opened.execute(query, parameters).fetchall()
    return [(share, Passage(text[:LONGEST_PASSAGE], origin)) for text, origin, share in rows]
