"""The workload's HTTP routes, on their router as the API mounts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.speech import file, spoken

from ironbeat.app import current_app
from ironbeat.settings import Settings
from ironbeat.workloads.speech import TaskManager, tasks
from ironbeat.workloads.speech.routes import router


@pytest.fixture
def client(module_settings: Settings) -> Iterator[TestClient]:
    current_app.cache_clear()
    application = FastAPI()
    application.include_router(router, prefix="/api/speech")
    with TestClient(application) as opened:
        yield opened
    current_app.cache_clear()


def test_from_an_exercise_to_its_picture(client: TestClient) -> None:
    exercise = client.post("/api/speech/exercises", json={"text": "the red rabbit runs"})
    assert exercise.status_code == 201, exercise.text
    path = f"/api/speech/exercises/{exercise.json()['exercise_id']}/recordings?learner=Ann"
    sent = client.post(path, content=file(spoken("the wed wabbit wuns")))
    assert sent.status_code == 202, sent.text
    id, task = sent.json()["practice_record_id"], sent.json()["task_id"]
    assert TaskManager().get_task_status(task)["state"] in ("pending", "published")
    assert client.get(f"/api/speech/recordings/{id}/analysis").status_code == 404
    tasks.analyze_audio_task(id)
    found = client.get(f"/api/speech/recordings/{id}/analysis").json()
    assert 0 < found["overall_score"] < 100 and found["details"]["sounds"]
    picture = client.get(f"/api/speech/recordings/{id}/picture")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert "default-src 'none'" in picture.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("exercise", "told"),
    [
        ({"text": "room 12"}, "as words"),
        ({"text": "hello", "language": "fr"}, "en or zh"),
        ({"text": "zip", "sounds": ["q"]}, "no sound"),
        ({"text": ""}, "at least 1"),
    ],
)
def test_an_exercise_that_cannot_be_judged_is_refused(client, exercise, told) -> None:
    refused = client.post("/api/speech/exercises", json=exercise)
    assert refused.status_code == 422
    assert told in refused.text


def test_what_is_not_there_is_said_so(client: TestClient) -> None:
    assert client.post("/api/speech/exercises/999/recordings", content=b"x").status_code == 404
    assert client.post("/api/speech/exercises/999/recordings").status_code == 422
    assert client.get("/api/speech/recordings/999/picture").status_code == 404
    assert client.get("/api/speech/recordings/none/picture").status_code == 422
