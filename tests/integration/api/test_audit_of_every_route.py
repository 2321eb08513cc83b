"""No route that changes something is missing in the audit.

All routes of the application are gone through, the workloads' and the dashboard's too. Each with a
changing method is asked here for a change, and must then have an entry; or it is one of those that
take data in, named here with the reason. A new route is in neither list, and fails this.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
from fastapi.routing import iter_route_contexts
from tests.api_server import TOKEN, Served, log_in

from ironbeat.api.application import create_api
from ironbeat.api.audited import READING, TAKES_DATA, Audited
from ironbeat.settings import Settings
from ironbeat.workload import discover, switched_off

OPERATOR = "operator-who-is-watched"
NAME = "night/watch"

#: Routes whose requests are data and no operator's changes, and why.
DATA: Mapping[str, str] = {
    "POST /api/assistant/webhook/{channel}/{app_id}": (
        "a chat's message, signed by its channel; it stands in the conversation's own tables"
    ),
    "POST /api/assistant/alerts/{channel}/{app_id}": (
        "what Alertmanager tells; each alert is an answer, and `assistant answers` lists those"
    ),
    "POST /api/speech/exercises/{exercise_id}/recordings": (
        "a learner's recording: a row with its time and learner, and the run that judges it"
    ),
}


@dataclass(frozen=True)
class Tried:
    """A request for a change, and what the audit must have of it."""

    action: str
    subject: str = ""
    sent: Mapping[str, Any] = field(default_factory=dict)


ONE = {"name": NAME, "task": "billing.charge", "args": [1], "cron": "0 3 * * *"}
SUBMITTED = {"task": "billing.charge", "args": [1]}
DAILY = {"kind": "cron", "expression": "5 3 * * *"}
PAST = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T12:00:00Z"}

# In this order: one is made first, and removed last.
OVER_HTTP: Mapping[str, Tried] = {
    "POST /api/tasks": Tried("run.submit", "billing.charge", SUBMITTED),
    "POST /api/runs/{id}/cancel": Tried("run.cancel", "no-such"),
    "POST /api/dead/{id}/replay": Tried("dead.replay", "no-such"),
    "DELETE /api/dead/{id}": Tried("dead.drop", "no-such"),
    "POST /api/schedules": Tried("schedule.add", NAME, ONE),
    "PATCH /api/schedules/{name:path}": Tried("schedule.edit", NAME, {"cron": "5 3 * * *"}),
    "POST /api/schedules/{name:path}/pause": Tried("schedule.pause", NAME),
    "POST /api/schedules/{name:path}/resume": Tried("schedule.resume", NAME),
    "POST /api/schedules/{name:path}/restore": Tried("schedule.restore", NAME),
    "POST /api/schedules/{name:path}/run": Tried("schedule.run", NAME),
    "POST /api/schedules/{name:path}/backfill": Tried("schedule.backfill", NAME, PAST),
    "POST /api/speech/exercises": Tried("speech.add_exercise", "", {"text": "good morning"}),
    "DELETE /api/schedules/{name:path}": Tried("schedule.remove", NAME),
}
ON_THE_PAGES: Mapping[str, Tried] = {
    "POST /schedules-new": Tried(
        "schedule.add", NAME, {"name": NAME, "task": "ironbeat.echo", "args": '["x"]', **DAILY}
    ),
    "POST /schedules/{name:path}/edit": Tried(
        "schedule.edit", NAME, {**DAILY, "expression": "7 3 * * *"}
    ),
    "POST /schedules/{name:path}/pause": Tried("schedule.pause", NAME),
    "POST /schedules/{name:path}/resume": Tried("schedule.resume", NAME),
    "POST /schedules/{name:path}/restore": Tried("schedule.restore", NAME),
    "POST /schedules/{name:path}/run": Tried("schedule.run", NAME),
    "POST /schedules/{name:path}/backfill": Tried(
        "schedule.backfill", NAME, {**PAST, "sure": "yes"}
    ),
    "POST /schedules/{name:path}/remove": Tried("schedule.remove", NAME),
    "POST /runs/{id:path}/cancel": Tried("run.cancel", "no-such"),
    "POST /runs/{id:path}/retry": Tried("run.retry", "no-such"),
    "POST /dead/{id:path}/replay": Tried("dead.replay", "no-such"),
    "POST /dead/{id:path}/drop": Tried("dead.drop", "no-such"),
    "POST /workloads/{name}/ratio": Tried("ratio.set", "documents", {"ratio": "0.5"}),
    "POST /logout": Tried("login.end"),
    "POST /login": Tried("login.begin"),
}


@pytest.fixture(scope="module")
def app():
    return create_api(Settings())


def changing(app) -> dict[str, Any]:
    """Every route with a changing method, by method and path."""
    found: dict[str, Any] = {}
    for route in iter_route_contexts(app.routes):
        for method in (route.methods or set()) - READING:
            found[f"{method} {route.path}"] = route
    return found


def is_on(name: str) -> bool:
    """Whether a route is there: not that of a workload whose extra is not installed here."""
    return not any(f" /api/{off}/" in name for off in switched_off())


def test_every_route_that_changes_something_is_tried_here_or_takes_data(app):
    known = [*OVER_HTTP, *ON_THE_PAGES, *DATA]
    assert len(known) == len(set(known))
    assert set(changing(app)) == {name for name in known if is_on(name)}


def test_only_those_that_are_named_take_data_and_all_else_is_noted(app):
    for name, route in changing(app).items():
        if not name.split(" ")[1].startswith("/api/"):
            continue
        noted = [d for d in route.dependencies if isinstance(d.dependency, Audited)]
        assert len(noted) == 1, name
        assert (TAKES_DATA in route.tags) == (name in DATA), name


def test_nothing_else_that_is_served_takes_more_than_questions(app):
    # What is no route of ours (static files) cannot change anything.
    others = [r for r in app.routes if not hasattr(r, "original_router")]
    for route in others:
        methods = getattr(route, "methods", None)
        assert methods is None or methods <= READING, route
    assert [r.path for r in others if getattr(r, "methods", None) is None] == ["/static"]


@pytest.fixture(scope="module")
def watched(module_database_url: str, redis_server, tmp_path_factory) -> Iterator[Served]:
    """A server with all workloads and somebody's own, and an operator's password."""
    redis_url = redis_server.url.rsplit("/", 1)[0]
    server = Served(
        tmp_path_factory.mktemp("watched"),
        {
            "IRONBEAT_WORKLOADS": ",".join(["billing", *(each.name for each in discover())]),
            "IRONBEAT_DATABASE_URL": module_database_url,
            "IRONBEAT_BROKER_URL": f"{redis_url}/5",
            "IRONBEAT_RESULT_BACKEND": f"{redis_url}/6",
            "IRONBEAT_DASHBOARD_OPERATOR_PASSWORD": OPERATOR,
        },
    )
    try:
        yield server.wait()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def rows(module_database_url):
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def somebody(watched: Served) -> Iterator[httpx.Client]:
    """A browser with an operator logged in; ``headers`` carry the CSRF token."""
    with httpx.Client(base_url=str(watched.open.base_url), timeout=60) as browser:
        log_in(browser, "operator", OPERATOR)
        yield browser


def address(path: str, subject: str) -> str:
    return re.sub(r"\{[^}]+\}", subject, path)


def latest(rows) -> tuple[Any, ...]:
    found = rows.execute(
        "SELECT id, who, via, action, subject, outcome, detail FROM ironbeat.audit"
        " ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return found or (0,)


def must_be_noted(rows, before: int, tried: Tried, who: str, via: str) -> tuple[Any, ...]:
    id, *noted, outcome, detail = latest(rows)
    assert id > before, f"{tried.action} is not in the audit"
    assert tuple(noted) == (who, via, tried.action, tried.subject)
    assert outcome is not None
    return outcome, detail


def test_every_change_over_http_has_its_entry(watched, rows):
    told = {}
    for name, tried in OVER_HTTP.items():
        if not is_on(name):
            continue
        method, path = name.split(" ")
        before = latest(rows)[0]
        answer = watched.http.request(
            method, address(path, tried.subject), json=tried.sent or None, timeout=60
        )
        assert answer.status_code not in (401, 403, 405, 500), (name, answer.text)
        # The outcome is written once the answer is on its way.
        outcome, detail = eventually(
            lambda before=before, tried=tried: must_be_noted(rows, before, tried, "token", "api")
        )
        assert (outcome == "done") == (answer.status_code < 300), (name, outcome)
        told[name] = detail
        if tried.action == "run.submit":
            assert detail == {"task": "billing.charge", "run": answer.json()["id"]}
    assert told["POST /api/schedules/{name:path}/backfill"]["runs"] == 1
    assert told["POST /api/schedules"]["cron"] == "0 3 * * *"


def eventually(look, seconds: float = 10.0) -> Any:
    """What ``look`` returns once it holds."""
    ends = time.monotonic() + seconds
    while True:
        try:
            return look()
        except AssertionError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.02)


def test_every_change_on_the_pages_has_its_entry(watched, somebody, rows):
    for name, tried in ON_THE_PAGES.items():
        method, path = name.split(" ")
        before = latest(rows)[0]
        if tried.action == "login.begin":
            answer = log_in(somebody, "operator", OPERATOR)
        else:
            answer = somebody.request(method, address(path, tried.subject), data=tried.sent)
        assert answer.status_code not in (401, 403, 405, 500), (name, answer.text)
        outcome, _ = must_be_noted(rows, before, tried, "operator", "dashboard")
        assert (outcome == "done") == (answer.status_code < 400), (name, outcome, answer.text)


def test_what_takes_data_in_has_none(watched, rows):
    before = latest(rows)[0]
    for name in filter(is_on, DATA):
        answer = watched.http.post(
            name.split(" ")[1].format(channel="telegram", app_id="nobody", exercise_id=1),
            content=b"{}",
        )
        assert answer.status_code not in (405, 500), answer.text
    assert latest(rows)[0] == before


def test_a_route_of_somebodys_own_is_noted_without_their_doing(watched, rows):
    before = latest(rows)[0]
    assert watched.open.post("/api/billing/webhook", json={"token": "s3cret"}).status_code == 200
    _, detail = eventually(
        lambda: must_be_noted(rows, before, Tried("billing.webhook"), "unknown", "api")
    )
    assert detail == {"token": "***"}


def test_a_word_in_the_body_does_not_get_past_the_audit(watched, rows):
    watched.http.post("/api/schedules", json=ONE | {"name": "sly"})
    before = latest(rows)[0]
    watched.http.post("/api/schedules/sly/pause", json={"dry_run": True})
    eventually(lambda: must_be_noted(rows, before, Tried("schedule.pause", "sly"), "token", "api"))
    before = latest(rows)[0]
    answer = watched.http.post("/api/schedules/sly/backfill", json=PAST | {"dry_run": True})
    assert answer.status_code == 200 and latest(rows)[0] == before


def test_submissions_may_be_left_to_the_ledger(module_database_url, redis_server, tmp_path, rows):
    redis_url = redis_server.url.rsplit("/", 1)[0]
    environment = {
        "IRONBEAT_DATABASE_URL": module_database_url,
        "IRONBEAT_BROKER_URL": f"{redis_url}/5",
        "IRONBEAT_RESULT_BACKEND": f"{redis_url}/6",
        "IRONBEAT_AUDIT_SUBMISSIONS": "false",
    }
    server = Served(tmp_path, environment)
    try:
        server.wait()
        before = latest(rows)[0]
        assert server.http.post("/api/tasks", json=SUBMITTED).status_code == 202
        assert server.http.post("/api/runs/no-such/cancel").status_code == 404
        eventually(
            lambda: must_be_noted(rows, before, Tried("run.cancel", "no-such"), "token", "api")
        )
        submitted = "SELECT count(*) FROM ironbeat.audit WHERE id > %s AND action = 'run.submit'"
        assert rows.execute(submitted, (before,)).fetchone() == (0,)
    finally:
        server.stop()


def test_the_token_is_the_one_that_the_server_has(watched):
    # Else every request above would be refused before it could be noted.
    assert watched.http.headers["authorization"] == f"Bearer {TOKEN}"
