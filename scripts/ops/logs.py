"""``fab logs``: the log lines of all hosts, merged by time, as they were or as they come."""

from __future__ import annotations

import json
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from ironbeat.cli import when
from ironbeat.cli.failures import CommandError
from scripts.ops import everywhere, suite, words
from scripts.ops.failures import OK, UNREACHABLE, USAGE, OpsError
from scripts.ops.inventory import Host
from scripts.ops.lines import Gathered, Line, merged, readable
from scripts.ops.looking import LOG_DIRECTORY, facts
from scripts.ops.reach import reach
from scripts.ops.zone import zone_of

_LOGS = (Path(__file__).parent / "onhost" / "logs.py").read_text()
READ_SECONDS = 120.0
# How often new lines are printed.
TICK_SECONDS = 0.2


def show(
    hosts: Sequence[Host],
    *,
    programs: Sequence[str],
    since: str,
    until: str,
    grep: str,
    task: str,
    lines: int,
    follow: bool,
    as_json: bool,
) -> int:
    """Print what is asked for; with ``as_json`` one document a line."""
    hosts = [host for host in hosts if host.programs]
    if not hosts:
        raise OpsError("none of these hosts runs a program of the suite", "", USAGE)
    try:
        re.compile(grep)
    except re.error as error:
        raise OpsError(f"--grep {grep!r} is no regular expression: {error}", "", USAGE) from error
    if follow and until:
        raise OpsError("--follow has no end, so --until means nothing", "Leave one out.", USAGE)
    zone = zone_of(facts(suite.first_reached(hosts)))
    start, end = _span(since, until, zone)
    asked = {
        "directory": LOG_DIRECTORY,
        "programs": list(programs),
        "since": start.timestamp() if start else None,
        "until": end.timestamp() if end else None,
        "grep": grep,
        "task": task,
        "lines": lines or None,
        "follow": follow,
    }
    printer = _Printer(zone, as_json)
    return _follow(hosts, asked, printer) if follow else _read(hosts, asked, lines, printer)


class _Printer:
    def __init__(self, zone: tzinfo, as_json: bool) -> None:
        self._zone = zone
        self._as_json = as_json
        self._colour = words.colours()

    def put(self, line: Line) -> None:
        """Print one line."""
        if self._as_json:
            print(json.dumps(line.as_json(), ensure_ascii=False))
            return
        for each in readable(line, self._zone, colour=self._colour):
            print(each)


def _span(since: str, until: str, zone: tzinfo) -> tuple[datetime | None, datetime | None]:
    try:
        return when.span(since or None, until or None, now=datetime.now(UTC), zone=zone)
    except CommandError as error:
        raise OpsError(error.message, error.hint, USAGE) from error


def _lines(host: Host, asked: dict[str, Any]) -> Iterator[Line]:
    reached = reach(host)
    reached.open()
    try:
        for text in reached.stream(["python3", "-I", "-c", _LOGS, json.dumps(asked)]):
            at, source, line = json.loads(text)
            yield Line(at, host.name, source, line)
    finally:
        reached.close()


def _read(hosts: Sequence[Host], asked: dict[str, Any], lines: int, printer: _Printer) -> int:
    answers = everywhere.ask(hosts, lambda host: list(_lines(host, asked)), READ_SECONDS)
    found = [each for each in answers.values() if not isinstance(each, OpsError)]
    together = list(merged(found))
    for line in together[-lines:] if lines else together:
        printer.put(line)
    sys.stdout.flush()
    failed = {name: each for name, each in answers.items() if isinstance(each, OpsError)}
    for name, error in failed.items():
        _complain(name, error)
    return UNREACHABLE if failed else OK


def _follow(hosts: Sequence[Host], asked: dict[str, Any], printer: _Printer) -> int:
    """Print lines as they come, until Ctrl-C or until no host is left."""
    arriving: queue.Queue[Line | None] = queue.Queue()

    def listen(host: Host) -> None:
        try:
            for line in _lines(host, asked):
                arriving.put(line)
            _complain(host.name, OpsError("its log has ended"))
        except OpsError as error:
            _complain(host.name, error)
        finally:
            arriving.put(None)

    for host in hosts:
        threading.Thread(target=listen, args=(host,), daemon=True).start()
    gathered = Gathered()
    left = len(hosts)
    try:
        while left:
            due = time.monotonic() + TICK_SECONDS
            while (wait := due - time.monotonic()) > 0:
                try:
                    line = arriving.get(timeout=wait)
                except queue.Empty:
                    break
                if line is None:
                    left -= 1
                else:
                    gathered.put(line, time.monotonic())
            for each in gathered.take(time.monotonic()):
                printer.put(each)
            sys.stdout.flush()
    except KeyboardInterrupt:
        # The one way to end it; nothing has gone wrong.
        return OK
    finally:
        for each in gathered.rest():
            printer.put(each)
        sys.stdout.flush()
    return UNREACHABLE


def _complain(host: str, error: OpsError) -> None:
    print(f"fab: {host}: {error.message}", file=sys.stderr, flush=True)
