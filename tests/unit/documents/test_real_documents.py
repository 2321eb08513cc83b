"""Debian's FAQ and Reference, in both languages: what is found in them, measured.

scripts/corpora fetches them (with apt); without them these tests are skipped.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import rjieba
from selectolax.lexbor import LexborHTMLParser

from ironbeat.workloads.documents import keywords
from ironbeat.workloads.documents.chunking import LIMIT_UNITS, OVERLAP_UNITS, chunks
from ironbeat.workloads.documents.reading import read
from ironbeat.workloads.documents.text import english_stop_words, language, tidy, units

CORPORA = Path(__file__).parents[3] / ".cache" / "corpora"
pytestmark = [
    pytest.mark.skipif(
        not (CORPORA / "complete").exists(),
        reason="the documents are not here: scripts/corpora fetches them (it needs apt)",
    ),
    pytest.mark.timeout(600),
]
DOCUMENTS = CORPORA / "documents"
# Questions' own words, which nobody would look for.
_QUESTION = """
的 了 是 在 和 有 我 我们 什么 如何 怎么 怎样 为什么 哪些 这 那 吗 呢 不 与 及 或 之 从
到 对 能 可以 应该 会 一个 它 它们 你 您 他们 哪里 多少 为 是否 有没有 还有 中 里 上 下 关于 请问 该
"""
QUESTION_WORDS = frozenset(_QUESTION.split())


def sections(folder: str) -> list[tuple[str, str]]:
    """Each section's title without its number, and its text without the title."""
    found = []
    for path in sorted((DOCUMENTS / folder).glob("*.html")):
        for section in LexborHTMLParser(path.read_text()).css("div.section"):
            title = section.css_first("h2.title, h3.title, h4.title")
            if title is not None:
                heading = tidy(title.text().replace("\xa0", " "))
                body = tidy(section.text(separator=" ").replace("\xa0", " "))
                found.append(
                    (re.sub(r"^\d+(\.\d+)*\.?\s*", "", heading), body.replace(heading, "", 1))
                )
    return found


def words(text: str, spoken: str) -> set[str]:
    if spoken == "en":
        cut = re.findall(r"[a-z][a-z0-9+-]*", text.lower())
        return {word for word in cut if len(word) > 2 and word not in english_stop_words()}
    cut = [word.lower() for word in rjieba.cut(text) if re.search(r"[\u4e00-\u9fffA-Za-z]", word)]
    return {word for word in cut if len(word) > 1 and word not in QUESTION_WORDS}


@pytest.mark.parametrize(
    ("folder", "spoken", "least"), [("faq-en", "en", 0.44), ("faq-zh", "zh", 0.40)]
)
def test_keywords_name_what_a_section_is_about(folder: str, spoken: str, least: float) -> None:
    """Of the words of a section's title, how many are among its ten keywords?"""
    recalls = []
    for title, body in sections(folder):
        wanted = words(title, spoken)
        if wanted and len(body) >= 100:
            found = keywords.keywords(body, spoken, 10)
            given = set().union(*(words(str(each["text"]), spoken) for each in found))
            recalls.append(len(wanted & given) / len(wanted))
    recall = sum(recalls) / len(recalls)
    print(f"\nrecall@10 {spoken}: {recall:.3f} over {len(recalls)} sections")
    assert len(recalls) > 120
    assert recall >= least


@pytest.mark.parametrize(("folder", "spoken"), [("faq-en", "en"), ("faq-zh", "zh")])
def test_every_page_is_cut_and_its_language_known(folder: str, spoken: str) -> None:
    found = [
        chunk
        for path in sorted((DOCUMENTS / folder).glob("*.html"))
        for chunk in chunks(read(path).blocks)
    ]
    assert len(found) > 100
    assert all(0 < units(chunk.text) <= LIMIT_UNITS + OVERLAP_UNITS for chunk in found)
    long = [chunk for chunk in found if units(chunk.text) > 40]
    languages = Counter(language(chunk.text) for chunk in long)
    assert languages[spoken] >= 0.97 * len(long), languages


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["reference-en", "reference-zh"])
def test_hundreds_of_pages_of_pdf_are_read(folder: str) -> None:
    [path] = (DOCUMENTS / folder).glob("*.pdf")
    found = list(chunks(read(path).blocks))
    assert len(found) > 400
    assert sum(bool(chunk.heading) for chunk in found) > 0.9 * len(found)
