"""The dashboard's forms that make a schedule and change one, from a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.api_server import Served, log_in

import ironbeat.api.dashboard as dashboard

PASSWORDS = {"operator": "operator-at-the-form", "viewer": "viewer-at-the-form"}
ASKED = {
    "name": "每日/報表",
    "kind": "cron",
    "expression": "30 3 * * *",
    "timezone": "Europe/Berlin",
    "task": "billing.charge",
    "args": '["acme"]',
    "kwargs": '{"note": "x"}',
    "queue": "invoices",
    "priority": "3",
    "starts_at": "2026-05-01T09:30",
    "ends_at": "",
    "jitter": "30s",
    "expires": "2h",
    "catch_up": "window",
    "catch_up_max": "5",
    "catch_up_window": "6h",
    "overlap": "queue_one",
    "enabled": "off",
}
# What the form says when nothing but the least is filled in.
LEAST = dict.fromkeys(ASKED, "") | {
    **{"name": "least", "kind": "every", "expression": "90s", "task": "ironbeat.echo"},
    **{"args": '["x"]', "kwargs": "{}", "catch_up": "latest", "overlap": "skip", "enabled": "on"},
}


@pytest.fixture(scope="module")
def served(module_database_url: str, redis_server, tmp_path_factory) -> Iterator[Served]:
    redis_url = redis_server.url.rsplit("/", 1)[0]
    server = Served(
        tmp_path_factory.mktemp("forms"),
        {
            "IRONBEAT_DATABASE_URL": module_database_url,
            "IRONBEAT_BROKER_URL": f"{redis_url}/5",
            "IRONBEAT_RESULT_BACKEND": f"{redis_url}/6",
            **{f"IRONBEAT_DASHBOARD_{n.upper()}_PASSWORD": p for n, p in PASSWORDS.items()},
        },
    )
    try:
        yield server.wait()
    finally:
        server.stop()


@pytest.fixture
def rows(module_database_url):
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        yield connection
        connection.execute("DELETE FROM ironbeat.schedules")


@pytest.fixture(scope="module", params=["operator"])
def browser(served: Served, request) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=str(served.open.base_url), timeout=60) as made:
        log_in(made, request.param, PASSWORDS[request.param])
        yield made


def schedule(rows, name: str) -> dict:
    cursor = rows.cursor(row_factory=psycopg.rows.dict_row)
    found = cursor.execute("SELECT * FROM ironbeat.schedules WHERE name = %s", (name,)).fetchone()
    return found or {}


def count(rows) -> int:
    return rows.execute("SELECT count(*) FROM ironbeat.schedules").fetchone()[0]


def wrong_at(page: str) -> dict[str, str]:
    """The fields of a page that are marked as wrong, each with what stands below it."""
    told = dict(re.findall(r'<span class="wrong" id="w-(\w+)">([^<]*)</span>', page))
    marked = re.findall(r'id="f-(\w+)"[^>]*aria-invalid="true"[^>]*aria-describedby="w-', page)
    assert sorted(told) == sorted(marked)
    return told


def test_everything_that_a_form_says_holds(browser, rows):
    answer = browser.post("/schedules-new", data=ASKED)
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == (
        "/schedules/%E6%AF%8F%E6%97%A5/%E5%A0%B1%E8%A1%A8?told=added"
    )
    made = schedule(rows, "每日/報表")
    assert (made["kind"], made["expression"], made["timezone"]) == (
        *("cron", "30 3 * * *", "Europe/Berlin"),
    )
    assert (made["task"], made["args"], made["kwargs"]) == (
        *("billing.charge", ["acme"], {"note": "x"}),
    )
    assert (made["queue"], made["priority"]) == ("invoices", 3)
    assert made["starts_at"].isoformat() == "2026-05-01T07:30:00+00:00" and not made["ends_at"]
    assert (made["jitter_seconds"], made["expires_seconds"]) == (30, 7200)
    assert (made["catch_up"], made["catch_up_max"], made["catch_up_window_seconds"]) == (
        *("window", 5, 21600),
    )
    assert (made["overlap"], made["enabled"], made["declared"]) == ("queue_one", False, None)
    page = browser.get(answer.headers["location"]).text
    assert "It is made; beat follows within a second." in page and "paused" in page
    assert "schedule.add" in page


def test_the_least_takes_the_usual_for_the_rest(browser, rows):
    assert browser.post("/schedules-new", data=LEAST).status_code == 303
    made = schedule(rows, "least")
    assert (made["kind"], made["expression"], made["timezone"]) == (
        *("interval", "90s", "Asia/Taipei"),
    )
    assert (made["enabled"], made["catch_up"], made["catch_up_max"]) == (True, "latest", 100)
    assert made["queue"] is None and made["priority"] is None and made["jitter_seconds"] == 0


def test_the_form_says_at_first_what_holds_if_nothing_is_changed(browser, rows):
    page = browser.get("/schedules-new").text
    filled = dict(re.findall(r'<input id="f-(\w+)"[^>]* value="([^"]*)"', page))
    filled |= dict(re.findall(r'<textarea id="f-(\w+)"[^>]*>([^<]*)</textarea>', page))
    assert filled["timezone"] == "Asia/Taipei"
    assert filled["args"] == "[]" and filled["kwargs"] == "{}"
    only = {"name": "plain", "expression": "0 3 * * *", "task": "ironbeat.sweep"}
    tasks = browser.get("/schedules-new").text
    assert '<option value="billing.charge"></option>' in tasks
    assert '<option value="invoices"></option>' in tasks
    given = filled | only | {"task": "billing.charge", "args": "[1]", "kind": "cron"}
    assert browser.post("/schedules-new", data=given).status_code == 303
    assert schedule(rows, "plain")["jitter_seconds"] == 0


@pytest.mark.parametrize(
    ("fields", "where", "word"),
    [
        ({"name": ""}, "name", "is missing"),
        ({"name": "x" * 300}, "name", "at most 200"),
        ({"task": ""}, "task", "is missing"),
        ({"task": "billing.chrage"}, "task", "did you mean &#39;billing.charge&#39;"),
        ({"expression": ""}, "expression", "is missing"),
        ({"expression": "61 3 * * *"}, "expression", "61"),
        ({"kind": "every", "expression": "soon"}, "expression", "not understood"),
        ({"kind": "once", "expression": "tomorrow"}, "expression", "2026"),
        ({"timezone": "Mars/Olympus"}, "timezone", "Mars/Olympus"),
        ({"args": "[1"}, "args", "not JSON"),
        ({"args": "[]"}, "args", "billing.charge(customer"),
        ({"kwargs": "[]"}, "kwargs", "not an object"),
        ({"queue": "nowhere"}, "queue", "no worker consumes"),
        ({"priority": "12"}, "priority", "from 0 to 9"),
        ({"priority": "high"}, "priority", "not a whole number"),
        ({"ends_at": "2026-01-01T00:00"}, "ends_at", "not after the start"),
        ({"starts_at": "soon"}, "starts_at", "soon"),
        ({"jitter": "2d"}, "jitter", "86400"),
        ({"expires": "never"}, "expires", "not understood"),
        ({"catch_up_max": "0"}, "catch_up_max", "from 1"),
        ({"catch_up_window": ""}, "catch_up_window", "is missing"),
    ],
)
def test_what_is_wrong_is_said_at_the_field_and_nothing_is_made(browser, rows, fields, where, word):
    answer = browser.post("/schedules-new", data=ASKED | fields)
    assert answer.status_code == 422
    wrong = wrong_at(answer.text)
    assert list(wrong) == [where] and word in wrong[where]
    assert f'<a href="#f-{where}">' in answer.text and "Nothing was made:" in answer.text
    # What was typed is still there, to go on from.
    assert f'value="{(ASKED | fields)["timezone"]}"' in answer.text
    assert '<option value="off" selected>' in answer.text
    assert count(rows) == 0


def test_everything_that_is_wrong_is_said_at_once(browser, rows):
    wrong = {"task": "", "priority": "high", "args": "[1", "timezone": "Mars/Olympus"}
    answer = browser.post("/schedules-new", data=ASKED | wrong)
    assert answer.status_code == 422 and len(wrong_at(answer.text)) >= 3
    assert answer.text.count("autofocus") == 1


def test_a_name_that_is_taken_is_said_at_the_name(browser, rows):
    assert browser.post("/schedules-new", data=ASKED).status_code == 303
    answer = browser.post("/schedules-new", data=ASKED | {"expression": "0 5 * * *"})
    assert answer.status_code == 409
    assert "already" in wrong_at(answer.text)["name"]
    assert schedule(rows, ASKED["name"])["expression"] == "30 3 * * *"


def test_an_edit_that_is_wrong_says_so_at_the_field_too(browser, rows):
    browser.post("/schedules-new", data=ASKED | {"name": "one"})
    answer = browser.post("/schedules/one/edit", data=ASKED | {"jitter": "-1", "expires": "x"})
    assert answer.status_code == 422
    assert set(wrong_at(answer.text)) == {"jitter", "expires"}
    assert "Nothing was changed:" in answer.text


def test_no_name_hides_the_form_or_is_hidden_by_it(browser, rows):
    for name in ("new", "-new", "new/edit", "preview"):
        assert browser.post("/schedules-new", data=ASKED | {"name": name}).status_code == 303
        page = browser.get(f"/schedules/{name}")
        if name != "new/edit":
            assert page.status_code == 200 and f"<h1>{name} " in page.text
    assert "New schedule" in browser.get("/schedules-new").text


def test_one_s_own_is_removed_and_that_is_said(browser, rows):
    browser.post("/schedules-new", data=ASKED | {"name": "brief"})
    answer = browser.post("/schedules/brief/remove")
    assert answer.headers["location"] == "/schedules?told=removed"
    assert "It is removed; its runs stay." in browser.get("/schedules?told=removed").text
    assert count(rows) == 0


def test_an_unknown_kind_is_refused(browser, rows):
    answer = browser.post("/schedules-new", data=ASKED | {"kind": "moon"})
    assert answer.status_code == 422 and count(rows) == 0


def test_a_secret_among_the_arguments_is_not_in_the_audit(browser, rows):
    secret = {"name": "sly", "kwargs": '{"note": "x", "password": "open-sesame-word"}'}
    # The task takes no such argument; what was tried is in the audit all the same.
    assert browser.post("/schedules-new", data=ASKED | secret).status_code == 422
    [(outcome, detail)] = rows.execute(
        "SELECT outcome, detail FROM ironbeat.audit WHERE subject = 'sly'"
    ).fetchall()
    assert outcome.startswith("DefinitionError") and "***" in detail["kwargs"]
    assert "open-sesame-word" not in json.dumps(detail)


def test_who_may_only_look_makes_none(served, rows):
    with httpx.Client(base_url=str(served.open.base_url), timeout=60) as viewer:
        log_in(viewer, "viewer", PASSWORDS["viewer"])
        assert "/schedules-new" not in viewer.get("/schedules").text
        assert viewer.get("/schedules-new").status_code == 403
        assert viewer.post("/schedules-new", data=ASKED).status_code == 403
    assert count(rows) == 0


def test_a_form_that_is_not_ours_makes_none(served, browser, rows):
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert browser.post("/schedules-new", data=ASKED, headers=foreign).status_code == 403
    guessed = {"x-csrf-token": "guessed"}
    assert browser.post("/schedules-new", data=ASKED, headers=guessed).status_code == 403
    nobody = served.open.post("/schedules-new", data=ASKED)
    assert nobody.status_code == 303 and nobody.headers["location"].startswith("/login")
    assert served.open.get("/schedules-preview").headers["location"].startswith("/login")
    assert count(rows) == 0


def previewed(browser: httpx.Client, **fields: str) -> str:
    return browser.get("/schedules-preview", params=fields).text


def test_the_next_fires_are_told_while_one_types(browser, rows):
    told = previewed(browser, kind="cron", expression="30 3 * * *", timezone="Asia/Taipei")
    assert "every day at 03:30" in told
    assert len(re.findall("<li>[^<]*03:30:00", told)) == 5
    assert len(re.findall("<li>", previewed(browser, kind="every", expression="90s"))) == 5
    assert previewed(browser, kind="cron", expression="").strip() == ""
    assert "none" in previewed(browser, kind="once", expression="2001-01-01T00:00")
    wrong = previewed(browser, kind="cron", expression="61 3 * * *")
    assert 'class="wrong"' in wrong and "61" in wrong
    late = previewed(browser, expression="0 0 * * *", starts_at="2031-02-03T00:00")
    assert re.findall(r"<li>(\S+)", late)[0] == "2031-02-03"
    assert browser.get("/schedules-preview", params={"kind": "moon"}).status_code == 200
    moon = browser.get("/schedules-preview", params={"kind": "moon", "expression": "x"})
    assert moon.status_code == 422


def test_an_interval_that_is_edited_goes_on_from_its_beginning(browser, rows):
    begins = {"kind": "every", "expression": "1h", "starts_at": "2026-05-01T09:17"}
    browser.post("/schedules-new", data=ASKED | begins | {"name": "hourly", "catch_up": "skip"})
    assert schedule(rows, "hourly")["anchor_at"].isoformat() == "2026-05-01T07:17:00+00:00"
    told = previewed(browser, kind="every", expression="30m", of="hourly")
    minutes = set(re.findall(r"<li>\S+ \d\d:(\d\d):00", told))
    assert minutes == {"17", "47"}


@pytest.mark.parametrize("language", ["zh-TW", "zh-CN"])
def test_in_every_language(browser, rows, language):
    folder = Path(dashboard.__file__).parent / "locales"
    said = json.loads((folder / f"{language}.json").read_text(encoding="utf-8"))
    cookie = {"Cookie": f"ironbeat_language={language}; " + "; ".join(
        f"{name}={value}" for name, value in browser.cookies.items()
    )}  # fmt: skip
    page = browser.get("/schedules-new", headers=cookie).text
    for text in ("New schedule", "Make it", "Make this schedule?", "At first", "Name", "When"):
        assert said[text] in page, text
    told = browser.get(
        "/schedules-preview", params={"kind": "cron", "expression": "30 3 * * *"}, headers=cookie
    ).text
    assert "每天 03:30" in told and said["The next runs"] in told
    mistakes = {"task": "billing.chrage", "queue": "nowhere"}
    wrong = browser.post("/schedules-new", data=ASKED | mistakes, headers=cookie).text
    assert said["Nothing was made:"] in wrong
    assert set(wrong_at(wrong)) == set(mistakes)
    assert not any("did you mean" in each for each in wrong_at(wrong).values())
    assert "&#39;billing.charge&#39;" in wrong_at(wrong)["task"]
