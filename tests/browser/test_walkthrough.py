"""A newcomer's three questions, each in at most two clicks after the login: docs/dashboard.md."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Locator, expect
from tests.harbour import TOKEN
from tests.processes import wait_for

# The first test waits for a whole suite to come up.
pytestmark = pytest.mark.timeout(400)


class Newcomer:
    """Somebody who clicks, and is counted."""

    def __init__(self, page):
        self.page = page
        self.clicks = 0

    def click(self, what: Locator) -> None:
        self.clicks += 1
        what.click()
        self.page.wait_for_load_state("load")


@pytest.fixture
def newcomer(visit):
    return Newcomer(visit("viewer"))


def test_what_failed_tonight(newcomer, suite):
    id = suite.submit("harbour.sink", kwargs={"why": "a lighthouse"})
    headers = {"Authorization": f"Bearer {TOKEN}"}
    wait_for(
        lambda: (
            httpx.get(f"{suite.address}/api/runs/{id}", headers=headers).json()["state"] == "failed"
        ),
        seconds=40,
    )
    page = newcomer.page
    page.reload()
    failed = page.locator("section", has=page.get_by_role("heading", name="Failed in the last"))
    # What and why stand on the first screen, without any click.
    expect(failed).to_contain_text("a lighthouse was in the way")
    newcomer.click(failed.get_by_role("link", name="all", exact=True))
    row = page.locator("tbody tr", has_text="a lighthouse")
    expect(row.first).to_be_visible()
    newcomer.click(row.first.get_by_role("link").first)
    expect(page.locator("main")).to_contain_text("Traceback (most recent call last)")
    assert newcomer.clicks <= 2


def test_why_is_the_queue_long(newcomer, suite):
    suite.submit("harbour.count", queue="forgotten")
    page = newcomer.page
    expect(page.locator(".stuck")).to_contain_text("no worker consumes from it", timeout=20_000)
    newcomer.click(page.locator(".stuck").get_by_role("link", name="forgotten"))
    expect(page.locator("main")).to_contain_text("Why it is as long as it is")
    expect(page.locator(".stuck li")).to_contain_text("no worker consumes from it")
    expect(page.locator("main")).to_contain_text(
        re.compile(r"15 minutes \d+ came and \d+ were done")
    )
    assert newcomer.clicks <= 2


def test_when_does_a_schedule_run_next(newcomer):
    page = newcomer.page
    newcomer.click(page.get_by_role("link", name="Schedules").first)
    row = page.locator("tbody tr", has_text="nightly-unload")
    expect(row).to_contain_text(re.compile(r"in \d+ h"))
    newcomer.click(row.get_by_role("link", name="nightly-unload"))
    expect(page.locator("[data-next]")).to_contain_text(re.compile(r"^in \d+ "))
    assert newcomer.clicks <= 2


@pytest.mark.parametrize(
    ("locale", "stuck", "words", "traditional"),
    [("zh-TW", "卡住的事", "每天 03:30", True), ("zh-CN", "卡住的事", "每天 03:30", False)],
)
def test_in_chinese(visit, picture, locale, stuck, words, traditional):
    page = visit("viewer", locale=locale)
    expect(page.locator("html")).to_have_attribute("lang", locale)
    expect(page.locator("#live")).to_contain_text(stuck)
    picture(page, f"overview-{locale}")
    page.goto("/schedules")
    expect(page.locator("tr", has_text="nightly-unload")).to_contain_text(words)
    expect(page.locator("h1")).to_have_text("排程" if traditional else "调度")
    picture(page, f"schedules-{locale}")
    page.get_by_role("link", name="English").click()
    expect(page.locator("h1")).to_have_text("Schedules")
