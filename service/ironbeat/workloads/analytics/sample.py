"""Sample rows: five weeks of a shop's chats in traditional and simplified Chinese and English.

What is asked comes from ``questions.tsv``, questions with what they are about, written for this
project; each is varied by a greeting, a closing word, an order number, so that few messages are
equal. The number of users decides how many. Some questions grow hot towards the end, some fade.
The same number of users gives the same messages, times counting back from the moment of loading.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files

from ironbeat.workloads.analytics.database import transaction

SEED = 7
DAYS = 35
# Questions a user asks; after each comes an answer.
ASKED = 2
CHUNK = 5000
PREFIX = "sample-"

# Of a hundred messages, those that ask nothing: noise has to be called noise.
CHATTER_SHARE = 6


class SampleRefused(ValueError):
    """Sample rows would mix with messages of the user's own; load them into an empty table."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question and what it is about; ``language`` is zh-Hant, zh-Hans or en."""

    intent: str
    language: str
    text: str


@cache
def questions() -> tuple[Question, ...]:
    """All of ``questions.tsv``."""
    text = files(__package__).joinpath("questions.tsv").read_text(encoding="utf-8")
    return tuple(Question(*line.split("\t")) for line in text.splitlines())


_GREETINGS = {
    "zh-Hant": (
        "",
        "",
        "",
        "你好，",
        "您好，",
        "請問",
        "不好意思，",
        "哈囉 ",
        "嗨，",
        "想問一下，",
        "客服你好，",
        "早安，",
    ),
    "zh-Hans": (
        "",
        "",
        "",
        "你好，",
        "您好，",
        "请问",
        "不好意思，",
        "在吗？",
        "嗨，",
        "想问一下，",
        "客服你好，",
        "亲，",
    ),
    "en": (
        "",
        "",
        "",
        "Hi, ",
        "Hello, ",
        "Hey, ",
        "Excuse me, ",
        "Good morning, ",
        "Sorry, ",
        "Quick question: ",
        "Hi there! ",
        "Dear support, ",
    ),
}
_CLOSINGS = {
    "zh-Hant": (
        "",
        "",
        "",
        "，謝謝",
        "，麻煩了",
        "，急！",
        "！！",
        "，拜託",
        "～",
        "，感謝您",
        "，在線等",
        "，多謝",
    ),
    "zh-Hans": (
        "",
        "",
        "",
        "，谢谢",
        "，麻烦了",
        "，急！",
        "！！",
        "，拜托",
        "～",
        "，感谢",
        "，在线等",
        "，多谢",
    ),
    "en": (
        "",
        "",
        "",
        " thanks",
        " thank you",
        " please help",
        "!!",
        " asap",
        " ...",
        " Thanks a lot",
        " cheers",
        " tia",
    ),
}
_NUMBERS = {
    "zh-Hant": "（訂單 {0}）",
    "zh-Hans": "（订单号 {0}）",
    "en": " (order {0})",
}
_ANSWERS = {
    "zh-Hant": "您好，關於您的問題，請到「會員中心」查看說明；若還需要協助，請告訴我們訂單編號。",
    "zh-Hans": "您好，关于您的问题，请到“会员中心”查看说明；如需帮助，请告诉我们订单号。",
    "en": "Hello, you will find this explained in your member area; if you need more help, "
    "send us your order number.",
}
_SYLLABLES = ("ka", "lo", "mi", "ren", "to", "su", "vel", "dra", "qui", "zan", "pe", "hor")


def load(*, scale: int, progress: Callable[[int, int], None]) -> dict[str, int]:
    """Add the chats of ``scale`` users that are not there yet; how many rows of each kind.

    Raises :class:`SampleRefused` where there are messages that are not from here, and
    ``ValueError`` for a scale below 1.
    """
    if scale < 1:
        raise ValueError(f"scale is {scale}; it must be at least 1 user")
    with transaction() as cursor:
        cursor.execute("LOCK TABLE analytics.chat_messages IN SHARE ROW EXCLUSIVE MODE")
        row = cursor.execute(
            "SELECT count(*) AS others FROM analytics.chat_messages"
            " WHERE external_id IS NULL OR NOT starts_with(external_id, %s)",
            [PREFIX],
        ).fetchone()
        if row and row["others"]:
            raise SampleRefused(
                f"there are {row['others']} messages of its own; sample rows go into an empty "
                "table. Nothing was changed."
            )
        cursor.execute(
            "CREATE TEMPORARY TABLE incoming (external_id text, chat_id text, role text,"
            " content text, created_at timestamptz) ON COMMIT DROP"
        )
        now = datetime.now(UTC)
        with cursor.copy("COPY incoming FROM STDIN") as copy:
            for number, message in enumerate(messages(scale, now)):
                copy.write_row(message)
                if number % CHUNK == 0:
                    progress(min(scale, number // (2 * ASKED)), scale)
        cursor.execute(
            "INSERT INTO analytics.chat_messages (external_id, chat_id, role, content, created_at)"
            " SELECT * FROM incoming ON CONFLICT (external_id) DO NOTHING"
        )
        added = cursor.rowcount
    return {"chat_messages": added}


def messages(users: int, now: datetime) -> Iterator[tuple[str, str, str, str, datetime]]:
    """The rows of so many users' chats: id, chat, role, content, time."""
    for user in range(users):
        # By the user's number, so that more users add to the same ones.
        chance = random.Random(f"{SEED}/{user}")
        for turn in range(ASKED):
            name = f"{PREFIX}{user}-{turn}"
            language, content, back = _asked(chance)
            asked = now - timedelta(days=back)
            yield f"{name}-q", f"{PREFIX}{user}", "user", content, asked
            answered = asked + timedelta(seconds=20)
            yield f"{name}-a", f"{PREFIX}{user}", "assistant", _ANSWERS[language], answered


def _asked(chance: random.Random) -> tuple[str, str, float]:
    """A message: its language, what it says, and how many days ago."""
    if chance.randrange(100) < CHATTER_SHARE:
        return "en", _chatter(chance), chance.uniform(0.01, DAYS)
    intents = _intents()
    # Few questions are asked by many, many by few.
    place = min(int(chance.paretovariate(0.9)) - 1, len(intents) * 4) % len(intents)
    question = chance.choice(intents[place])
    text = chance.choice(_GREETINGS[question.language]) + question.text
    if chance.random() < 0.25:
        text += _NUMBERS[question.language].format(chance.randrange(10_000, 99_999))
    text += chance.choice(_CLOSINGS[question.language])
    return question.language, text, _days_ago(place, chance)


def _days_ago(place: int, chance: random.Random) -> float:
    share = chance.random()
    if place % 5 == 1:  # grows hot
        share = share**2.5
    elif place % 5 == 3:  # fades
        share = 1 - (1 - share) ** 2
    return 0.01 + share * (DAYS - 0.01)


def _chatter(chance: random.Random) -> str:
    """Words of no language, as a cat on the keyboard writes them."""
    return " ".join(
        "".join(chance.choice(_SYLLABLES) for _ in range(chance.randrange(1, 4)))
        for _ in range(chance.randrange(2, 6))
    )


@cache
def _intents() -> tuple[tuple[Question, ...], ...]:
    found: dict[str, list[Question]] = {}
    for question in questions():
        found.setdefault(question.intent, []).append(question)
    return tuple(tuple(each) for each in found.values())
