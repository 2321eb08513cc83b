"""How soon a page is there in a real Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from playwright.sync_api import Browser, sync_playwright

# A machine without a network is no other one: nothing is asked but what the page asks.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
_TIMES = """() => {
    const [page] = performance.getEntriesByType("navigation");
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    return {painted: paint ? paint.startTime : null, loaded: page.loadEventEnd};
}"""


@dataclass(frozen=True)
class Seen:
    """Milliseconds from the request until the first content was painted, and all was loaded."""

    painted: float
    loaded: float


def path() -> str | None:
    """The Chromium of this machine, if it has one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def visits(
    url: str, cookies: Sequence[tuple[str, str]], count: int, before: str | None = None
) -> list[Seen]:
    """Open a page so many times, each in a browser that knows nothing but the page ``before``."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path(), args=list(ARGUMENTS))
        try:
            return [_visit(browser, url, cookies, before) for _ in range(count)]
        finally:
            browser.close()


def _visit(
    browser: Browser, url: str, cookies: Sequence[tuple[str, str]], before: str | None
) -> Seen:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        if before is not None:
            page.goto(before, wait_until="load")
        context.add_cookies([{"name": name, "value": value, "url": url} for name, value in cookies])
        page.goto(url, wait_until="load")
        while (times := page.evaluate(_TIMES))["painted"] is None:
            page.wait_for_timeout(20)
        return Seen(times["painted"], times["loaded"])
    finally:
        context.close()
