"""Logging in, and the first screen."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import expect
from tests.browser.conftest import log_in
from tests.harbour import OPERATOR

# The first test waits for a whole suite to come up.
pytestmark = pytest.mark.timeout(400)


def test_nobody_sees_anything_without_logging_in(visit, suite):
    page = visit(None)
    for path in ("/", "/part/overview", "/data/queues"):
        assert httpx.get(suite.address + path).status_code == 303
    page.goto("/?x=1")
    expect(page).to_have_url(re.compile(r"/login\?next=%2F%3Fx%3D1$"))
    log_in(page, "operator", "wrong-password")
    expect(page.get_by_role("alert")).to_contain_text("do not belong together")
    log_in(page, "operator", OPERATOR)
    expect(page.get_by_role("heading", name="What is stuck")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(re.compile("/login$"))
    page.goto("/")
    expect(page).to_have_url(re.compile("/login"))


def test_the_cookies_are_out_of_reach_and_a_login_leads_nowhere_else(visit):
    page = visit(None)
    page.goto("/login?next=https://example.org/")
    page.locator("[name=name]").fill("operator")
    page.locator("[name=password]").fill(OPERATOR)
    page.locator(".login button").click()
    expect(page.get_by_role("heading", name="What is stuck")).to_be_visible()
    [cookie] = [c for c in page.context.cookies() if c["name"] == "ironbeat_session"]
    assert cookie["httpOnly"] and cookie["sameSite"] == "Lax"
    assert "ironbeat_session" not in page.evaluate("document.cookie")


def test_too_many_wrong_passwords_are_refused_for_a_while(suite):
    with httpx.Client(base_url=suite.address) as http:
        codes = []
        for _ in range(7):
            token = re.search(r'name="token" value="([^"]+)"', http.get("/login").text)[1]
            form = {"token": token, "name": "mallory", "password": "guess", "next": "/"}
            codes.append(http.post("/login", data=form).status_code)
        assert codes == [401] * 5 + [429] * 2
    # Everybody else still gets in, from the same address, too.
    suite.sql("DELETE FROM ironbeat.login_failures")


def test_a_login_from_another_site_is_refused(suite):
    with httpx.Client(base_url=suite.address) as http:
        token = re.search(r'name="token" value="([^"]+)"', http.get("/login").text)[1]
        form = {"token": token, "name": "operator", "password": OPERATOR}
        foreign = http.post("/login", data=form, headers={"Sec-Fetch-Site": "cross-site"})
        assert foreign.status_code == 403
        assert http.post("/login", data=form | {"token": "made-up"}).status_code == 403
        assert "ironbeat_session" not in http.cookies


def test_the_first_screen_tells_what_is_stuck_since_when_and_why(visit, suite, picture):
    suite.submit("harbour.count", queue="forgotten")
    page = visit("viewer")
    stuck = page.locator(".stuck li", has_text="forgotten")
    expect(stuck).to_contain_text(re.compile(r"\d+ wait, and no worker consumes from it"))
    # "just now" at first: the page goes on by itself.
    expect(stuck).to_contain_text(re.compile(r"since .* ago"), timeout=20_000)
    # On the first screen, without scrolling.
    assert stuck.bounding_box()["y"] < 600
    limits = page.locator(".limit")
    assert limits.count() >= 14
    worker = page.locator("tr", has_text="worker").filter(has_text="MB")
    expect(worker.first).to_be_visible()
    broken = limits.evaluate_all("all => all.map(one => one.className)")
    assert broken == sorted(broken, key=lambda name: "broken" not in name), "broken ones first"
    picture(page, "overview")


def test_it_stays_live(visit, suite):
    page = visit()
    before = page.locator(".stuck li", has_text="forgotten").inner_text()
    number = int(re.search(r"(\d+) wait", before)[1]) if "wait" in before else 0
    suite.submit("harbour.count", queue="forgotten")
    expect(page.locator(".stuck li", has_text="forgotten")).to_contain_text(
        f"{number + 1} wait", timeout=20_000
    )


def test_queues_over_time_are_drawn(visit, suite):
    page = visit()
    expect(page.locator(".plot canvas").first).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="7 days").click()
    expect(page.get_by_role("button", name="7 days")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".plot canvas").first).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_use_it(visit, accessible, picture, theme):
    page = visit(None, theme=theme)
    page.goto("/login")
    accessible(page)
    picture(page, f"login-{theme}")
    log_in(page, "operator", OPERATOR)
    expect(page.locator("#live")).to_be_visible()
    page.wait_for_timeout(500)
    accessible(page)
    picture(page, f"overview-{theme}")
    toggle = page.get_by_role("button", name="Light or dark")
    toggle.click()
    other = "dark" if theme == "light" else "light"
    expect(page.locator("html")).to_have_attribute("data-theme", other)
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", other)


def test_it_fits_a_phone(visit, picture):
    page = visit(width=390, height=844)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390, f"{wide} px wide"
    picture(page, "overview-phone")


def test_the_keyboard_is_enough(visit):
    page = visit()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.getAttribute('href')")
    assert focused == "/schedules"
