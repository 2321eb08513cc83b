"""Everything that can be done on the pages, done in a browser; each change is in the audit."""

from __future__ import annotations

import re
import time

import httpx
import pytest
from playwright.sync_api import Page, expect
from tests.harbour import TOKEN
from tests.processes import wait_for

# The first test waits for a whole suite to come up.
pytestmark = pytest.mark.timeout(400)


def sure(page: Page) -> None:
    """Answer the question before a change."""
    dialog = page.locator("dialog[open]")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="Yes, do it").click()
    page.wait_for_load_state("load")


def state_of(suite, id: str) -> str:
    found = httpx.get(
        f"{suite.address}/api/runs/{id}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20
    )
    return found.json()["state"]


def audit(suite, action: str) -> tuple:
    [row, *_] = suite.sql(
        "SELECT who, via, subject, outcome FROM ironbeat.audit WHERE action = %s"
        " ORDER BY id DESC LIMIT 1",
        action,
    )
    return row


def test_a_question_that_is_not_confirmed_changes_nothing(visit, suite):
    page = visit()
    page.goto("/schedules/nightly-unload")
    page.get_by_role("button", name="Pause").click()
    page.locator("dialog[open]").get_by_role("button", name="Cancel").click()
    page.reload()
    expect(page.locator("h1 .state")).to_have_text("active")


def test_pause_and_resume(visit, suite):
    page = visit()
    page.goto("/schedules?q=nightly")
    page.locator("tr", has_text="nightly-unload").get_by_role("button", name="Pause").click()
    sure(page)
    row = page.locator("tr", has_text="nightly-unload")
    expect(row).to_contain_text("paused")
    assert audit(suite, "schedule.pause") == ("operator", "dashboard", "nightly-unload", "done")
    row.get_by_role("button", name="Resume").click()
    sure(page)
    expect(page.locator("tr", has_text="nightly-unload")).not_to_contain_text("paused")
    assert audit(suite, "schedule.resume")[3] == "done"


def test_run_now_and_follow_its_progress_live(visit, suite, picture):
    page = visit()
    page.goto("/schedules/nightly-unload")
    page.get_by_role("button", name="Run now").click()
    sure(page)
    expect(page).to_have_url(re.compile(r"/runs/[0-9a-f-]{36}"))
    # The page is not loaded again meanwhile: the server tells of the steps.
    page.evaluate("window.sameDocument = true")
    expect(page.locator("[data-live=step]")).to_contain_text(re.compile(r"crate \d of 4"))
    assert page.evaluate("window.sameDocument") is True
    picture(page, "run-live")
    expect(page.locator("h1 .state")).to_have_text("succeeded", timeout=30_000)
    who, via, subject, outcome = audit(suite, "schedule.run")
    assert (who, via, subject, outcome) == ("operator", "dashboard", "nightly-unload", "done")


def test_edit_with_a_mistake_and_then_right_and_undo(visit, suite, picture):
    page = visit()
    page.goto("/schedules/nightly-unload/edit")
    page.locator("[name=expression]").fill("61 3 * * *")
    page.get_by_role("button", name="Save").click()
    sure(page)
    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed")
    expect(page.locator("[name=expression]")).to_have_value("61 3 * * *")
    picture(page, "schedule-edit")
    page.locator("[name=expression]").fill("45 4 * * *")
    page.locator("[name=kwargs]").fill('{"crates": 2}')
    page.get_by_role("button", name="Save").click()
    sure(page)
    expect(page.locator("main")).to_contain_text("every day at 04:45")
    expect(page.locator("main")).to_contain_text("Changes")
    [(expression, kwargs)] = suite.sql(
        "SELECT expression, kwargs FROM ironbeat.schedules WHERE name = 'nightly-unload'"
    )
    assert (expression, kwargs) == ("45 4 * * *", {"crates": 2})
    assert audit(suite, "schedule.edit")[3] == "done"
    page.get_by_role("button", name="Undo edits").click()
    sure(page)
    expect(page.locator("main")).to_contain_text("every day at 03:30")


def tab_to(page: Page, text: str, most: int = 60) -> None:
    """Press Tab until what is focused says ``text``, as somebody without a mouse does."""
    for _ in range(most):
        if page.evaluate(FOCUSED).startswith(text):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{text!r} cannot be reached by Tab")


# What is focused, by its label or its text.
FOCUSED = """() => {
    const one = document.activeElement;
    return (one.labels && one.labels[0] ? one.labels[0].innerText : one.innerText || "").trim();
}"""


def test_a_schedule_is_made_by_keyboard_alone(visit, suite, picture, accessible):
    page = visit()
    page.goto("/schedules")
    tab_to(page, "New schedule")
    page.keyboard.press("Enter")
    # The first field has the focus already.
    expect(page.locator("#f-name")).to_be_focused()
    page.keyboard.type("tide-table")
    tab_to(page, "Kind")
    page.keyboard.type("cron")
    tab_to(page, "When")
    page.keyboard.type("15 6 * * 7")
    # Its next fires are told while one types, without leaving the page.
    expect(page.locator(".preview [data-words]")).to_contain_text("06:15")
    expect(page.locator(".preview li")).to_have_count(5)
    tab_to(page, "Task")
    page.keyboard.type("harbour.cuont")
    tab_to(page, "Named arguments")
    page.keyboard.press("Control+A")
    page.keyboard.type('{"ships": 5}')
    accessible(page)
    picture(page, "schedule-new")
    tab_to(page, "Make it")
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_contain_text("Make this schedule?")
    tab_to(page, "Yes, do it")
    page.keyboard.press("Enter")
    # The mistake is said at its field, which has the focus; all else is as it was typed.
    expect(page.get_by_role("alert")).to_contain_text("Nothing was made:")
    expect(page.locator("#w-task")).to_contain_text("did you mean 'harbour.count'")
    expect(page.locator("#f-task")).to_be_focused()
    expect(page.locator("#f-task")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("[name=name]")).to_have_value("tide-table")
    accessible(page)
    picture(page, "schedule-new-mistake")
    assert suite.sql("SELECT count(*) FROM ironbeat.schedules WHERE name = 'tide-table'") == [(0,)]
    page.keyboard.press("Control+A")
    page.keyboard.type("harbour.count")
    page.keyboard.press("Escape")
    tab_to(page, "Make it")
    page.keyboard.press("Enter")
    tab_to(page, "Yes, do it")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("It is made")
    assert audit(suite, "schedule.add") == ("operator", "dashboard", "tide-table", "done")
    [made] = suite.sql(
        "SELECT kind, expression, timezone, task, kwargs, enabled FROM ironbeat.schedules"
        " WHERE name = 'tide-table'"
    )
    assert made == ("cron", "15 6 * * 7", "Asia/Taipei", "harbour.count", {"ships": 5}, True)
    wait_for(
        lambda: (
            suite.sql(
                "SELECT next_fire_at IS NOT NULL FROM ironbeat.schedules WHERE name = 'tide-table'"
            )
            == [(True,)]
        )
    )
    # And removed again, by keyboard, too.
    page.reload()
    tab_to(page, "Remove")
    page.keyboard.press("Enter")
    tab_to(page, "Yes, do it")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("It is removed; its runs stay.")
    assert audit(suite, "schedule.remove") == ("operator", "dashboard", "tide-table", "done")


@pytest.mark.parametrize(("locale", "said"), [("zh-TW", "每天 03:30"), ("zh-CN", "每天 03:30")])
def test_the_next_fires_are_told_in_the_reader_s_language(visit, accessible, picture, locale, said):
    page = visit(locale=locale, theme="dark")
    page.goto("/schedules-new")
    page.locator("[name=expression]").fill("30 3 * * *")
    expect(page.locator(".preview [data-words]")).to_have_text(said)
    page.locator("[name=expression]").fill("30 3 * *")
    expect(page.locator(".preview .wrong")).to_contain_text("cron")
    expect(page.locator(".preview .wrong")).not_to_contain_text("expression")
    accessible(page)
    picture(page, f"schedule-new-{locale}")


def test_backfill_shows_the_slots_before_it_makes_their_runs(visit, suite, picture):
    page = visit()
    page.goto("/schedules/nightly-unload")
    page.locator("[name=since]").fill("2026-11-01T00:00:00")
    page.locator("[name=until]").fill("2026-11-03T12:00:00")
    page.get_by_role("button", name="Show the slots").click()
    expect(page.locator("main")).to_contain_text("3 slots have no run, 0 have had theirs")
    picture(page, "backfill")
    page.get_by_role("button", name="Make 3 runs").click()
    expect(page.locator("#notice")).to_contain_text("3 runs were made")
    count = "SELECT count(*) FROM ironbeat.fires f JOIN ironbeat.schedules s ON s.id = f.schedule_id WHERE s.name = 'nightly-unload' AND f.scheduled_for < '2026-11-04'"  # noqa: E501
    assert suite.sql(count) == [(3,)]
    assert audit(suite, "schedule.backfill")[2:] == ("nightly-unload", "done")


def test_the_next_24_hours(visit, picture):
    page = visit()
    page.goto("/schedules")
    page.get_by_role("link", name="Next 24 hours").click()
    line = page.locator("svg.timeline")
    expect(line).to_be_visible()
    assert line.locator(".tick").count() >= 24
    expect(line.locator("g", has_text="count-ships").locator(".dense")).to_be_visible()
    picture(page, "timeline")


def test_a_failed_run_shows_its_traceback_and_is_retried(visit, suite, picture):
    id = suite.submit("harbour.sink", kwargs={"why": "a whale"})
    wait_for(lambda: state_of(suite, id) == "failed", seconds=40)
    page = visit()
    page.goto("/runs?q=whale")
    page.locator("tbody a").first.click()
    expect(page.locator("main")).to_contain_text("RuntimeError: a whale was in the way")
    expect(page.locator("main")).to_contain_text("Traceback (most recent call last)")
    picture(page, "run-failed")
    page.get_by_role("button", name="Retry").click()
    sure(page)
    expect(page.locator("#notice")).to_contain_text("made just now")
    assert id not in page.url
    assert audit(suite, "run.retry") == ("operator", "dashboard", id, "done")


def test_a_waiting_run_is_cancelled(visit, suite):
    id = suite.submit("harbour.count", queue="forgotten")
    page = visit()
    page.goto(f"/runs/{id}")
    page.get_by_role("button", name="Cancel run").click()
    sure(page)
    expect(page.locator("h1 .state")).to_have_text("cancelled")
    assert state_of(suite, id) == "cancelled"
    assert audit(suite, "run.cancel")[2] == id


def test_secrets_in_arguments_are_hidden(visit, suite):
    id = suite.submit("harbour.count", kwargs={"password": "open-sesame-word"})
    page = visit()
    page.goto(f"/runs/{id}")
    expect(page.locator("main")).to_contain_text("password")
    expect(page.locator("main")).not_to_contain_text("open-sesame-word")


def test_what_ran_between_two_times(visit, suite, picture):
    id = suite.submit("harbour.count")
    wait_for(lambda: state_of(suite, id) == "succeeded", seconds=40)
    zone_now = suite.sql("SELECT to_char(now() AT TIME ZONE 'Asia/Taipei', 'YYYY-MM-DD')")[0][0]
    page = visit()
    page.goto("/runs")
    page.get_by_role("link", name="Between two times").click()
    expect(page.locator("h1")).to_contain_text(re.compile("03:00:00 and .*04:00:00"))
    page.locator("[name=since]").fill(f"{zone_now}T00:00:00")
    page.locator("[name=until]").fill(f"{zone_now}T23:59:59")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr", has_text="harbour.count").first).to_be_visible()
    picture(page, "between")


def test_dead_letters_are_replayed_and_dropped(visit, suite, picture):
    ids = [suite.submit("harbour.explode") for _ in range(2)]
    deadline = time.monotonic() + 90
    while not all(state_of(suite, id) == "dead" for id in ids):
        # What kills its worker is started again, as supervisord would.
        if suite.programs["worker"].process.poll() is not None:
            suite.run("worker")
        assert time.monotonic() < deadline, [state_of(suite, id) for id in ids]
        time.sleep(0.5)
    page = visit()
    page.goto("/dead")
    rows = page.locator("tbody tr", has_text="harbour.explode")
    expect(rows).to_have_count(2)
    picture(page, "dead-letters")
    rows.first.get_by_role("button", name="Drop").click()
    sure(page)
    expect(page.locator("#notice")).to_contain_text("off the list")
    expect(page.locator("tbody tr", has_text="harbour.explode")).to_have_count(1)
    page.locator("tbody tr", has_text="harbour.explode").get_by_role(
        "button", name="Replay"
    ).click()
    sure(page)
    expect(page).to_have_url(re.compile("/runs/"))
    assert {audit(suite, "dead.drop")[2], audit(suite, "dead.replay")[2]} == set(ids)
    page.goto("/dead?handled=true")
    expect(page.locator("tr.done")).to_have_count(2)
    # It kills its worker again; the next tests need one.
    wait_for(lambda: suite.programs["worker"].process.poll() is not None, seconds=60)
    suite.run("worker")


def test_the_ratio_is_set(visit, suite, picture):
    page = visit()
    page.goto("/workloads")
    expect(page.locator("main")).to_contain_text("0.0 % go to Celery")
    page.locator("input[type=range]").evaluate(
        "one => { one.value = '0.25'; one.dispatchEvent(new Event('input', {bubbles: true})) }"
    )
    expect(page.locator("output")).to_have_text("25 %")
    page.get_by_role("button", name="Set the ratio").click()
    sure(page)
    expect(page.locator("main")).to_contain_text("25.0 % go to Celery")
    assert audit(suite, "ratio.set") == ("operator", "dashboard", "harbour", "done")
    picture(page, "workloads")


def test_a_workload_s_own_page_opens_with_the_same_login(visit, suite):
    page = visit("viewer")
    page.goto("/workloads")
    page.get_by_role("link", name="Its own page").click()
    expect(page.locator("h1")).to_have_text("The harbour's own page")
    assert httpx.get(f"{suite.address}/api/harbour/page").status_code == 401


def test_a_viewer_sees_all_and_changes_nothing(visit, suite):
    page = visit("viewer")
    for path in ("/schedules", "/schedules/nightly-unload", "/runs", "/dead", "/workloads"):
        page.goto(path)
        assert page.locator("main form[method=post]").count() == 0, path
    assert page.goto("/schedules-new").status == 403
    # Not even with a request of their own making.
    [cookie] = [c for c in page.context.cookies() if c["name"] == "ironbeat_session"]
    csrf = page.locator("header [name=csrf]").get_attribute("value")
    with httpx.Client(base_url=suite.address, cookies={cookie["name"]: cookie["value"]}) as http:
        for path in ("/schedules/nightly-unload/pause", "/workloads/harbour/ratio"):
            assert http.post(path, data={"csrf": csrf, "ratio": "1"}).status_code == 403
        for path in ("/api/schedules/nightly-unload/pause",):
            assert http.post(path, headers={"x-csrf-token": csrf}).status_code == 403
        assert http.get("/api/status").status_code == 200
    assert suite.sql("SELECT enabled FROM ironbeat.schedules WHERE name = 'nightly-unload'") == [
        (True,)
    ]


def test_a_forged_form_changes_nothing(visit, suite):
    page = visit()
    [cookie] = [c for c in page.context.cookies() if c["name"] == "ironbeat_session"]
    csrf = page.locator("header [name=csrf]").get_attribute("value")
    url = "/schedules/nightly-unload/pause"
    with httpx.Client(base_url=suite.address, cookies={cookie["name"]: cookie["value"]}) as http:
        assert http.post(url).status_code == 403
        assert http.post(url, data={"csrf": "guessed"}).status_code == 403
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert http.post(url, data={"csrf": csrf}, headers=foreign).status_code == 403
        assert http.post("/api/schedules/nightly-unload/pause").status_code == 401
    assert suite.sql("SELECT enabled FROM ironbeat.schedules WHERE name = 'nightly-unload'") == [
        (True,)
    ]


def test_the_audit_has_pages_the_api_and_commands(visit, suite, picture):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for verb in ("pause", "resume"):
        url = f"{suite.address}/api/schedules/nightly-unload/{verb}"
        assert httpx.post(url, headers=headers, timeout=20).status_code == 200
    gone = f"{suite.address}/api/schedules/no-such/pause"
    assert httpx.post(gone, headers=headers, timeout=20).status_code == 404
    suite.ironbeat("schedule", "pause", "nightly-unload")
    suite.ironbeat("schedule", "resume", "nightly-unload")
    wait_for(lambda: audit(suite, "schedule.pause")[1] == "cli")
    page = visit("viewer")
    page.get_by_role("link", name="Audit").click()
    rows = page.locator("tbody tr")
    expect(rows.filter(has_text="token").filter(has_text="schedule.resume").first).to_be_visible()
    expect(rows.filter(has_text="no-such").first).to_contain_text("ScheduleNotFound")
    expect(rows.filter(has_text="cli").filter(has_text="schedule.resume").first).to_be_visible()
    picture(page, "audit")
    told = suite.ironbeat("audit", "--action", "schedule.", "--json")
    assert '"via": "cli"' in told and '"via": "api"' in told


def test_people_are_made_on_the_command_line_and_log_in(visit, suite):
    suite.ironbeat("users", "add", "ann", "--role", "operator", stdin="a-password-of-anns\n")
    assert "ann" in suite.ironbeat("users", "list")
    from tests.browser.conftest import log_in

    page = visit(None)
    log_in(page, "ann", "a-password-of-anns")
    expect(page.locator("header")).to_contain_text("ann · operator")
    suite.ironbeat("users", "remove", "ann")
    page.goto("/runs")
    expect(page).to_have_url(re.compile("/login"))
    assert "a-password-of-anns" not in str(suite.sql("SELECT * FROM ironbeat.audit"))


PAGES = (
    "/schedules",
    "/schedules?view=timeline",
    "/schedules/count-ships",
    "/schedules/count-ships/edit",
    "/schedules-new",
    "/runs",
    "/between",
    "/dead?handled=true",
    "/queues/forgotten",
    "/workloads",
    "/audit",
    "/runs/no-such-run",
)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_accessible(visit, suite, accessible, picture, theme):
    id = suite.submit("harbour.sink")
    wait_for(lambda: state_of(suite, id) == "failed", seconds=40)
    page = visit(theme=theme)
    for path in (*PAGES, f"/runs/{id}"):
        page.goto(path)
        accessible(page)
        if theme == "dark":
            picture(page, f"dark{path.split('?')[0].replace('/', '-')[:30]}")


@pytest.mark.parametrize("path", PAGES)
def test_every_page_fits_a_phone(visit, path):
    page = visit(width=390, height=844)
    page.goto(path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
