"""Points expire with a ledger entry, and the ledger always sums to the balance."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.marketplace import Market, at_once

from ironbeat.workloads.marketplace import batches, tasks

expire = tasks.check_expired_points


def grant(market: Market, user: int, points: int, expires: str | None = None) -> int:
    lot = market.value(
        "SELECT marketplace.grant_points(%s, %s, now() + %s::interval)", user, points, expires
    )
    return int(lot)


def spend(market: Market, user: int, points: int) -> None:
    market.run("SELECT marketplace.spend_points(%s, %s)", user, points)


def balance(market: Market, user: int) -> int:
    return int(
        market.value("SELECT balance FROM marketplace.points_accounts WHERE user_id = %s", user)
    )


def remaining(market: Market, user: int) -> list[int]:
    return market.run(
        "SELECT remaining FROM marketplace.points_lots WHERE user_id = %s ORDER BY id", user
    )


def assert_books_balance(market: Market) -> None:
    """Balance = sum of the ledger = what remains of the lots, for everybody and each lot."""
    assert (
        market.run(
            "SELECT a.user_id, a.balance, l.left_over, e.total"
            " FROM marketplace.points_accounts AS a"
            " CROSS JOIN LATERAL (SELECT coalesce(sum(remaining), 0) AS left_over"
            "  FROM marketplace.points_lots AS l WHERE l.user_id = a.user_id) AS l"
            " CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS total"
            "  FROM marketplace.points_ledger AS e WHERE e.user_id = a.user_id) AS e"
            " WHERE a.balance <> l.left_over OR a.balance <> e.total OR a.balance < 0"
        )
        == []
    )
    assert (
        market.run(
            "SELECT id FROM marketplace.points_lots AS l WHERE remaining <> (SELECT sum(amount)"
            " FROM marketplace.points_ledger AS e WHERE e.user_id = l.user_id AND e.lot_id = l.id)"
        )
        == []
    )


def test_what_remains_of_a_lot_expires_with_an_entry(market: Market) -> None:
    user = market.user()
    old = grant(market, user, 100, "1 hour")
    grant(market, user, 50, "1 day")
    grant(market, user, 7)
    spend(market, user, 30)
    market.run("UPDATE marketplace.points_lots SET expires_at = now() WHERE id = %s", old)

    assert expire() == {"lots": 1, "points": 70, "more": False}

    assert balance(market, user) == 57
    assert remaining(market, user) == [0, 50, 7]
    assert market.run(
        "SELECT kind, amount FROM marketplace.points_ledger WHERE lot_id = %s ORDER BY id", old
    ) == [("earn", 100), ("spend", -30), ("expire", -70)]
    assert_books_balance(market)


def test_a_rerun_and_an_empty_marketplace_change_nothing(market: Market) -> None:
    assert expire() == {"lots": 0, "points": 0, "more": False}
    grant(market, market.user(), 5, "-1 hour")
    expire()
    books = ("points_accounts", "points_lots", "points_ledger")
    before = market.fingerprint(*books)
    assert expire() == {"lots": 0, "points": 0, "more": False}
    assert market.fingerprint(*books) == before


def test_several_lots_of_one_user_expire_in_one_batch(market: Market) -> None:
    user, other = market.user(), market.user()
    for points in (1, 2, 4):
        grant(market, user, points, "-1 hour")
    grant(market, other, 8, "-1 hour")
    assert expire() == {"lots": 4, "points": 15, "more": False}
    assert_books_balance(market)


def test_points_expire_at_their_time_and_not_a_moment_before(market: Market) -> None:
    user = market.user()
    exactly, after = grant(market, user, 1), grant(market, user, 2)
    with batches.transaction() as cursor:
        cursor.execute(
            "UPDATE marketplace.points_lots SET expires_at = now() WHERE id = %s", [exactly]
        )
        cursor.execute(
            "UPDATE marketplace.points_lots SET expires_at = now() + interval '1 microsecond'"
            " WHERE id = %s",
            [after],
        )
        counts = batches.one(cursor, "expire_points", batch=10, after_time="-infinity", after_id=0)
    assert (counts["lots"], counts["points"]) == (1, 1)


def test_points_past_their_time_cannot_be_spent_even_before_they_are_swept(market: Market) -> None:
    user = market.user()
    grant(market, user, 10, "-1 second")
    grant(market, user, 4)
    with pytest.raises(psycopg.errors.CheckViolation, match="has 4 points to spend, not 5"):
        spend(market, user, 5)
    spend(market, user, 4)
    assert_books_balance(market)


def test_points_that_expire_first_are_spent_first(market: Market) -> None:
    user = market.user()
    for points, expires in ((10, None), (10, "2 days"), (10, "1 day")):
        grant(market, user, points, expires)
    spend(market, user, 12)
    assert remaining(market, user) == [10, 8, 0]


@pytest.mark.parametrize("points", [0, -5, 11])
def test_a_spend_that_cannot_be_leaves_no_trace(market: Market, points: int) -> None:
    user = market.user()
    grant(market, user, 10)
    before = market.fingerprint("points_accounts", "points_lots", "points_ledger")
    with pytest.raises(psycopg.errors.CheckViolation):
        spend(market, user, points)
    assert market.fingerprint("points_accounts", "points_lots", "points_ledger") == before


@pytest.mark.parametrize(
    "forbidden",
    [
        "UPDATE marketplace.points_accounts SET balance = balance + 1",
        "UPDATE marketplace.points_lots SET remaining = remaining - 1",
        "UPDATE marketplace.points_lots SET granted = granted + 1",
        "UPDATE marketplace.points_ledger SET amount = 1",
        "DELETE FROM marketplace.points_ledger",
        "TRUNCATE marketplace.points_ledger",
        "DELETE FROM marketplace.points_lots",
        "INSERT INTO marketplace.points_ledger (user_id, lot_id, kind, amount)"
        " SELECT user_id, id, 'earn', 5 FROM marketplace.points_lots",
        "INSERT INTO marketplace.points_ledger (user_id, lot_id, kind, amount)"
        " SELECT user_id, id, 'spend', 5 FROM marketplace.points_lots",
        "INSERT INTO marketplace.points_ledger (user_id, lot_id, kind, amount)"
        " SELECT user_id, id, 'spend', -11 FROM marketplace.points_lots",
        "INSERT INTO marketplace.points_lots (user_id, granted, remaining)"
        " SELECT user_id, 10, 9 FROM marketplace.points_accounts",
        "INSERT INTO marketplace.points_accounts (user_id, balance)"
        " SELECT max(id), 10 FROM marketplace.users",
    ],
)
def test_the_database_refuses_what_would_make_the_books_untrue(
    market: Market, forbidden: str
) -> None:
    user = market.user()
    grant(market, user, 10)
    market.user()
    before = market.fingerprint("points_accounts", "points_lots", "points_ledger")
    with pytest.raises(psycopg.errors.IntegrityError):
        market.run(forbidden)
    assert market.fingerprint("points_accounts", "points_lots", "points_ledger") == before
    assert_books_balance(market)


def test_an_account_in_use_is_left_to_the_next_run(market: Market) -> None:
    busy, idle = market.user(), market.user()
    grant(market, busy, 10, "-1 hour")
    grant(market, busy, 10)
    grant(market, idle, 3, "-1 hour")
    with market.connect() as other:
        other.execute("SELECT marketplace.spend_points(%s, 4)", [busy])
        assert expire() == {"lots": 1, "points": 3, "more": False}
    assert expire() == {"lots": 1, "points": 10, "more": False}
    assert balance(market, busy) == 6
    assert_books_balance(market)


SPENDS = st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=6)
LOTS = st.lists(
    st.tuples(
        st.integers(min_value=1, max_value=60),
        st.sampled_from([None, "-1 hour", "1 day", "2 days"]),
    ),
    min_size=1,
    max_size=6,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lots=LOTS, spends=st.tuples(SPENDS, SPENDS))
def test_the_books_balance_whatever_happens_at_once(
    market: Market, lots: list[tuple[int, str | None]], spends: tuple[list[int], list[int]]
) -> None:
    """Two buyers spend one user's points while two workers expire them and more are granted."""
    market.empty()
    user = market.user()
    for points, expires in lots:
        grant(market, user, points, expires)
    spendable = sum(points for points, expires in lots if expires != "-1 hour")
    overdue = sum(points for points, _ in lots) - spendable

    def buy(amounts: list[int]) -> int:
        spent = 0
        with psycopg.connect(market.url, autocommit=True) as buyer:
            for amount in amounts:
                try:
                    buyer.execute("SELECT marketplace.spend_points(%s, %s)", [user, amount])
                    spent += amount
                except psycopg.errors.CheckViolation:
                    pass
        return spent

    def grant_more() -> None:
        with psycopg.connect(market.url, autocommit=True) as giver:
            for _ in range(3):
                giver.execute("SELECT marketplace.grant_points(%s, 1, NULL)", [user])

    results: list[Any] = at_once(
        lambda: buy(spends[0]), lambda: buy(spends[1]), expire, expire, grant_more
    )
    last = expire()
    assert results[2]["points"] + results[3]["points"] + last["points"] == overdue
    spent = results[0] + results[1]
    assert spent <= spendable + 3
    assert balance(market, user) == spendable + 3 - spent
    assert_books_balance(market)


def test_many_users_spend_while_their_points_expire(market: Market) -> None:
    """Whoever writes for many accounts at once locks them in the same order as everybody."""
    users = market.users(40)
    market.run(
        "INSERT INTO marketplace.points_accounts (user_id) SELECT unnest(%s::bigint[])", users
    )
    for expires in ("-1 hour", "1 day"):
        market.run(
            "INSERT INTO marketplace.points_lots (user_id, granted, remaining, expires_at)"
            " SELECT unnest(%s::bigint[]), 50, 50, now() + %s::interval",
            users,
            expires,
        )

    def sell_to_all(order: str) -> None:
        with psycopg.connect(market.url, autocommit=True) as seller:
            for _ in range(10):
                seller.execute(
                    "INSERT INTO marketplace.points_ledger (user_id, lot_id, kind, amount)"  # type: ignore[arg-type]
                    " SELECT user_id, id, 'spend', -1 FROM marketplace.points_lots"
                    f" WHERE expires_at > now() ORDER BY id {order}"
                )

    def sweep() -> int:
        return sum(batches.drain("expire_points", batch=7)["points"] for _ in range(10))

    results = at_once(lambda: sell_to_all("ASC"), lambda: sell_to_all("DESC"), sweep, sweep)
    assert results[2] + results[3] + expire()["points"] == 40 * 50
    assert market.run("SELECT DISTINCT balance FROM marketplace.points_accounts") == [30]
    assert_books_balance(market)
