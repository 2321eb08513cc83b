"""HTTP under ``/api/speech``: exercises, recordings, and what was found in them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from ironbeat import TAKES_DATA
from ironbeat.workloads.speech import spelling, store
from ironbeat.workloads.speech.manager import TaskManager
from ironbeat.workloads.speech.recording import LARGEST_BYTES

router = APIRouter(tags=["speech"])

Number = Annotated[int, Path(ge=1, le=2**63 - 1)]

# A picture is shown, and never runs or fetches anything.
_AS_PICTURE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


class NewExercise(BaseModel):
    """What is to be said; ``sounds`` instead of what its spelling says."""

    text: str = Field(min_length=1, max_length=2000)
    language: str = "en"
    sounds: list[str] = Field(default_factory=list, max_length=500)


@router.post("/exercises", status_code=201)
def add_exercise(exercise: Annotated[NewExercise, Body()]) -> dict[str, int]:
    """Add an exercise. 422 where its text cannot be told in sounds."""
    try:
        if exercise.sounds:
            spelling.spelled_out(exercise.text, exercise.sounds)
        spelling.words(exercise.text, exercise.language)
    except spelling.UnknownSpelling as error:
        raise HTTPException(422, str(error)) from error
    id = store.add_exercise(exercise.text, exercise.language, sounds=tuple(exercise.sounds))
    return {"exercise_id": id}


@router.post("/exercises/{exercise_id}/recordings", status_code=202, tags=[TAKES_DATA])
async def add_recording(
    exercise_id: Number, request: Request, learner: str = ""
) -> dict[str, int | str]:
    """Add a recording (the file as the body) and ask for its analysis."""
    content = await request.body()
    if not 0 < len(content) <= LARGEST_BYTES:
        raise HTTPException(413 if content else 422, "send one sound file as the body")
    try:
        id = await run_in_threadpool(store.add_practice, exercise_id, content, learner)
    except store.PracticeRecordNotFound as error:
        raise HTTPException(404, str(error)) from error
    task = await TaskManager().submit_audio_analysis(practice_record_id=id)
    return {"practice_record_id": id, "task_id": task}


@router.get("/recordings/{practice_record_id}/analysis")
def analysis(practice_record_id: Number) -> dict[str, Any]:
    """The last analysis of a recording."""
    found = store.latest(practice_record_id)
    if found is None:
        raise HTTPException(404, f"practice record {practice_record_id} has no analysis")
    return found


@router.get("/recordings/{practice_record_id}/picture")
def picture(practice_record_id: Number) -> Response:
    """The picture of the last analysis: an SVG."""
    found = store.picture(practice_record_id)
    if found is None:
        raise HTTPException(404, f"practice record {practice_record_id} has no picture")
    return Response(found, media_type="image/svg+xml", headers=_AS_PICTURE)
