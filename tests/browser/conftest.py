"""A real Chromium before a real suite. Pictures of what it saw are kept in artifacts/browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.harbour import OPERATOR, VIEWER, Suite

pytest.importorskip("playwright.sync_api")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "artifacts" / "browser"
# Nothing but the pages under test may be fetched: no updates, no reports, no accounts.
OFFLINE = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
)
PASSWORDS = {"viewer": VIEWER, "operator": OPERATOR}


@pytest.fixture(scope="session")
def suite(postgres_server, redis_server, tmp_path_factory) -> Iterator[Suite]:
    """The suite that all tests look at; its database is the server's own."""
    redis_url = redis_server.url.rsplit("/", 1)[0]
    made = Suite(tmp_path_factory.mktemp("harbour"), postgres_server.url, redis_url)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium is installed; scripts/browser says how to get one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(OFFLINE))
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser, suite: Suite) -> Iterator[Callable[..., Page]]:
    """Open a browser of one's own: ``visit(role="operator", theme="dark", width=390)``.

    Whatever a page says on its console, or asks of another host, fails the test.
    """
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def open(
        role: str | None = "operator",
        *,
        theme: str = "light",
        width: int = 1280,
        height: int = 900,
        locale: str = "en",
    ) -> Page:
        context = chromium.new_context(
            base_url=suite.address,
            viewport={"width": width, "height": height},
            color_scheme=theme,
            locale=locale,
        )
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        page.on(
            "console",
            lambda told: (
                wrong.append(f"console: {told.text}")
                if told.type == "error" and "Failed to load resource" not in told.text
                else None
            ),
        )
        page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((suite.address, "data:", "blob:"))
                else wrong.append(f"asked for {asked.url}")
            ),
        )
        if role is not None:
            log_in(page, role, PASSWORDS[role])
        return page

    yield open
    for context in contexts:
        context.close()
    assert not wrong, wrong


def log_in(page: Page, name: str, password: str) -> None:
    page.goto("/login")
    page.locator("[name=name]").fill(name)
    page.locator("[name=password]").fill(password)
    page.locator(".login button").click()
    page.wait_for_load_state("load")


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """Keep a picture of the whole page under a name."""

    def take(page: Page, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{name}.png", full_page=True)

    return take


@pytest.fixture
def accessible() -> Callable[[Page], None]:
    """Fail on what axe finds serious or critical."""

    def check(page: Page) -> None:
        found = Axe().run(page).response["violations"]
        serious = [
            f"{each['id']} ({each['impact']}): {node['html'][:200]} {node['failureSummary']}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"][:3]
        ]
        assert not serious, "\n".join([page.url, *serious])

    return check
