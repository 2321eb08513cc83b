"""Retrieval over the chunks of documents that the workload ``documents`` has stored, if it has.

Nothing of that workload is imported: its tables are read where they are. Passages are ranked by how
many of the question's words (of Chinese, pairs of characters) they hold. The chat messages of
``analytics`` are left alone: what one user wrote is not for another to read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
import structlog

from ironbeat import connection
from ironbeat.workloads.assistant.store import Connection, fetch, fetch_all

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
# What asks and is not asked for.
_CHINESE_STOP = re.compile(
    "請問|请问|可以|可否|能否|什麼|什么|怎麼|怎么|如何|多少|哪裡|哪里|哪些|為何|为何|是否|有沒有|有没有"
    "|[的了嗎吗呢吧啊幾几我你您他她們们是有在和與与及或請请問问]"
)
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
class Passage:
    """A piece of stored knowledge."""

    text: str
    source: str


def search(question: str, *, limit: int = MOST_PASSAGES) -> list[Passage]:
    """The passages that answer a question best; none where nothing is stored, or nothing fits."""
    terms = terms_of(question)
    if not terms:
        return []
    try:
        with connection() as opened:
            return _search(opened, terms, limit)
    except psycopg.Error as error:
        # An answer without knowledge is better than none.
        log.warning("no knowledge was searched", action="knowledge", reason=str(error)[:200])
        return []


def terms_of(question: str) -> list[str]:
    """The words of a question that say what it is about."""
    lowered = _CHINESE_STOP.sub(" ", question.lower())
    words = [word for word in _WORD.findall(lowered) if word not in _STOP]
    pairs = [run[i : i + 2] for run in _CHINESE.findall(lowered) for i in range(len(run) - 1)]
    return list(dict.fromkeys([*words, *pairs]))[:MOST_TERMS]


def _search(opened: Connection, terms: Sequence[str], limit: int) -> list[Passage]:
    present = fetch(opened, "documents_present")
    if present is None or not present["present"]:
        return []
    with opened.transaction():
        opened.execute(
            "SELECT set_config('statement_timeout', %s, true)", [f"{SEARCH_MILLISECONDS}ms"]
        )
        rows = fetch_all(
            opened, "search_documents", terms=list(terms), least=LEAST_SHARE, limit=limit
        )
    return [Passage(row["text"][:LONGEST_PASSAGE], row["source"]) for row in rows]
