"""Schedules over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest


@pytest.fixture
def rows(module_database_url):
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        yield connection
        connection.execute("DELETE FROM ironbeat.schedules")


def add(served, name="nightly", status=201, **fields):
    body = {"name": name, "task": "billing.charge", "args": [1]} | fields
    if not fields.keys() & {"cron", "every", "solar", "once"}:
        body["cron"] = "0 3 * * *"
    answer = served.http.post("/api/schedules", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_add_look_edit_and_remove(served, rows):
    made = add(served, timezone="Europe/Berlin", jitter="1m", expires=600, overlap="allow")
    assert made["state"] == "active" and made["expression"] == "0 3 * * *"
    assert made["timezone"] == "Europe/Berlin" and made["described"]
    assert (made["jitter_seconds"], made["expires_seconds"]) == (60, 600)
    assert made["overlap"] == "allow" and made["declared"] is False

    seen = served.http.get("/api/schedules/nightly").json()
    assert seen == made and seen["last_run"] is None

    changed = served.http.patch(
        "/api/schedules/nightly", json={"every": "90s", "expires": None, "queue": "invoices"}
    ).json()
    assert (changed["kind"], changed["expression"]) == ("interval", "90s")
    assert changed["expires_seconds"] is None and changed["queue"] == "invoices"
    assert changed["edited_at"] is not None and changed["args"] == [1]

    assert served.http.delete("/api/schedules/nightly").status_code == 204
    assert served.http.get("/api/schedules/nightly").status_code == 404
    assert served.http.delete("/api/schedules/nightly").status_code == 404


def test_the_default_zone_is_that_of_the_settings(served, rows):
    assert add(served)["timezone"] == "Asia/Taipei"


def test_names_of_every_kind_can_be_addressed(served, rows):
    for name in ("每日清理", "a/b", "with space", "x?y#z"):
        add(served, name=name)
        url = "/api/schedules/" + "".join(f"%{byte:02X}" for byte in name.encode())
        assert served.http.get(url).json()["name"] == name
        assert served.http.post(f"{url}/pause").json()["state"] == "paused"
        assert served.http.delete(url).status_code == 204


def test_list_filters_and_pages(served, rows):
    for number in range(5):
        add(served, name=f"s{number}", every=60 + number, enabled=number != 3)
    add(served, name="other", task="ironbeat.echo", args=["x"])

    def names(**params):
        found = served.http.get("/api/schedules", params=params).json()
        return [schedule["name"] for schedule in found["schedules"]]

    assert names() == ["other", "s0", "s1", "s2", "s3", "s4"]
    assert names(matching="S") == ["s0", "s1", "s2", "s3", "s4"]
    assert names(enabled=False) == ["s3"]
    assert names(task="ironbeat.echo") == ["other"] == names(kind="cron")
    page = served.http.get("/api/schedules", params={"limit": 4}).json()
    assert page["next"] == 4
    page = served.http.get("/api/schedules", params={"limit": 4, "offset": 4}).json()
    assert [s["name"] for s in page["schedules"]] == ["s3", "s4"] and page["next"] is None


def test_the_last_run_is_told(served, rows):
    made = add(served)
    (id,) = rows.execute("SELECT id FROM ironbeat.schedules").fetchone()
    now = datetime.now(UTC)
    rows.execute(
        """INSERT INTO ironbeat.run_history (id, task, state, schedule_id, scheduled_for,
               created_at, started_at, ended_at, error)
           VALUES ('last', 't', 'failed', %s, %s, %s, %s, %s, 'boom')""",
        (id, now, now, now - timedelta(seconds=2), now),
    )
    for told in (
        served.http.get("/api/schedules/nightly").json(),
        served.http.get("/api/schedules").json()["schedules"][0],
    ):
        assert told["last_run"]["id"] == "last" and told["last_run"]["error"] == "boom"
        assert told["last_run"]["seconds"] == pytest.approx(2.0)
    assert made["last_run"] is None
    rows.execute("DELETE FROM ironbeat.run_history")


def test_pause_preview_and_resume(served, rows):
    add(served, every=30)
    assert served.http.post("/api/schedules/nightly/pause").json()["state"] == "paused"
    fires = served.http.get("/api/schedules/nightly/next", params={"count": 3}).json()
    times = [datetime.fromisoformat(fire["scheduled_for"]) for fire in fires]
    assert len(times) == 3 and times[1] - times[0] == timedelta(seconds=30)
    resumed = served.http.post("/api/schedules/nightly/resume").json()
    assert resumed["state"] == "active" and resumed["enabled"]


def test_run_now_makes_a_run(served, rows):
    add(served)
    answer = served.http.post("/api/schedules/nightly/run")
    assert answer.status_code == 202
    run = served.http.get(answer.headers["location"]).json()
    assert run["schedule"] == "nightly" and run["task"] == "billing.charge"
    assert run["queue"] == "invoices"
    assert served.http.post("/api/schedules/nobody/run").status_code == 404


def test_backfill_makes_each_slots_run_once(served, rows):
    add(served, cron="0 * * * *", timezone="UTC")
    now = datetime.now(UTC)
    body = {"since": (now - timedelta(hours=5)).isoformat()}
    planned = served.http.post(
        "/api/schedules/nightly/backfill", json=body | {"dry_run": True}
    ).json()
    assert planned["runs"] == [] and len(planned["slots"]) == 5
    done = served.http.post("/api/schedules/nightly/backfill", json=body)
    assert done.status_code == 202 and len(done.json()["runs"]) == 5
    again = served.http.post("/api/schedules/nightly/backfill", json=body).json()
    assert again["runs"] == []
    few = served.http.post("/api/schedules/nightly/backfill", json=body | {"limit": 2})
    assert few.status_code == 422 and "choose a shorter one" in few.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"cron": "61 * * * *"}, "expression"),
        ({"cron": "not a cron"}, "expression"),
        ({"every": "0s"}, "expression"),
        ({"solar": "teatime@25,121"}, "expression"),
        ({"once": "tomorrow"}, "expression"),
        ({"timezone": "Asia/Nowhere"}, "timezone"),
        ({"task": "billing.nothing"}, "task"),
        ({"args": []}, "args"),
        ({"kwargs": {"colour": "red"}}, "colour"),
        ({"queue": "nowhere"}, "queue"),
        ({"priority": 11}, "priority"),
        ({"cron": "0 3 * * *", "every": "30s"}, "every"),
        ({"jitter": "long"}, "jitter"),
        ({"overlap": "sometimes"}, "overlap"),
        ({"starts_at": "2030-02-01", "ends_at": "2030-01-01"}, "ends_at"),
        ({"nmae": "x"}, "nmae"),
        ({"args": ["x" * 90_000] * 4}, None),
    ],
)
def test_what_is_wrong_is_told_field_by_field_and_changes_nothing(served, rows, fields, where):
    body = {"name": "wrong", "task": "billing.charge", "args": [1]} | fields
    if not fields.keys() & {"cron", "every", "solar", "once"}:
        body["cron"] = "0 3 * * *"
    answer = served.http.post("/api/schedules", json=body)
    assert answer.status_code == (422 if where else 413), answer.text
    if where:
        told = " ".join(error["where"] for error in answer.json()["errors"])
        assert where in told or where in answer.json()["detail"]
    assert rows.execute("SELECT count(*) FROM ironbeat.schedules").fetchone() == (0,)


def test_a_bad_edit_changes_nothing(served, rows):
    add(served)
    before = served.http.get("/api/schedules/nightly").json()
    for changes in ({"cron": "nonsense"}, {"args": [1, 2, 3, 4]}, {}, {"name": "other"}):
        answer = served.http.patch("/api/schedules/nightly", json=changes)
        assert answer.status_code == 422, answer.text
    assert served.http.get("/api/schedules/nightly").json() == before
    assert served.http.patch("/api/schedules/nobody", json={"every": 30}).status_code == 404


def test_conflicts(served, rows):
    add(served)
    assert "already" in add(served, status=409)["detail"]
    rows.execute(
        """INSERT INTO ironbeat.schedules
               (name, workload, task, kind, expression, timezone, declared)
           VALUES ('declared', 'billing', 'billing.charge', 'interval', '30s', 'UTC',
                   '{"name": "declared"}')"""
    )
    answer = served.http.delete("/api/schedules/declared")
    assert answer.status_code == 409 and "pause it" in answer.json()["detail"]


def test_the_token_is_wanted(served, rows):
    add(served)
    for method, path in (
        ("GET", ""),
        ("POST", ""),
        ("GET", "/nightly"),
        ("PATCH", "/nightly"),
        ("DELETE", "/nightly"),
        ("POST", "/nightly/run"),
        ("POST", "/nightly/pause"),
    ):
        answer = served.open.request(method, f"/api/schedules{path}", json={"every": 1})
        assert answer.status_code == 401, (method, path)
    assert served.http.get("/api/schedules/nightly").json()["state"] == "active"
