"""How long featured experts take to answer, from the messages themselves."""

from __future__ import annotations

from statistics import mean, median

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.marketplace import Market, at_once

from ironbeat.workloads.marketplace import tasks

update = tasks.update_featured_task_experts_response_time


def talk(market: Market, expert: int, *lines: tuple[str, int]) -> int:
    """A chat of (sender, seconds since its beginning) each."""
    chat = market.chat(idle="10 days", expert_id=expert)
    for sender, second in lines:
        market.run(
            "INSERT INTO marketplace.chat_messages (chat_id, sender, body, sent_at)"
            " VALUES (%s, %s, '…', now() - interval '5 days' + make_interval(secs => %s))",
            chat,
            sender,
            second,
        )
    return chat


def measured(market: Market, expert: int) -> tuple[int | None, int | None, int]:
    """(mean, median, number of answers)."""
    (row,) = market.run(
        "SELECT average_response_seconds, median_response_seconds, responses_counted"
        " FROM marketplace.task_experts WHERE id = %s",
        expert,
    )
    return row


def test_an_answer_is_timed_from_the_first_message_it_answers(market: Market) -> None:
    expert = market.expert()
    talk(
        market,
        expert,
        ("expert", 0),  # A greeting answers nothing.
        ("customer", 10),
        ("system", 15),
        ("customer", 40),
        ("expert", 70),  # 60 s after the first of the two questions.
        ("expert", 90),  # Goes on; answers nothing new.
        ("customer", 100),
        ("expert", 120),  # 20 s.
        ("customer", 500),  # Not answered.
    )
    talk(market, expert, ("customer", 0), ("expert", 400))
    assert update() == {"experts": 1, "updated": 1, "responses": 3, "more": False}
    assert measured(market, expert) == (160, 60, 3)


def test_only_featured_experts_are_measured(market: Market) -> None:
    expert = market.expert(featured=False)
    talk(market, expert, ("customer", 0), ("expert", 60))
    assert update() == {"experts": 0, "updated": 0, "responses": 0, "more": False}
    assert measured(market, expert) == (None, None, 0)


def test_who_never_answered_has_no_response_time(market: Market) -> None:
    expert = market.expert()
    talk(market, expert, ("customer", 0))
    update()
    assert measured(market, expert) == (None, None, 0)


def test_a_response_time_goes_when_its_chats_are_gone(market: Market) -> None:
    expert = market.expert()
    talk(market, expert, ("customer", 0), ("expert", 60))
    update()
    assert measured(market, expert) == (60, 60, 1)
    market.run("DELETE FROM marketplace.chats")
    assert update()["updated"] == 1
    assert measured(market, expert) == (None, None, 0)


def test_a_rerun_changes_nothing(market: Market) -> None:
    talk(market, market.expert(), ("customer", 0), ("expert", 60))
    market.expert()
    update()
    before = market.fingerprint("task_experts")
    assert update() == {"experts": 2, "updated": 0, "responses": 1, "more": False}
    assert market.fingerprint("task_experts") == before


def test_two_runs_at_once_come_to_the_same(market: Market) -> None:
    experts = [market.expert() for _ in range(10)]
    for second, expert in enumerate(experts, start=1):
        talk(market, expert, ("customer", 0), ("expert", second))
    at_once(update, update, update)
    update()
    assert [measured(market, each) for each in experts] == [(n, n, 1) for n in range(1, 11)]


LINES = st.lists(
    st.tuples(
        st.sampled_from(["customer", "expert", "system"]), st.integers(min_value=0, max_value=300)
    ),
    max_size=12,
)


def answers(lines: list[tuple[str, int]]) -> list[int]:
    """The waiting times in one chat, read line by line as a person would."""
    waited, asked, last = [], None, None
    for sender, second in lines:
        if sender == "customer" and last != "customer":
            asked = second
        if sender == "expert" and last == "customer" and asked is not None:
            waited.append(second - asked)
        if sender != "system":
            last = sender
    return waited


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chats=st.lists(LINES, min_size=1, max_size=4))
def test_any_conversation_is_timed_as_a_person_would(
    market: Market, chats: list[list[tuple[str, int]]]
) -> None:
    market.empty()
    expert = market.expert()
    waited: list[int] = []
    for lines in chats:
        ordered = sorted(lines, key=lambda line: line[1])
        talk(market, expert, *ordered)
        waited += answers(ordered)
    update()
    average, middle, number = measured(market, expert)
    assert number == len(waited)
    if waited:
        assert average is not None and abs(average - mean(waited)) <= 0.5
        assert middle is not None and abs(middle - median(waited)) <= 0.5
