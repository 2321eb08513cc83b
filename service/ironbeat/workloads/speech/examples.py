"""Examples of use, which run: ``python -m ironbeat.workloads.speech.examples`` on a running suite.

Each function shows one thing; :func:`main` runs them in order and prints what they return.
"""

from __future__ import annotations

import asyncio
import io
from typing import Any

import soundfile

from ironbeat.workloads.speech import TaskManager, monitor, praat, store
from ironbeat.workloads.speech.recording import RATE

SENTENCE = "thank you for the cake"


def record(said: str = "tank you for the tate") -> int:
    """An exercise, and a recording of somebody who practised it; the practice record's number."""
    exercise = store.add_exercise(SENTENCE, "en", reference=_file(SENTENCE, "Female1"))
    return store.add_practice(exercise, _file(said, "Male1"), "example", sample=True)


def _file(text: str, voice: str) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, praat.speak(text, "en", voice=voice), RATE, format="FLAC")
    return target.getvalue()


async def analyze(practice_record_id: int) -> dict[str, Any]:
    """Ask for an analysis, follow it, and return its result."""
    manager = TaskManager()
    id = await manager.submit_audio_analysis(
        practice_record_id=practice_record_id,
        analysis_params={"model_version": "v2.1", "analysis_type": "full"},
    )
    seen = None
    while True:
        status = await asyncio.to_thread(manager.get_task_status, id)
        if (step := (status["progress"], status["current_step"])) != seen:
            print(f"  {step[0]:3} %  {step[1] or status['state']}")
            seen = step
        if status["state"] in ("succeeded", "failed", "cancelled", "dead", "expired"):
            break
        await asyncio.sleep(0.02)
    result: dict[str, Any] = await manager.aresult(id, timeout=60)
    return result


def feedback(practice_record_id: int) -> list[str]:
    """What to tell the learner: each sound that was not as it should be."""
    found = store.latest(practice_record_id)
    if found is None:
        return []
    return [
        f"{sound['word']}: {sound['advice']}"
        for sound in found["details"].get("sounds", ())
        if "advice" in sound
    ]


async def cancel(practice_record_id: int) -> str:
    """Ask for an analysis in an hour, and think better of it."""
    manager = TaskManager()
    id = await manager.asubmit(
        "analyze_audio_task",
        kwargs={"practice_record_id": practice_record_id, "params": {}},
        countdown=3600,
    )
    return await manager.acancel(id, reason="the learner recorded again")


def queues() -> dict[str, int]:
    """How many tasks wait in each queue."""
    return {queue: monitor.get_queue_length(queue) for queue in monitor.QUEUES}


def main() -> None:
    """Run every example."""
    practice = record()
    print(f"practice record {practice}")
    print(asyncio.run(analyze(practice)))
    print(feedback(practice))
    print(asyncio.run(cancel(practice)))
    print(queues())
    print(sorted(monitor.get_worker_stats()))


if __name__ == "__main__":
    main()
