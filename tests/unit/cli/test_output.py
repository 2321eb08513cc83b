import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

import pytest

from ironbeat.cli.output import clock, console, duration, moment, plain, table, words


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Thing:
    name: str
    at: datetime
    took: timedelta
    colours: frozenset[Colour]


def test_values_become_what_json_can_say() -> None:
    thing = Thing("a", datetime(2026, 1, 2, tzinfo=UTC), timedelta(seconds=1.5), frozenset())
    assert plain({"thing": thing, "path": Path("/x"), 1: (Colour.RED, None)}) == {
        "thing": {"name": "a", "at": "2026-01-02T00:00:00+00:00", "took": 1.5, "colours": []},
        "path": "/x",
        "1": ["red", None],
    }
    json.dumps(plain(thing))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0 ms"),
        (0.0354, "35 ms"),
        (4.21, "4.2 s"),
        (59.7, "1 min"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (187_200, "2 d 4 h"),
        (-5, "-5.0 s"),
    ],
)
def test_durations_are_written_in_units_that_suit_them(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_nothing_is_a_dash_in_a_table_and_markup_is_not_read_in_values() -> None:
    from rich.console import Console

    console = Console(width=60, record=True, file=io.StringIO())
    console.print(table(None, ["a", ">b", "c"], [("[red]x[/red]", 3, None)]))
    assert "[red]x[/red]  3  –" in console.export_text()
    assert (words(True), words(False), words("")) == ("yes", "no", "–")


def test_a_list_leaves_out_what_all_its_times_share() -> None:
    now = datetime.now(UTC)
    assert clock(now) == moment(now)[11:]
    assert clock(now - timedelta(days=800)) == moment(now - timedelta(days=800))[:16]
    assert clock(None) == "–"


def test_a_terminal_is_told_nothing_by_what_others_have_written() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m問題\tend\r\nnext"
    screen = console()
    with screen.capture() as captured:
        screen.print(table(None, ["error"], [(evil,)], fold=True))
        screen.print(evil, markup=False)
    shown = captured.get()
    assert "問題" in shown and "owned" in shown and "next" in shown
    assert {character for character in shown if not character.isprintable()} == {"\n"}


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", b"? ?\n"), ("latin-1", b"? \xe9\n"), ("utf-8", None)]
)
def test_an_encoding_that_lacks_a_character_ends_no_command(
    encoding: str, shown: bytes | None
) -> None:
    code = "from ironbeat import cli; cli._print_in_any_encoding(); print('\\u2588 \\xe9')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == (shown or "█ é\n".encode())


def test_a_lone_surrogate_is_printed_as_its_escape() -> None:
    code = "from ironbeat import cli; cli._print_in_any_encoding(); print('\"\\udcff\"')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout) == "\udcff"
