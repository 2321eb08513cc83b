"""A conversation has one holder at a time, and its answers keep their order."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from tests.assistant import Assistant

from ironbeat.workloads.assistant import accounts, delivery, reception, tasks
from ironbeat.workloads.assistant.trial.apis import Trouble
from ironbeat.workloads.assistant.trial.senders import App
from ironbeat.workloads.assistant.turns import Message, Turn

HOLDERS = 8


def store(app: App, text: str, **more: object) -> reception.Stored:
    """A message that was received, and that nobody is at."""
    account = accounts.find(app.channel, app.app_id)
    assert account is not None
    webhook = app.message(text, **more)
    incoming = reception.CHANNELS[app.channel].read(account, webhook.request())
    assert incoming is not None
    stored = reception.store(account, incoming, webhook.body)
    assert stored is not None
    return stored


def echo(message: Message) -> str:
    return message.content


def test_eight_holders_at_once_keep_every_conversation_in_order(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    app, users, messages = apps["telegram"], 6, 20
    names, chance = count(), random.Random(7)
    handled: dict[int, list[str]] = defaultdict(list)

    def handle(message: Message) -> str:
        time.sleep(chance.random() * 0.01)
        handled[message.conversation_id].append(message.content)
        return message.content

    def come(conversation_id: int) -> None:
        Turn(conversation_id, f"holder-{next(names)}", handle).take()

    with ThreadPoolExecutor(HOLDERS) as holders:
        visits = []
        for number in range(messages):
            for user in range(users):
                stored = store(app, f"{user}/{number}", user=str(100 + user))
                # Two come for each message; one of them finds it done, or held.
                visits += [holders.submit(come, stored.conversation_id) for _ in range(2)]
        for visit in visits:
            visit.result(60)
    for user in range(users):
        expected = [f"{user}/{number}" for number in range(messages)]
        assert assistant.apis.texts(app.chat_of(str(100 + user))) == expected
    assert all(
        said == sorted(said, key=lambda t: int(t.split("/")[1])) for said in handled.values()
    )
    assert assistant.states() == {"confirmed": users * messages}
    assert assistant.value("SELECT count(*) FROM assistant.conversations WHERE held_by <> ''") == 0


def test_what_comes_while_a_message_is_handled_is_seen_by_the_holder(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    app = apps["telegram"]

    def handle(message: Message) -> str:
        if message.seq < 5:
            store(app, f"{message.seq + 1}")
            assert Turn(message.conversation_id, "late", echo).take().outcome == "held"
        return message.content

    first = store(app, "1")
    report = Turn(first.conversation_id, "early", handle).take()
    assert (report.outcome, report.handled, report.sent) == ("done", 5, 5)
    assert assistant.apis.texts() == ["1", "2", "3", "4", "5"]


def test_nothing_overtakes_an_answer_that_waits_for_its_channel(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    app = apps["telegram"]
    assistant.apis.cause(Trouble("error", seconds=1.5))
    conversation = store(app, "first").conversation_id
    report = Turn(conversation, "a", echo).take()
    assert (report.outcome, report.wait, report.sent) == ("waits", 1.5, 0)
    store(app, "second")
    assert Turn(conversation, "b", echo).take().outcome == "held"
    assert assistant.apis.texts() == []
    time.sleep(1.6)
    assert Turn(conversation, "c", echo).take().sent == 2
    assert assistant.apis.texts() == ["first", "second"]


@pytest.mark.parametrize(
    ("kind", "expected"), [("telegram", ("confirmed", 2, 1)), ("wechat", ("unknown", 1, 1))]
)
def test_a_sender_that_died_leaves_a_doubt_that_follows_the_policy(
    assistant: Assistant, apps: dict[str, App], kind: str, expected: tuple[str, int, int]
) -> None:
    app = apps[kind]
    conversation = store(app, "hello").conversation_id

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_send", die)
        with pytest.raises(Killed):
            Turn(conversation, "dead", echo).take()
    assert assistant.states() == {"sending": 1}
    report = Turn(conversation, "next", echo).take()
    assert report.outcome == "waits" and 25 < report.wait <= delivery.SENDING_SECONDS
    assistant.rows("UPDATE assistant.answers SET sending_since = now() - interval '1 minute'")
    assistant.rows("UPDATE assistant.conversations SET resume_at = NULL")
    Turn(conversation, "later", echo).take()
    assistant.rows("UPDATE assistant.answers SET next_attempt_at = now()")
    assistant.rows("UPDATE assistant.conversations SET resume_at = NULL")
    Turn(conversation, "latest", echo).take()
    assert assistant.rows("SELECT state, attempts, unknown_fates FROM assistant.answers") == [
        expected
    ]
    assert assistant.value("SELECT state FROM assistant.messages") == "handled"


def test_a_holder_that_died_is_replaced_when_its_hold_lapses(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    conversation = store(apps["telegram"], "hello").conversation_id
    assistant.rows(
        "UPDATE assistant.conversations SET held_by = 'dead', held_until = now() + '1 minute'"
    )
    assert Turn(conversation, "next", echo).take().outcome == "held"
    # The same run, begun again after its worker died, goes on at once.
    assert Turn(conversation, "dead", echo).take().sent == 1
    store(apps["telegram"], "again")
    assistant.rows(
        "UPDATE assistant.conversations SET held_by = 'dead', held_until = now() - '1 s'::interval"
    )
    assert Turn(conversation, "next", echo).take().sent == 1


def test_a_holder_that_was_replaced_says_nothing(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    def overtaken(message: Message) -> str:
        assistant.rows("UPDATE assistant.conversations SET held_until = now() - '1 s'::interval")
        assert Turn(message.conversation_id, "other", echo).take().sent == 1
        return "too late"

    conversation = store(apps["telegram"], "hello").conversation_id
    assert Turn(conversation, "slow", overtaken).take().sent == 0
    assert assistant.apis.texts() == ["hello"]
    assert assistant.states() == {"confirmed": 1}


def test_a_message_that_cannot_be_handled_is_tried_four_times(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    def broken(message: Message) -> str:
        raise RuntimeError("never")

    conversation = store(apps["telegram"], "hello there").conversation_id
    store(apps["telegram"], "behind it")
    for _ in range(3):
        report = Turn(conversation, "a", broken).take()
        assert (report.outcome, report.wait) == ("failed", 60)
        assistant.rows("UPDATE assistant.conversations SET resume_at = NULL")
    report = Turn(conversation, "a", lambda m: broken(m) if m.seq == 1 else m.content).take()
    assert report.outcome == "done"
    assert assistant.rows("SELECT state FROM assistant.messages ORDER BY seq") == [
        "failed",
        "handled",
    ]
    sorry, behind = assistant.apis.texts()
    assert sorry.startswith("Sorry") and behind == "behind it"


def test_what_a_killed_process_left_lying_is_resumed(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    store(apps["telegram"], "hello")
    assert tasks.resume_unanswered_messages() == {"resumed": 0, "more": False}
    assistant.rows("UPDATE assistant.messages SET received_at = now() - interval '1 minute'")
    assert tasks.resume_unanswered_messages() == {"resumed": 1, "more": False}
    assert assistant.value("SELECT count(*) FROM ironbeat.runs WHERE task='resume_conversation'")


def test_parts_are_cut_where_a_reader_would() -> None:
    parts = delivery.parts_of("數量 " * 300 + "\nend", 100)
    assert all(len(part.encode()) <= 100 for part in parts)
    assert "".join("".join(parts).split()) == "數量" * 300 + "end"
    assert delivery.parts_of("x" * 250, 100) == ["x" * 100, "x" * 100, "x" * 50]
    assert delivery.parts_of("short", 100) == ["short"]
