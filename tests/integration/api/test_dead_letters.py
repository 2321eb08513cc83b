"""Dead letters over HTTP."""

from __future__ import annotations

import pytest

from ironbeat.runs.ledger import Ledger


@pytest.fixture
def letters(served, module_database_url: str) -> list[str]:
    """Three dead runs."""
    ledger = Ledger(module_database_url)
    ids = []
    for number in range(3):
        answer = served.http.post("/api/tasks", json={"task": "billing.charge", "args": [number]})
        ids.append(answer.json()["id"])
        ledger.end([ids[-1]], "dead", "its worker died 3 times while running it")
    return ids


def test_listed_a_page_at_a_time_shown_replayed_once_and_dropped(served, letters) -> None:
    http = served.http
    page = http.get("/api/dead", params={"limit": 2}).json()
    rest = http.get("/api/dead", params={"limit": 2, "after": page["next"]}).json()
    assert [each["id"] for each in page["letters"] + rest["letters"]] == letters[::-1]
    assert rest["next"] is None

    shown = http.get(f"/api/dead/{letters[0]}").json()
    assert shown["letter"]["reason"] == "its worker died 3 times while running it"
    assert (shown["run"]["state"], shown["run"]["args"]) == ("dead", "(0,)")

    made = http.post(f"/api/dead/{letters[0]}/replay")
    assert made.status_code == 202
    again = http.get(made.headers["Location"]).json()
    assert (again["parent_id"], again["args"]) == (letters[0], "(0,)")
    assert http.post(f"/api/dead/{letters[0]}/replay").status_code == 409

    assert http.delete(f"/api/dead/{letters[1]}").json()["handled"] == "dropped"
    assert http.delete(f"/api/dead/{letters[1]}").status_code == 409
    assert [each["id"] for each in http.get("/api/dead").json()["letters"]] == [letters[2]]
    assert len(http.get("/api/dead", params={"handled": True}).json()["letters"]) == 3


def test_what_is_no_letter_is_refused(served, letters) -> None:
    http = served.http
    assert served.open.get("/api/dead").status_code == 401
    id = http.post("/api/tasks", json={"task": "billing.charge", "args": [9]}).json()["id"]
    assert http.get(f"/api/dead/{id}").status_code == 404
    assert http.delete(f"/api/dead/{id}").status_code == 409
    assert http.post(f"/api/dead/{id}/replay").status_code == 409
    assert http.get("/api/dead/none").status_code == 404
    assert http.get("/api/dead", params={"after": "!"}).status_code == 422
