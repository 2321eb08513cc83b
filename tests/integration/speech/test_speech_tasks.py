"""The tasks on a real database: what they store, what they refuse, what they clean up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from tests.speech import file, spoken

from ironbeat.app import current_app
from ironbeat.settings import Settings
from ironbeat.workloads.speech import TaskManager, store, tasks
from ironbeat.workloads.speech.store import PracticeRecordNotFound

TEXT = "thank you for the cake"


@pytest.fixture
def database(module_settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    current_app.cache_clear()
    url = module_settings.database_url.get_secret_value()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "TRUNCATE speech.audio, speech.exercises, speech.practice_records, speech.analyses"
            " RESTART IDENTITY"
        )
        yield connection
    current_app.cache_clear()


def practice(samples: Any = None, text: str = TEXT) -> int:
    exercise = store.add_exercise(text, reference=file(spoken(TEXT, "en", "Female1")))
    content = file(spoken(TEXT) if samples is None else samples)
    return store.add_practice(exercise, content, "Ann")


def count(database: psycopg.Connection[Any], table: str) -> int:
    row = database.execute(f"SELECT count(*) FROM speech.{table}").fetchone()
    return int(row[0]) if row else 0


def test_an_analysis_is_stored_and_the_same_again_replaces_it(database) -> None:
    id = practice()
    first = tasks.analyze_audio_task(id, {"model_version": "v2.1", "analysis_type": "full"})
    assert first["status"] == "completed" and 0 < first["overall_score"] <= 100
    stored = store.latest(id)
    assert stored is not None
    for name in ("overall_score", "pronunciation", "fluency", "pitch", "voice_quality"):
        assert stored[name] == pytest.approx(first[name])
    assert stored["details"]["sounds"] and "hama/" in stored["engine"]
    assert (store.picture(id) or "").startswith("<svg")
    again = tasks.analyze_audio_task(id)
    assert again == first
    assert count(database, "analyses") == 1
    tasks.analyze_audio_task(id, {"analysis_type": "voice"})
    assert count(database, "analyses") == 2


def test_a_recording_that_cannot_be_judged_is_a_result_with_its_reason(database) -> None:
    id = practice(np.zeros(16_000, np.float32))
    found = tasks.analyze_audio_task(id, {})
    assert (found["status"], found["reason_code"]) == ("rejected", "silence")
    stored = store.latest(id)
    assert stored is not None and "microphone" in stored["reason"]
    assert stored["overall_score"] is None and store.picture(id) is None


def test_an_exercise_whose_text_cannot_be_told_is_said_to_be_it(database) -> None:
    found = tasks.analyze_audio_task(practice(text="room 12"), {})
    assert found["reason_code"] == "exercise_text" and "as words" in found["reason"]


def test_what_does_not_exist_is_refused_before_it_is_submitted(database) -> None:
    manager = TaskManager()

    def submit(id: int, **params: str) -> str:
        return asyncio.run(manager.submit_audio_analysis(id, params))

    with pytest.raises(PracticeRecordNotFound, match="no practice record 99"):
        submit(99)
    id = practice()
    with pytest.raises(ValueError, match=r"v2\.1"):
        submit(id, model_version="v9")
    runs = database.execute("SELECT count(*) FROM ironbeat.runs").fetchone()
    assert runs == (0,)
    with pytest.raises(PracticeRecordNotFound):
        store.add_practice(99, b"x")
    with pytest.raises(PracticeRecordNotFound):
        tasks.analyze_audio_task(99)


def test_recordings_that_nobody_analysed_are_asked_for_once(database) -> None:
    waiting = [practice(), practice()]
    tasks.analyze_audio_task(practice())
    assert tasks.analyze_pending_task(older_than_seconds=3600)["submitted"] == 0
    database.execute("UPDATE speech.practice_records SET recorded_at = now() - interval '1 hour'")
    assert tasks.analyze_pending_task() == {"submitted": 2, "more": False}
    tasks.analyze_pending_task()
    rows = database.execute("SELECT queue, priority FROM ironbeat.runs").fetchall()
    assert rows == [("ai_analysis", 0)] * len(waiting)


def test_old_analyses_go_except_each_recordings_last(database) -> None:
    old, new = practice(), practice()
    for id in (old, new):
        for kind in ("voice", "pronunciation", "full"):
            tasks.analyze_audio_task(id, {"analysis_type": kind})
    database.execute(
        "UPDATE speech.analyses SET analyzed_at = analyzed_at - interval '91 days'"
        " WHERE practice_record_id = %s",
        [old],
    )
    database.execute(
        "INSERT INTO speech.audio (content, created_at) VALUES ('stray', now() - interval '2 days')"
    )
    sounds = count(database, "audio")
    assert tasks.cleanup_old_analyses_task() == {"analyses": 2, "recordings": 1}
    assert count(database, "audio") == sounds - 1
    kept = store.latest(old)
    assert kept is not None and kept["analysis_type"] == "full"
    assert tasks.cleanup_old_analyses_task() == {"analyses": 0, "recordings": 0}
    with pytest.raises(ValueError, match="at least 1"):
        tasks.cleanup_old_analyses_task(days=0)


def test_samples_are_the_same_each_time_and_never_mix_with_ones_own(database) -> None:
    from ironbeat.workloads.speech import sample

    told: list[tuple[int, int]] = []
    added = sample.load(scale=1, progress=lambda done, total: told.append((done, total)))
    assert added == {"exercises": len(sample.SENTENCES), "practice_records": sample.FEWEST}
    assert told[-1] == (sample.FEWEST, sample.FEWEST)
    assert sample.load(scale=1, progress=lambda *_: None)["practice_records"] == 0
    practice()
    with pytest.raises(sample.SampleRefused, match="no samples"):
        sample.load(scale=1000, progress=lambda *_: None)
