"""How limits over all workers are written, and what calls count together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ironbeat.throttle import NAME_CHARACTERS, Throttle, ThrottleError, parse


def charge(customer, amount=1, *, note=""):
    """What a task's body looks like."""


TASK = SimpleNamespace(name="billing.charge", run=charge)


@pytest.mark.parametrize(
    ("rate", "pace"), [("10/s", 0.1), ("100/m", 0.6), ("2/h", 1800.0), ("5/30s", 6.0), ("0.5/s", 2)]
)
def test_rates(rate: str, pace: float) -> None:
    assert Throttle(rate=rate).pace == pytest.approx(pace)


@pytest.mark.parametrize("rate", ["10", "/s", "0/s", "-1/s", "5/0s", "1/w", "a/s"])
def test_a_rate_that_is_none_is_refused_with_a_right_one(rate: str) -> None:
    with pytest.raises(ThrottleError, match="write 100/m"):
        Throttle(rate=rate)


def test_a_throttle_says_something() -> None:
    with pytest.raises(ThrottleError, match="needs a rate"):
        Throttle(key="customer")
    with pytest.raises(ThrottleError, match="at least 1"):
        Throttle(concurrency=0)
    with pytest.raises(ThrottleError, match="at least 1"):
        Throttle(rate="1/s", burst=0)


def test_what_counts_together() -> None:
    assert Throttle(concurrency=1).of(TASK, (1,), {}) == "billing.charge"
    keyed = Throttle(concurrency=1, key="customer")
    assert keyed.of(TASK, ("acme", 3), {}) == keyed.of(TASK, (), {"customer": "acme"})
    assert keyed.of(TASK, ("acme",), {}) == "billing.charge:acme"
    assert Throttle(concurrency=1, key="amount").of(TASK, ("acme",), {}) == "billing.charge:1"
    shared = Throttle(rate="1/s", name="mail", key="customer")
    assert shared.of(TASK, ("acme",), {}) == "mail:acme"
    with pytest.raises(ThrottleError, match="no such parameter"):
        Throttle(concurrency=1, key="missing").of(TASK, ("acme",), {})


def test_a_name_is_bounded_and_can_be_stored() -> None:
    keyed = Throttle(concurrency=1, key="customer")
    one, other = (keyed.of(TASK, ("x" * 5000 + end,), {}) for end in "ab")
    assert len(one) <= NAME_CHARACTERS and one != other
    assert "\x00" not in keyed.of(TASK, ("a\x00b",), {})
    keyed.of(TASK, ("\udcff",), {}).encode()


def test_the_setting() -> None:
    found = parse("a.b=100/m,concurrency:5,key:customer,burst:10; c=concurrency:1,name:mail;")
    assert found == {
        "a.b": Throttle(rate="100/m", concurrency=5, key="customer", burst=10),
        "c": Throttle(concurrency=1, name="mail"),
    }
    assert parse(" ") == {}
    for text in ("a", "a=", "=5/s", "a=x:1", "a=concurrency:many", "a=100"):
        with pytest.raises(ThrottleError):
            parse(text)
