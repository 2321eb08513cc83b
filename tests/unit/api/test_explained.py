"""What is wrong with a schedule is told in the reader's language, whatever it is."""

from __future__ import annotations

import re

import pytest

from ironbeat.api.dashboard import explained
from ironbeat.api.dashboard.explained import SENTENCES, explain
from ironbeat.api.dashboard.language import Translator
from ironbeat.schedules.definition import DefinitionError, from_input
from ironbeat.schedules.store import ScheduleExists


def charge(customer, amount=1, *, note=""):
    """A task."""


TASKS = {"billing.charge": charge}
GOOD = {"name": "n", "task": "billing.charge", "cron": "0 3 * * *", "args": "[1]"}
UNTIMED = {name: value for name, value in GOOD.items() if name != "cron"}

# One that each sentence answers, in their order.
WRONG = [
    GOOD | {"catch_up": "window"},
    GOOD | {"name": ""},
    GOOD | {"name": "x" * 300},
    GOOD | {"name": "a\tb"},
    None,
    GOOD | {"task": "billing.chrage"},
    GOOD | {"queue": "dokcs"},
    GOOD | {"queue": "zzz"},
    GOOD | {"args": "[]"},
    GOOD | {"args": "[1, 2, 3]"},
    GOOD | {"kwargs": '{"no": 1}'},
    GOOD | {"kwargs": '{"customer": 1}'},
    GOOD | {"args": "[1"},
    GOOD | {"args": "1"},
    GOOD | {"kwargs": "[]"},
    GOOD | {"args": [1] * 200_000},
    GOOD | {"priority": "12"},
    GOOD | {"priority": "high"},
    GOOD | {"starts_at": "2026-05-01", "ends_at": "2026-04-01"},
    UNTIMED | {"once": "2026-05-01T00:00", "ends_at": "2026-04-01"},
    UNTIMED | {"every": "-5s"},
    UNTIMED | {"every": "soon"},
    UNTIMED | {"every": "99999d"},
    UNTIMED | {"every": "10ms"},
    GOOD | {"cron": "3"},
    GOOD | {"cron": "0 3 * *"},
    GOOD | {"cron": "0 0 31 2 *"},
    GOOD | {"cron": "0 0 * * 1#9"},
    GOOD | {"cron": "x 3 * * *"},
    GOOD | {"cron": "0 3 40 * *"},
    GOOD | {"cron": "*/0 3 * * *"},
    GOOD | {"cron": "9-5 3 * * *"},
    GOOD | {"cron": "@often"},
    UNTIMED | {"solar": "moonrise@25,121"},
    UNTIMED | {"solar": "sunset"},
    UNTIMED | {"solar": "sunset@99,121"},
    UNTIMED | {"solar": "sunset@25,999"},
    UNTIMED | {"solar": "dusk_civil@90,0"},
    UNTIMED | {"once": "tomorrow"},
    UNTIMED | {"once": "1800-01-01"},
    GOOD | {"timezone": "Mars/Olympus"},
]


def problems(values) -> dict[str, str]:
    if values is None:
        return {"name": str(ScheduleExists("night/ly"))}
    with pytest.raises(DefinitionError) as refused:
        from_input(values, timezone="Asia/Taipei").check_task(TASKS, {"docks", "default"})
    return refused.value.problems


@pytest.mark.parametrize("values", WRONG, ids=lambda values: str(values)[-40:])
@pytest.mark.parametrize("language", ["zh-TW", "zh-CN"])
def test_what_is_wrong_is_told_in_chinese_with_what_was_typed(values, language):
    for problem in problems(values).values():
        told = explain(problem, Translator(language))
        assert told != problem and re.search("[一-鿿]", told), problem
        assert "{" not in re.sub(r"\{\"key\": 1\}|\{'no': 1\}", "", told)
        # What a person typed, or may type instead, is as it was.
        kept = re.findall(r"'[^'（]*'", problem)
        assert all(each in told for each in kept if "@latitude" not in each), (problem, told)


def test_no_sentence_stands_there_in_vain():
    every = [problem for values in WRONG for problem in problems(values).values()]
    inner = [part for each in every for part in each.split("; ")]
    used = {
        next((s for s, pattern in explained._patterns() if pattern.fullmatch(told)), None)
        for told in (*every, *inner)
    }
    assert set(SENTENCES) - used == set()


def test_each_field_of_a_cron_expression_has_its_name():
    for number, field in enumerate(explained.FIELDS):
        parts = ["0", "0", "0", "1", "1", "1"]
        parts[number] = "77"
        [problem] = problems(GOOD | {"cron": " ".join(parts)}).values()
        assert problem.startswith(f"{field} 77 is out of range")
        assert not re.search("[a-z]{3}", explain(problem, Translator("zh-TW")))


def test_english_and_what_nobody_foresaw_stay_as_they_are():
    assert explain("is missing", Translator("en")) == "is missing"
    assert explain("the moon is full", Translator("zh-TW")) == "the moon is full"
    # At great length it is not looked at, whatever it says.
    long = "x" * 5000 + " is not a whole number"
    assert explain(long, Translator("zh-TW")) == long
