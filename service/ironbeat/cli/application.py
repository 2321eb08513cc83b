"""The Celery application, for the commands that need one."""

from __future__ import annotations

from typing import Any

from ironbeat.cli.failures import CommandError, ExitStatus


def application() -> Any:
    """The application with all its task modules imported. Raises :class:`CommandError`."""
    from ironbeat.app import current_app
    from ironbeat.workload import WorkloadError

    found = current_app()
    try:
        found.loader.import_default_modules()
    except WorkloadError:
        raise
    except Exception as error:
        raise CommandError(
            f"a task module does not import: {type(error).__name__}: {error}",
            "`ironbeat report` shows which; correct it, or switch its workload off with "
            "IRONBEAT_WORKLOADS.",
            ExitStatus.SETTINGS,
        ) from error
    return found
