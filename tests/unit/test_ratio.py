"""The side that a key takes: even, stable, and monotonous in the ratio."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbeat.dispatch.ratio import checked, goes_to_celery, place

KEYS = [f"chunk-{number}" for number in range(20_000)]


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.5, 0.9])
def test_the_share_is_the_ratio(ratio: float) -> None:
    share = sum(goes_to_celery(key, ratio) for key in KEYS) / len(KEYS)
    assert share == pytest.approx(ratio, abs=0.015)


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_raising_the_ratio_moves_nothing_to_rq(key: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert goes_to_celery(key, high) or not goes_to_celery(key, low)


@given(st.text())
def test_the_ends_are_complete(key: str) -> None:
    assert not goes_to_celery(key, 0.0)
    assert goes_to_celery(key, 1.0)


def test_a_key_keeps_its_place_in_every_process() -> None:
    assert place("chunk-1") == pytest.approx(0.19169037)
    assert place("文档-7") == pytest.approx(0.26228526)


@pytest.mark.parametrize("bad", [-0.1, 1.1, "0.5", None, True, float("nan")])
def test_what_is_no_share_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="a share from 0 to 1"):
        checked(bad)  # type: ignore[arg-type]
