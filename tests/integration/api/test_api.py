"""The API over HTTP, from a real server on real stores."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families


@pytest.fixture
def rows(module_database_url):
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        yield connection


def problem(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status and body["title"] and body["detail"]
    return body


def submit(served, **fields):
    response = served.http.post("/api/tasks", json={"task": "billing.charge"} | fields)
    assert response.status_code == 202, response.text
    return response.json()["id"]


# -- probes


def test_health_names_what_is_wrong_and_then_is_healthy(served, rows):
    answer = served.open.get("/health")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "unhealthy",
        "checks": {
            "database": "ok",
            "redis": "ok",
            "celery_worker": "no active workers",
            "beat": "no active beat",
        },
    }
    rows.execute(
        """INSERT INTO ironbeat.leases (id, kind, name, host, pid, expires_at) VALUES
           ('w', 'worker', 'w', 'here', 1, 'infinity'), ('b', 'beat', 'b', 'here', 2, 'infinity')"""
    )
    time.sleep(0.3)
    answer = served.open.get("/health")
    rows.execute("DELETE FROM ironbeat.leases")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "healthy"
    assert list(body["checks"].items())[:3] == [
        ("database", "ok"),
        ("redis", "ok"),
        ("celery_worker", "ok (1 workers)"),
    ]


def test_metrics_are_prometheus_text(served):
    served.http.get("/api/runs")
    served.http.get("/api/billing/invoices")
    served.http.get("/api/runs/no-such-run")
    served.open.get("/nowhere/at-all")
    # On a machine that is busy with other things a scrape may have to leave something out.
    for _ in range(10):
        answer = served.open.get("/metrics")
        if 'ironbeat_up{store="database"} 1.0' in answer.text:
            break
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert families["ironbeat_up"].samples[0].value == 1
    assert {"ironbeat_queue_length", "ironbeat_run_seconds", "ironbeat_workers"} <= families.keys()
    requests = {
        (sample.labels["route"], sample.labels["status"])
        for sample in families["ironbeat_http_requests"].samples
        if sample.name.endswith("_total")
    }
    assert ("/api/runs", "200") in requests and ("/api/runs/{id}", "404") in requests
    assert ("/api/billing/invoices", "200") in requests
    assert ("(none)", "404") in requests
    queues = {s.labels["queue"] for s in families["ironbeat_queue_length"].samples}
    assert {"default", "invoices"} <= queues


# -- who may ask


@pytest.mark.parametrize(
    "path", ["/api/runs", "/api/status", "/api/billing/invoices", "/docs", "/openapi.json"]
)
def test_everything_else_wants_the_token(served, path):
    body = problem(served.open.get(path), 401)
    assert "Authorization: Bearer" in body["detail"]
    assert served.open.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert served.http.get(path).status_code == 200


def test_a_refused_request_changes_nothing(served, rows):
    before = rows.execute("SELECT count(*) FROM ironbeat.runs").fetchone()
    problem(served.open.post("/api/tasks", json={"task": "billing.charge", "args": [1]}), 401)
    assert rows.execute("SELECT count(*) FROM ironbeat.runs").fetchone() == before


def test_a_workloads_webhook_guards_itself(served):
    answer = served.open.post("/api/billing/webhook", json={"a": 1})
    assert answer.status_code == 200 and answer.json() == {"received": 1}


# -- runs


def test_submit_look_and_cancel(served):
    answer = served.http.post(
        "/api/tasks",
        json={"task": "billing.charge", "args": [7], "kwargs": {"note": "謝謝"}, "countdown": 600},
    )
    assert answer.status_code == 202
    id = answer.json()["id"]
    assert answer.headers["location"] == f"/api/runs/{id}"

    run = served.http.get(f"/api/runs/{id}").json()
    assert (run["task"], run["queue"], run["state"]) == ("billing.charge", "invoices", "pending")
    assert run["workload"] == "billing" and "謝謝" in run["kwargs"] and run["durable"]

    assert served.http.post(f"/api/runs/{id}/cancel").json() == {"id": id, "state": "cancelled"}
    run = served.http.get(f"/api/runs/{id}").json()
    assert (run["state"], run["reason"]) == ("cancelled", "cancelled over HTTP")
    assert served.http.post(f"/api/runs/{id}/cancel").json() == {"id": id, "state": "cancelled"}


def test_an_idempotency_key_returns_the_first_run(served):
    first = submit(served, args=[1], idempotency_key="order-1")
    assert submit(served, args=[1], idempotency_key="order-1") == first
    assert submit(served, args=[1], idempotency_key="order-2") != first


def test_runs_are_listed_by_page_and_filter(served):
    since = datetime.now(UTC)
    ids = [submit(served, args=[number], countdown=600) for number in range(5)]
    served.http.post(f"/api/runs/{ids[0]}/cancel")
    asked = {"since": since.isoformat(), "limit": 2}
    found, after, pages = [], None, 0
    while True:
        page = served.http.get("/api/runs", params=asked | ({"after": after} if after else {}))
        body = page.json()
        found += [run["id"] for run in body["runs"]]
        pages += 1
        after = body["next"]
        if after is None:
            break
    assert found == ids[::-1] and pages == 3

    def ids_of(**params):
        params = {"since": since.isoformat()} | params
        return [run["id"] for run in served.http.get("/api/runs", params=params).json()["runs"]]

    assert ids_of(state="cancelled") == [ids[0]]
    assert ids_of(state=["cancelled", "live"]) == ids[::-1]
    assert ids_of(state="ended", task="billing.charge") == [ids[0]]
    assert ids_of(queue="default") == []
    assert ids_of(text="not-there") == []
    assert ids_of(until=since.isoformat()) == []


def test_tasks_are_named(served):
    names = served.http.get("/api/tasks").json()
    assert "billing.charge" in names and not any(name.startswith("celery.") for name in names)


# -- what is refused


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"task": "billing.nothing"}, "billing.nothing"),
        ({"args": []}, "customer"),
        ({"args": [1, 2, 3]}, "too many positional"),
        ({"kwargs": {"customer": 1, "colour": "red"}}, "colour"),
        ({"args": "abc"}, "args"),
        ({"args": [1], "queue": "nowhere"}, "nowhere"),
        ({"args": [1], "priority": 10}, "priority"),
        ({"args": [1], "countdown": -1}, "countdown"),
        ({"args": [1], "eta": "2030-01-01T00:00:00"}, "timezone"),
        ({"args": [1], "eta": "2030-01-01T00:00:00Z", "countdown": 1}, "either"),
        ({"args": [1], "qeue": "default"}, "qeue"),
        ({"args": ["\x00"]}, "NUL"),
        ({"args": [[[[[[["x"]]]]]]], "kwargs": {"note": "\ud800"}}, "surrogate"),
        ({"args": [1], "task": ""}, "task"),
        ({"args": [1], "idempotency_key": "k" * 600}, "idempotency_key"),
    ],
)
def test_bad_submissions_are_told_why_and_change_nothing(served, rows, fields, word):
    count = (
        "SELECT (SELECT count(*) FROM ironbeat.runs), (SELECT count(*) FROM ironbeat.run_history)"
    )
    before = rows.execute(count).fetchone()
    content = json.dumps({"task": "billing.charge"} | fields)
    answer = served.http.post(
        "/api/tasks", content=content, headers={"Content-Type": "application/json"}
    )
    assert word in problem(answer, 422)["detail"]
    assert rows.execute(count).fetchone() == before


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"task": "billing.charge", "args": [NaN]}', 422),
        (b'{"task": "billing.charge", "args": ' + b"[" * 60 + b"]" * 60 + b"}", 422),
        (b'{"task": "billing.charge", "args": ' + b"[" * 40_000 + b"]" * 40_000 + b"}", 400),
        (b'["a list"]', 422),
        (b"", 422),
    ],
)
def test_what_is_no_proper_json_is_refused(served, content, status):
    headers = {"Content-Type": "application/json"}
    problem(served.http.post("/api/tasks", content=content, headers=headers), status)


def test_large_bodies_are_refused_before_they_are_read(served):
    body = problem(served.http.post("/api/tasks", json={"task": "x" * 200_000}), 413)
    assert "api_max_body_bytes" in body["detail"]

    def chunks():
        for _ in range(50):
            yield b"x" * 10_000

    headers = {"Content-Type": "application/json"}
    problem(served.http.post("/api/tasks", content=chunks(), headers=headers), 413)
    problem(served.open.post("/api/billing/webhook", json={"a": "x" * 200_000}), 413)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/runs/no-such-run", 404),
        ("POST", "/api/runs/no-such-run/cancel", 404),
        ("DELETE", "/api/runs", 405),
        ("GET", "/api/runs?limit=0", 422),
        ("GET", "/api/runs?limit=501", 422),
        ("GET", "/api/runs?state=gone", 422),
        ("GET", "/api/runs?after=rubbish", 422),
        ("GET", "/api/runs?since=yesterday", 422),
        ("GET", "/api/runs?since=2026-01-01T00:00:00", 422),
        ("GET", "/api/runs?text=%00", 422),
        ("GET", "/api/report?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", 422),
        ("GET", "/api/report?since=2020-01-02T00:00:00Z", 422),
        ("GET", "/api/queues/default/messages?limit=0", 422),
        ("GET", "/api/runs/%00", 422),
        ("GET", "/api/queues/%00/messages", 422),
    ],
)
def test_bad_requests_are_problems(served, method, path, status):
    problem(served.http.request(method, path), status)


def test_an_error_of_the_inside_stays_inside(served):
    body = problem(served.http.get("/api/billing/broken"), 500)
    assert "inside story" not in json.dumps(body)
    time.sleep(0.3)
    lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    (error,) = [line for line in lines if "inside story" in str(line.get("exception"))]
    assert error["level"] == "error" and error["program"] == "api"


def test_a_handler_that_blocks_is_answered_for(served):
    started = time.monotonic()
    body = problem(served.http.get("/api/billing/slow"), 503)
    assert "No answer within 3 s" in body["detail"]
    assert time.monotonic() - started < 6


# -- watching


def test_watching_over_http(served, rows):
    rows.execute(
        """INSERT INTO ironbeat.leases (id, kind, name, host, pid, queues, expires_at) VALUES
           ('w', 'worker', 'w1', 'here', 1, '{invoices}', 'infinity')"""
    )
    status = served.http.get("/api/status").json()
    assert {"limits", "workers", "queues", "schedules", "health", "failures"} <= status.keys()
    assert [worker["name"] for worker in served.http.get("/api/workers").json()] == ["w1"]
    queues = {queue["name"]: queue for queue in served.http.get("/api/queues").json()}
    assert queues["invoices"]["consumers"] == 1
    limits = served.http.get("/api/limits").json()
    assert len(limits) == 14
    broken = served.http.get("/api/limits", params={"broken": True}).json()
    assert {limit["name"] for limit in broken} == {x["name"] for x in limits if x["ok"] is False}
    rows.execute("DELETE FROM ironbeat.leases")


def test_messages_in_line(served, redis_server):
    url = redis_server.url.rsplit("/", 1)[0]
    with redis.Redis.from_url(f"{url}/5") as client:
        client.lpush("waiting-room", json.dumps({"headers": {"id": "m1", "task": "t"}}))
    found = served.http.get("/api/queues/waiting-room/messages").json()
    assert [message["id"] for message in found] == ["m1"]


def test_what_happened_between_two_times(served, rows):
    now = datetime.now(UTC)
    rows.execute(
        """INSERT INTO ironbeat.run_history
               (id, task, state, created_at, started_at, ended_at, error)
           VALUES ('night', 't', 'failed', %(at)s, %(at)s, %(at)s, 'boom')""",
        {"at": now - timedelta(hours=5)},
    )
    period = {
        "since": (now - timedelta(hours=6)).isoformat(),
        "until": (now - timedelta(hours=4)).isoformat(),
    }
    found = served.http.get("/api/report", params=period).json()
    assert [failure["id"] for failure in found["between"]["failures"]] == ["night"]
    assert {module["name"]: module["error"] for module in found["modules"]} == {
        "billing_app.tasks": None
    }


def test_the_documentation_needs_nothing_from_elsewhere(served):
    schema = served.http.get("/openapi.json").json()
    assert "/api/runs" in schema["paths"] and "/api/billing/invoices" in schema["paths"]
    page = served.http.get("/docs")
    assert "GET /api/runs/{id}" in page.text and "idempotency_key" in page.text
    assert "http://" not in page.text and "https://" not in page.text and "<script" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
