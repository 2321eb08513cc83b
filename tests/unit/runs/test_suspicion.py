"""Who is suspected of a worker's death, and who is not."""

from __future__ import annotations

from pathlib import Path

from ironbeat.runs.blackbox import Execution, Report
from ironbeat.runs.suspicion import judge


def report(*executing: str, words: str = "") -> Report:
    return Report(
        path=Path("x"), lease="l", pid=1, born=0.0, kind="worker", name="w", pulse=0.0, tick=0.0,
        waiting_since=0.0, executing=tuple(Execution(id, 1, 0.0, None) for id in executing),
        words=words,
    )  # fmt: skip


def suspects(*arguments) -> set[str]:
    return {each.id for each in judge(*arguments) if each.suspect}


def test_only_what_was_executing() -> None:
    claimed = dict.fromkeys("abc", False)
    assert suspects(claimed, [report("b")], {}) == {"b"}
    assert suspects(claimed, [report()], {}) == set(), "it died between two tasks"
    assert suspects(claimed, [report("a"), report("c")], {}) == {"a", "c"}


def test_a_run_that_is_done_or_another_s_is_nobody_s() -> None:
    assert suspects({"a": False}, [report("z")], {}) == set()


def test_a_neighbour_s_testimony_serves_where_the_file_cannot_be_read() -> None:
    told = {"testimony": {"executing": ["b"], "words": "Fatal Python error: Aborted\n..."}}
    [a, b] = judge({"a": False, "b": False}, [], told)
    assert (a.suspect, b.suspect) == (False, True)
    assert b.error == "the worker died: Fatal Python error: Aborted"


def test_the_last_renewal_names_what_ran_long() -> None:
    told = {"running": [{"id": "c", "task": "t"}, "garbage"], "rss_mb": 512.5}
    [_, _, c] = judge(dict.fromkeys("abc", False), [], told)
    assert (c.suspect, c.error) == (True, "the worker died (512.5 MB at its last renewal)")


def test_where_nobody_knows() -> None:
    assert suspects({"a": False}, [], None) == {"a"}
    assert suspects({"a": False, "b": False}, [], {}) == set(), "it happened once"
    assert suspects({"a": False, "b": True}, [], {"running": 7}) == {"b"}, "it is bounded"


def test_words_can_be_stored() -> None:
    [only] = judge({"a": False}, [report("a", words="x\x00y")], {})
    assert only.words == "x\\x00y"
