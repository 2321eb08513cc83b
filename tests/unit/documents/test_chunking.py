"""Chunks respect sentences and headings, overlap, and lose nothing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ironbeat.workloads.documents.chunking import LIMIT_UNITS, Block, chunks
from ironbeat.workloads.documents.text import sentences, units

ENGLISH = [f"This is sentence number {n} of a long paragraph about packages." for n in range(120)]
CHINESE = [f"这是关于软件包的第{n}个句子，内容很长。" for n in range(120)]


def test_a_chunk_lies_under_one_heading() -> None:
    blocks = [
        Block("A", 1),
        Block("One."),
        Block("B", 2),
        Block("Two."),
        Block("C", 1),
        Block("三。"),
    ]
    assert [(c.position, c.heading, c.text) for c in chunks(blocks)] == [
        (0, "A", "One."),
        (1, "A › B", "Two."),
        (2, "C", "三。"),
    ]


def test_chunks_are_whole_sentences_and_overlap() -> None:
    for wanted, glue in ((ENGLISH, " "), (CHINESE, "")):
        found = list(chunks([Block(glue.join(wanted))]))
        assert len(found) > 2
        for before, after in pairwise(found):
            assert units(before.text) <= LIMIT_UNITS
            assert set(sentences(before.text)) & set(sentences(after.text))
            assert set(sentences(before.text)) <= set(wanted)
        seen = dict.fromkeys(s for chunk in found for s in sentences(chunk.text))
        assert list(seen) == wanted


def test_a_sentence_longer_than_a_chunk_is_cut() -> None:
    endless = "words, and more words without any end " * 200
    found = list(chunks([Block(endless)]))
    assert len(found) > 2 and all(units(c.text) <= LIMIT_UNITS for c in found)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.text(alphabet="ab c.。中文A!\n", max_size=300), st.sampled_from([0, 0, 0, 1, 2, 3])
        ),
        max_size=12,
    )
)
def test_whatever_the_blocks_chunks_are_bounded_numbered_and_complete(
    blocks: list[tuple[str, int]],
) -> None:
    found = list(chunks([Block(*block) for block in blocks], target=30, limit=45, overlap=6))
    assert [c.position for c in found] == list(range(len(found)))
    assert all(0 < units(c.text) <= 45 + 6 for c in found)
    written = "".join("".join(c.text for c in found).split())
    for text, level in blocks:
        if not level:
            for sentence in sentences(" ".join(text.split())):
                if units(sentence) <= 45:
                    assert "".join(sentence.split()) in written
