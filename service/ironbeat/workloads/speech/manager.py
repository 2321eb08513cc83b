"""TaskManager as the owners call it: the platform's, with their submission beside."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import ironbeat
from ironbeat.workloads.speech import store


class TaskManager(ironbeat.TaskManager):
    """The platform's :class:`ironbeat.TaskManager` and ``submit_audio_analysis``."""

    async def submit_audio_analysis(
        self, practice_record_id: int, analysis_params: Mapping[str, Any] | None = None
    ) -> str:
        """Ask for the analysis of a practice recording; returns the task's id.

        ``analysis_params``: ``model_version`` and ``analysis_type``. Raises ``ValueError`` for
        params that do not exist, and :class:`store.PracticeRecordNotFound`; nothing was submitted
        then.
        """
        from ironbeat.workloads.speech import analysis

        params = dict(analysis_params or {})
        analysis.check(params)
        if not await asyncio.to_thread(store.exists, practice_record_id):
            raise store.PracticeRecordNotFound(f"there is no practice record {practice_record_id}")
        return await self.asubmit(
            "analyze_audio_task",
            kwargs={"practice_record_id": practice_record_id, "params": params},
        )

    def get_task_status(self, id: str) -> dict[str, Any]:
        """What became of a task: ``task_id, state, progress, current_step, result, error``.

        Raises :class:`ironbeat.runs.model.RunNotFound`.
        """
        run = self.status(id)
        said = run.progress or {}
        return {
            "task_id": run.id,
            "state": run.state,
            "progress": 100 if run.state == "succeeded" else said.get("progress", 0),
            "current_step": said.get("current_step"),
            "result": run.result,
            "error": run.error or run.reason,
        }
