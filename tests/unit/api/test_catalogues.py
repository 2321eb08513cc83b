"""Every text of the dashboard is there in every language, and none is there in vain."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path

import pytest

import ironbeat.api.dashboard as dashboard
from ironbeat.api.audited import _THINGS
from ironbeat.api.dashboard import explained, overview, pages, runs
from ironbeat.api.dashboard.language import LANGUAGES, Translator
from ironbeat.api.problems import TITLES
from ironbeat.cli.audited import AUDITED
from ironbeat.runs.model import ENDED_STATES, LIVE_STATES
from ironbeat.watch.limits import Measured, judge_limits

FOLDER = Path(dashboard.__file__).parent
CALL = re.compile(r"""\b(?:t|say)\(\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)')""")
# Texts that a template or a module hands on by another name.
TOLD = re.compile(r"""(?:Problem\(\d+, |403, |401, |told = )"([A-Z][^"{}]*|Too many[^"]*)"\)?""")


def wanted() -> set[str]:
    found: set[str] = set()
    for path in (*FOLDER.rglob("*.html"), *FOLDER.glob("*.py")):
        for double, single in CALL.findall(path.read_text(encoding="utf-8")):
            found.add(double or single)
    for path in (*FOLDER.glob("*.py"), FOLDER.parent / "visitors.py"):
        found |= set(TOLD.findall(path.read_text(encoding="utf-8")))
    found |= {name for _, name in pages.SECTIONS}
    found |= set(overview.PERIODS.values()) | set(runs.PERIOD_NAMES.values())
    found |= {limit.title for limit in judge_limits(Measured())}
    found |= {str(state) for state in LIVE_STATES | ENDED_STATES} | set(runs.GROUPS)
    found |= {"active", "paused", "finished", "invalid", "healthy", "degraded", "unhealthy"}
    found |= {"viewer", "operator", "all", "on", "by name", "next to run first", "done"}
    found |= set(TITLES.values()) | {"unfinished"}
    found |= {change.action for change in AUDITED.values()} | {"schedule.restore", "ratio.set"}
    found |= {"login.begin", "login.end"}
    found |= {text for _, text in dashboard.formats._UNITS}
    found |= {*explained.SENTENCES, *explained.FIELDS}
    return {text for text in found if text != "ended"} | {"ended"}


def catalogue(language: str) -> dict[str, str]:
    return json.loads((FOLDER / "locales" / f"{language}.json").read_text(encoding="utf-8"))


CHINESE = [language for language in LANGUAGES if language != "en"]


@pytest.mark.parametrize("language", CHINESE)
def test_no_text_is_missing(language):
    assert not sorted(wanted() - catalogue(language).keys())


def test_the_languages_have_the_same_texts():
    one, other = (catalogue(language) for language in CHINESE)
    assert one.keys() == other.keys()


@pytest.mark.parametrize("language", CHINESE)
def test_every_figure_of_a_text_is_in_its_translation(language):
    def figures(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for text, said in catalogue(language).items():
        assert figures(text) == figures(said), text
        assert said.strip()


def test_the_two_scripts_are_not_mixed():
    # A few characters that only one of the two has.
    assert not re.search("[執佇這個務時間從後關點變狀態進]", "".join(catalogue("zh-CN").values()))
    assert not re.search("[执队这个务时间从后关点变状态进]", "".join(catalogue("zh-TW").values()))


def test_english_says_one_of_a_thing_in_the_singular():
    plural = re.compile(r"\{n\} (dead )?[a-z]+s\b|\{n\} wait")
    counted = {text for text in wanted() - {"{n} ms"} if plural.search(text)}
    assert catalogue("en").keys() == counted
    say = Translator("en")
    assert say("{n} runs were made.", n=1) == "One run was made."
    assert say("{n} runs were made.", n=2) == "2 runs were made."
    assert say("killed its worker {n} times", n=1) == "killed its worker once"
    for text in counted:
        assert "{" not in say(text, n=1, time="3 s", task="t", workers=2, since=1, until=2, taken=0)
    assert Translator("zh-TW")("{n} runs were made.", n=1) == catalogue("zh-TW")[
        "{n} runs were made."
    ].format(n=1)


def test_actions_of_the_api_have_names():
    for thing in _THINGS.values():
        assert any(key.startswith(f"{thing}.") for key in catalogue("zh-TW"))
