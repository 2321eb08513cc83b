"""Keywords: `yake` for English; TF-IDF with jieba's frequencies for Chinese.

On raw Chinese `yake` returns clauses. The words are cut by `rjieba`, jieba's algorithm in Rust, and
weighed by the table that `jieba` brings, which is only read: `jieba` itself would load a cache from
a directory that everybody may write to, and take two seconds and 75 MB for the same words.
"""

from __future__ import annotations

import re
import statistics
from array import array
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ironbeat.workloads.documents.text import english_stop_words

COUNT = 10
# In words: phrases of three add clauses and lose titles' words.
ENGLISH_PHRASE = 2
# Above this likeness two phrases are one.
LIKENESS = 0.9

_MEANS_SOMETHING = re.compile(r"[\u3400-\u9fffA-Za-z]")
_CHINESE_STOP_WORDS = """
的 了 和 是 就 都 而 及 与 着 或 一个 没有 我们 你们 他们 它们 她们 自己
这个 那个 这些 那些 这样 那样 什么 怎么 怎样 如何 为什么 哪些 哪里 可以 可能
应该 需要 如果 因为 所以 但是 然而 并且 而且 或者 以及 对于 关于 其中 其他
其它 例如 比如 等等 之后 之前 之间 以下 以上 通过 进行 使用 使得 由于 已经
还是 只是 不是 不会 不能 一些 一种 一样 同样 另外 此外 同时 目前 现在 非常
十分 这里 那里 的话 来说 以便 即可 不过 也是 还有 除了 无法 任何 所有 每个
就是
"""


def keywords(text: str, language: str, count: int = COUNT) -> list[dict[str, object]]:
    """Up to ``count`` keywords, the weightiest first: ``{"text", "score"}``, scores from 0 to 1."""
    found = chinese(text, count) if language == "zh" else english(text, count)
    most = max((score for _, score in found), default=0.0) or 1.0
    return [{"text": word, "score": round(float(score / most), 4)} for word, score in found]


def english(text: str, count: int = COUNT) -> list[tuple[str, float]]:
    """Words and phrases with their weights; YAKE's own scores are the lower the better."""
    return [(word, 1.0 / (score + 1e-3)) for word, score in _extractor().extract_keywords(text)][
        :count
    ]


def chinese(text: str, count: int = COUNT) -> list[tuple[str, float]]:
    """Words with their TF-IDF."""
    import rjieba

    frequencies = _inverse_frequencies()
    stops = _chinese_stop_words()
    counts = Counter(
        word.lower() if word.isascii() else word
        for word in rjieba.cut(text)
        if len(word) > 1
        and _MEANS_SOMETHING.search(word)
        and word not in stops
        and word.lower() not in english_stop_words()
    )
    total = sum(counts.values()) or 1
    weighed = {word: n / total * frequencies.of(word) for word, n in counts.items()}
    # The order of equals must not depend on the order of a hash.
    return sorted(weighed.items(), key=lambda each: (-each[1], each[0]))[:count]


@cache
def _chinese_stop_words() -> frozenset[str]:
    return frozenset(_CHINESE_STOP_WORDS.split())


@cache
def _extractor() -> Any:
    import yake

    return yake.KeywordExtractor(lan="en", n=ENGLISH_PHRASE, dedup_lim=LIKENESS, top=COUNT)


class _Frequencies:
    """The inverse document frequency of each word that jieba knows, and that of any other one.

    Words are kept by their hashes, in arrays: as a dictionary the table takes 45 MB of each
    process, of which a child that was forked would soon have a copy.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        import numpy

        hashes, values = array("q"), array("d")
        for word, value in map(str.split, lines):
            hashes.append(hash(word))
            values.append(float(value))
        order = numpy.argsort(hashes)
        self._hashes = numpy.asarray(hashes)[order]
        self._values = numpy.asarray(values)[order]
        self._otherwise = statistics.median(values)

    def of(self, word: str) -> float:
        """The frequency of ``word``."""
        wanted = hash(word)
        place = int(self._hashes.searchsorted(wanted))
        if place < len(self._hashes) and self._hashes[place] == wanted:
            return float(self._values[place])
        return self._otherwise


@cache
def _inverse_frequencies() -> _Frequencies:
    found = find_spec("jieba")
    assert found is not None and found.origin is not None
    # Without importing it.
    with (Path(found.origin).parent / "analyse" / "idf.txt").open(encoding="utf-8") as lines:
        return _Frequencies(lines)
