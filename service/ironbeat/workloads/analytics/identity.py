"""Which of today's groups is which of yesterday's: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

K = TypeVar("K")

# A group goes on where it has at least this share of the smaller of both.
SHARE = 0.5


def continued(
    before: Mapping[K, int], after: Mapping[K, int], weights: Mapping[K, int] | None = None
) -> dict[int, int]:
    """For each group of ``after`` that goes on from one of ``before``: the older group's number.

    Both map a text to its group; ``weights`` says how often each text was asked (default: once).
    Those that share most are matched first, one to one. So a group keeps its number when texts come
    and go; of one that is split, the larger part goes on; of two that are joined, the larger.
    """
    shared: Counter[tuple[int, int]] = Counter()
    old_sizes: Counter[int] = Counter()
    new_sizes: Counter[int] = Counter()
    for text, group in before.items():
        old_sizes[group] += _weight(weights, text)
    for text, group in after.items():
        weight = _weight(weights, text)
        new_sizes[group] += weight
        if text in before:
            shared[before[text], group] += weight
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for (old, new), weight in sorted(shared.items(), key=lambda item: (-item[1], item[0])):
        if new in matched or old in taken:
            continue
        if weight >= SHARE * min(old_sizes[old], new_sizes[new]):
            matched[new] = old
            taken.add(old)
    return matched


def representative(
    closeness: Sequence[float], asked: Sequence[int], lengths: Sequence[int], *, usual: int = 12
) -> int:
    """The place of the text that stands for a group: near its middle, asked often, not long."""

    def standing(place: int) -> tuple[float, int]:
        often = min(asked[place], 100) / 100
        too_long = max(0, lengths[place] - usual) / 100
        return closeness[place] + 0.05 * often - 0.4 * too_long, -place

    return max(range(len(closeness)), key=standing)


def _weight(weights: Mapping[K, int] | None, text: K) -> int:
    return 1 if weights is None else weights.get(text, 1)
