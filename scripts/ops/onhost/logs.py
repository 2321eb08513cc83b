"""Lines of this host's log files, oldest first: ``logs.py JSON``.

Each line comes out as a JSON array: seconds since the epoch, the file's name, the line. With
``"follow"`` it goes on with what is written from now on, until standard input ends. Standard
library only; changes nothing.
"""

import glob
import heapq
import json
import os
import re
import select
import sys
import time
from collections import deque
from datetime import datetime

STAMP = re.compile(r'^\{"timestamp":\s*"([^"]+)"')
# supervisord's own log, in the host's zone.
PLAIN = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) ")
POLL_SECONDS = 0.3


def moment(line):
    """When a line was written, in seconds since the epoch; None where it does not say."""
    found = STAMP.match(line)
    try:
        if found:
            return datetime.fromisoformat(found.group(1)).timestamp()
        found = PLAIN.match(line)
        if found:
            return datetime.fromisoformat(found.group(1)).timestamp() + int(found.group(2)) / 1000
    except ValueError:
        pass
    return None


def files(directory, wanted):
    """The log files by process name, each with its rotated ones before it."""
    found: dict = {}
    for path in glob.glob(f"{glob.escape(directory)}/*.log*"):
        match = re.fullmatch(r"(.+)\.log(?:\.(\d+))?", os.path.basename(path))
        if match and (not wanted or any(fits(match.group(1), each) for each in wanted)):
            found.setdefault(match.group(1), []).append((-int(match.group(2) or 0), path))
    return {name: [path for _, path in sorted(paths)] for name, paths in found.items()}


def fits(name, wanted):
    """Whether a process is meant: by its name, its program (worker for worker_00), or a pattern."""
    import fnmatch

    wanted = wanted.rpartition(":")[2]
    return fnmatch.fnmatchcase(name, wanted) or fnmatch.fnmatchcase(name, f"{wanted}_[0-9]*")


class Wanted:
    """Which lines are wanted."""

    def __init__(self, asked):
        self.since = asked.get("since")
        self.until = asked.get("until")
        self.pattern = re.compile(asked["grep"]) if asked.get("grep") else None
        self.task = asked.get("task")

    def keeps(self, at, line):
        """Whether this line is one of them."""
        if self.since is not None and at < self.since:
            return False
        if self.until is not None and at >= self.until:
            return False
        if self.pattern and not self.pattern.search(line):
            return False
        return not self.task or self.concerns(line)

    def concerns(self, line):
        """Whether a line is about the task: its name, or its run's id or the beginning of it."""
        if self.task not in line:
            return False
        try:
            fields = json.loads(line)
        except ValueError:
            # What is not one of our lines says so itself.
            return True
        names = ("task", "task_id", "run_id", "root_id", "parent_id")
        values = [str(fields[name]) for name in names if fields.get(name)]
        return any(value.startswith(self.task) for value in values) or (
            self.task in str(fields.get("event", ""))
        )


def lines_of(name, paths, wanted):
    """The wanted lines of one process; one without a time has that of the line before it."""
    at = 0.0
    for path in paths:
        try:
            # What was last written before the time asked for holds nothing of it.
            if wanted.since is not None and os.stat(path).st_mtime < wanted.since:
                continue
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    line = line.rstrip("\n")
                    at = moment(line) or at
                    if line and wanted.keeps(at, line):
                        yield at, name, line
        except FileNotFoundError:
            # It was rotated away meanwhile.
            continue


def put(lines):
    """Write lines out at once."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


class Tail:
    """The end of one growing file, also when another takes its place."""

    def __init__(self, name, path, at_end):
        self.name = name
        self.path = path
        self.at = time.time()
        self.rest = ""
        self.file = None
        self.open(at_end)

    def open(self, at_end):
        """Begin with the file that is there now."""
        try:
            self.file = open(self.path, encoding="utf-8", errors="replace")
        except OSError:
            self.file = None
            return
        if at_end:
            self.file.seek(0, os.SEEK_END)

    def more(self):
        """The whole lines that have come since the last time."""
        if self.file is None:
            self.open(False)
            if self.file is None:
                return []
        found = self.read()
        try:
            now = os.stat(self.path)
            here = os.fstat(self.file.fileno())
            replaced = (now.st_ino, now.st_dev) != (here.st_ino, here.st_dev)
            if replaced or now.st_size < self.file.tell():
                found += self.read()
                self.file.close()
                self.open(False)
        except OSError:
            pass
        return found

    def read(self):
        """Whole lines; what has no end yet waits for it."""
        text = self.rest + (self.file.read() if self.file else "")
        *whole, self.rest = text.split("\n")
        found = []
        for line in whole:
            self.at = moment(line) or self.at
            if line:
                found.append((self.at, self.name, line))
        return found


def follow(directory, programs, wanted):
    """What is written from now on, until nobody listens any more."""
    tails = {}
    first = True
    while True:
        for name, paths in files(directory, programs).items():
            if name not in tails:
                tails[name] = Tail(name, paths[-1], first)
        first = False
        found = [line for tail in tails.values() for line in tail.more()]
        put(sorted(line for line in found if wanted.keeps(line[0], line[2])))
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        if ready and not os.read(0, 4096):
            return


def main(asked):
    """Print what is asked for."""
    wanted = Wanted(asked)
    directory, programs = asked["directory"], asked["programs"]
    if not os.access(directory, os.R_OK | os.X_OK):
        sys.exit(f"{directory} cannot be read")
    if asked.get("lines") != 0:
        merged = heapq.merge(
            *(
                lines_of(name, paths, wanted)
                for name, paths in sorted(files(directory, programs).items())
            )
        )
        put(deque(merged, maxlen=asked.get("lines")))
    if asked.get("follow"):
        follow(directory, programs, wanted)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
