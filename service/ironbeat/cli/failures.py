"""Exit statuses, and how an expected error becomes a message that says what to do next."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any

_JSON = "ironbeat.json"


class ExitStatus(IntEnum):
    """What a command's exit status means, the same for every command."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitStatus:
        """A status with the sentence that ``--help`` prints for it."""
        status = int.__new__(cls, value)
        status._value_ = value
        status.meaning = meaning
        return status

    OK = 0, "done; or healthy"
    FAILED = 1, "done, and the answer is bad: unhealthy, a run failed, a limit broken"
    USAGE = 2, "the command line or a value in it is wrong; nothing was changed"
    NOT_FOUND = 3, "no such run, schedule, queue or workload"
    UNREACHABLE = 4, "PostgreSQL or Redis cannot be reached"
    SETTINGS = 5, "the settings contradict each other, or the installation is incomplete"
    REFUSED = 6, "its present state does not allow it; or not confirmed"
    TIMED_OUT = 7, "not finished within the time to wait; it goes on by itself"


class CommandError(Exception):
    """An expected error: what is wrong, what to do next, and the exit status."""

    def __init__(self, message: str, hint: str = "", status: ExitStatus = ExitStatus.FAILED):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


def not_found(what: str, name: str, hint: str) -> CommandError:
    """No ``what`` of that name or id exists."""
    return CommandError(f"there is no {what} {name!r}", hint, ExitStatus.NOT_FOUND)


def without_secrets(text: str) -> str:
    """``text`` with the passwords of any URL in it masked."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)


def remember_json(ctx: Any, value: bool) -> bool:
    """Note that the caller wants JSON, so that an error is printed as JSON too."""
    if value:
        ctx.meta[_JSON] = True
    return value


def wants_json(ctx: Any) -> bool:
    """Whether the command that ran under ``ctx`` was given ``--json``."""
    return bool(ctx.meta.get(_JSON))


def explain(error: BaseException) -> CommandError | None:
    """The expected error behind ``error``; ``None``: a defect, which needs its traceback.

    Libraries are looked up by what has been imported: an error of a library that was never
    imported cannot have been raised.
    """
    if isinstance(error, CommandError):
        return error
    # SQLAlchemy wraps the driver's error, which says more.
    original = getattr(error, "orig", None)
    for cause in (original, error):
        for matches, explanation in _EXPLANATIONS:
            if cause is not None and _is_a(cause, matches):
                return explanation(cause)
    return None


def _is_a(error: BaseException, names: tuple[str, ...]) -> bool:
    for name in names:
        module_name, _, class_name = name.rpartition(".")
        module = sys.modules.get(module_name)
        found = getattr(module, class_name, None) if module else None
        if isinstance(found, type) and isinstance(error, found):
            return True
    return False


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return without_secrets(lines[0]) if lines else type(error).__name__


def _database_unreachable(error: BaseException) -> CommandError:
    said = _first_line(error).removeprefix("PostgreSQL cannot be reached: ")
    return CommandError(
        f"PostgreSQL cannot be reached: {said}",
        "Start it (`./scripts/up` on a laptop), or correct IRONBEAT_DATABASE_URL; "
        "`ironbeat settings` shows the value in use and where it comes from.",
        ExitStatus.UNREACHABLE,
    )


def _tables_missing(error: BaseException) -> CommandError:
    return CommandError(
        f"the database lacks something this version needs: {_first_line(error)}",
        "Run `ironbeat db upgrade`; `ironbeat db check` shows what is missing.",
        ExitStatus.SETTINGS,
    )


def _redis_unreachable(error: BaseException) -> CommandError:
    return CommandError(
        f"Redis cannot be reached: {_first_line(error)}",
        "Start it (`./scripts/up` on a laptop), or correct CELERY_BROKER_URL; "
        "`ironbeat settings` shows the value in use and where it comes from.",
        ExitStatus.UNREACHABLE,
    )


def _settings_wrong(error: BaseException) -> CommandError:
    return CommandError(
        without_secrets(str(error)),
        "Settings stand in the environment and in the file that IRONBEAT_ENV_FILE names.",
        ExitStatus.SETTINGS,
    )


def _rejected(error: BaseException) -> CommandError:
    return CommandError(str(error), "Nothing was changed or submitted.", ExitStatus.USAGE)


def _refused(error: BaseException) -> CommandError:
    return CommandError(str(error), "Nothing was changed.", ExitStatus.REFUSED)


def _run_failed(error: BaseException) -> CommandError:
    return CommandError(str(error), "`ironbeat task ID` shows its traceback.", ExitStatus.FAILED)


def _run_not_found(error: BaseException) -> CommandError:
    return CommandError(
        str(error),
        "`ironbeat runs` lists runs; ended ones are kept for `history_days`.",
        ExitStatus.NOT_FOUND,
    )


_EXPLANATIONS: tuple[tuple[tuple[str, ...], Callable[[BaseException], CommandError]], ...] = (
    (
        (
            "psycopg.errors.UndefinedTable",
            "psycopg.errors.UndefinedColumn",
            "psycopg.errors.InvalidSchemaName",
        ),
        _tables_missing,
    ),
    (
        (
            "psycopg.OperationalError",
            "psycopg.InterfaceError",
            "sqlalchemy.exc.OperationalError",
            "sqlalchemy.exc.InterfaceError",
            "ironbeat.runs.model.LedgerUnavailable",
        ),
        _database_unreachable,
    ),
    (
        (
            "ironbeat.dispatch.manager.TaskRejected",
            "ironbeat.schedules.definition.DefinitionError",
        ),
        _rejected,
    ),
    (
        (
            "ironbeat.schedules.store.ScheduleExists",
            "ironbeat.schedules.store.ScheduleDeclared",
            "ironbeat.runs.replay.NotReplayable",
            "ironbeat.runs.deadletters.NotADeadLetter",
            "ironbeat.capacity.QueueFull",
        ),
        _refused,
    ),
    (("ironbeat.execution.attempt.RunFailed",), _run_failed),
    (("ironbeat.runs.model.RunNotFound",), _run_not_found),
    (
        (
            "redis.exceptions.ConnectionError",
            "redis.exceptions.TimeoutError",
            "kombu.exceptions.OperationalError",
        ),
        _redis_unreachable,
    ),
    (
        (
            "ironbeat.settings.SettingsError",
            "ironbeat.workload.WorkloadError",
            "ironbeat.migrations.MigrationError",
        ),
        _settings_wrong,
    ),
)


def report(error: BaseException, *, as_json: bool) -> int | None:
    """Print an expected error on standard error; its exit status, or ``None`` if unexpected."""
    explained = explain(error)
    if explained is None:
        return None
    if as_json:
        document = {
            "error": explained.message,
            "hint": explained.hint,
            "status": explained.status.name.lower(),
        }
        print(json.dumps(document, ensure_ascii=False), file=sys.stderr)
    else:
        print(f"ironbeat: {explained.message}", file=sys.stderr)
        if explained.hint:
            print(explained.hint, file=sys.stderr)
    return int(explained.status)
