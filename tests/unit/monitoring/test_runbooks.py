"""Every command in the runbooks exists as written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from tests.monitoring import ROOT

PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))


def commands(page: Path) -> list[str]:
    """The lines of a page's blocks of code."""
    blocks = re.findall(r"^```\n(.*?)^```", page.read_text(), re.S | re.M)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def ironbeat_commands() -> list[str]:
    found = {line for page in PAGES for line in commands(page) if line.startswith("ironbeat ")}
    inline = re.compile(r"`(ironbeat (?!_)[a-z][^`]*)`")
    return sorted(found | {each for page in PAGES for each in inline.findall(page.read_text())})


@pytest.mark.parametrize("line", ironbeat_commands())
def test_ironbeat_takes_it(line):
    from typer.main import get_command

    from ironbeat.cli.root import app

    group = get_command(app)
    words = shlex.split(line)[1:]
    context = click.Context(group, info_name="ironbeat")
    while isinstance(group, click.Group) or hasattr(group, "get_command"):
        name, command, words = group.resolve_command(context, words)  # type: ignore[attr-defined]
        assert command is not None, name
        if not hasattr(command, "resolve_command"):
            break
        group, context = command, click.Context(command, parent=context, info_name=name)
    # Parses the options and arguments, and runs nothing.
    command.make_context(name, list(words), parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_where_to_look_what_to_do_and_when_it_ends(page):
    text = page.read_text()
    assert text.startswith("# `")
    for part in ("## Look", "## Mend", "## It ends"):
        assert part in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / target).is_file(), target
    assert commands(page)


PROGRAMS = {
    *("ironbeat", "sudo", "systemctl", "supervisorctl", "journalctl", "ss", "df", "redis-cli"),
    *("amtool", "promtool", "openssl", "ansible-playbook"),
}


def test_they_name_no_other_programs():
    named = {line.split()[0] for page in PAGES for line in commands(page)}
    assert named <= PROGRAMS, named - PROGRAMS
