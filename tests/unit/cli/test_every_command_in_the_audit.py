"""Every command that changes something is in the audit, or stands here with the reason.

All commands are gone through, the workloads' too. A new one is in no list, and fails this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ironbeat.cli.audited import AUDITED, change_of
from ironbeat.cli.root import AUDITED_COMMANDS, LazyCommands
from ironbeat.workload import switched_off

#: Commands that only look.
READS = frozenset(
    {
        *("status", "health", "report", "metrics", "monitor", "monitor-cmd", "runs", "task"),
        *("schedule list", "schedule show", "schedule next", "dead list", "dead show", "audit"),
        *("users list", "settings", "db check", "workloads list"),
        *("analytics groups", "analytics search"),
        *("assistant users", "assistant answers", "assistant tools"),
        *("assistant account options", "assistant account list"),
        *("documents list", "documents batch", "documents export", "documents sides"),
        *("speech analyze", "speech show"),
    }
)
_PROGRAM = "a program that supervisord starts; its lease says where and since when it runs"
_FORWARDED = "it runs the platform's command of that name, which is audited if it changes anything"
#: Commands that are neither audited nor only look, and why.
OTHERWISE = {
    **dict.fromkeys(("worker", "beat", "flower", "api", "watchdog", "scaler"), _PROGRAM),
    **dict.fromkeys(("rq-worker", "rq-dashboard", "speech worker"), _PROGRAM),
    **dict.fromkeys(("speech beat", "speech flower"), _PROGRAM),
    **dict.fromkeys(("speech test", "speech status", "speech health", "speech task"), _FORWARDED),
    **dict.fromkeys(("speech monitor", "speech monitor-cmd"), _FORWARDED),
    **dict.fromkeys(("speech cancel", "speech purge"), _FORWARDED),
    "documents ratio": "whoever sets a ratio is noted where it is set, by whatever way",
}


def walk(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below this one, with the words that call it."""
    below = getattr(command, "commands", None)
    if not below:
        yield path, command
        return
    for name in below:
        yield from walk(below[name], *path, name)


@pytest.fixture(scope="module")
def commands() -> dict[tuple[str, ...], Any]:
    every = LazyCommands()
    return {path: found for name in every for path, found in walk(every[name], name)}


def is_on(name: str) -> bool:
    return name.split()[0] not in switched_off()


def test_each_command_is_audited_or_only_reads_or_is_named(commands):
    audited = {" ".join(path) for path, each in commands.items() if change_of(each)}
    named = {name for name in (*READS, *OTHERWISE) if is_on(name)}
    assert not audited & named
    assert {" ".join(path) for path in commands} == audited | named


def test_the_platforms_list_names_commands_that_are_there(commands):
    for path, change in AUDITED.items():
        assert change_of(commands[path]) is change
        parameters = {each.name for each in commands[path].params}
        assert set(change.named_by) <= parameters, path
    assert {path[0] for path in AUDITED} == AUDITED_COMMANDS


def test_what_a_command_is_done_to_is_one_of_its_parameters(commands):
    for path, command in commands.items():
        if change := change_of(command):
            assert set(change.named_by) <= {each.name for each in command.params}, path
            assert change.action.count(".") == 1, path


def test_forwarded_commands_run_one_that_was_judged(commands):
    for name, why in OTHERWISE.items():
        if why == _FORWARDED and is_on(name):
            assert (name.removeprefix("speech "),) in commands
