"""Where a process spends its time, sampled from outside by py-spy."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.programs import BINARIES

RATE = 200


class Profile:
    """Samples by call stack: ``outermost;…;innermost``."""

    def __init__(self, stacks: Counter[str]) -> None:
        self.stacks = stacks

    @property
    def total(self) -> int:
        """How many samples there are."""
        return sum(self.stacks.values())

    def inclusive(self) -> Counter[str]:
        """Samples in which a function was running or waiting for what it had called."""
        found: Counter[str] = Counter()
        for stack, samples in self.stacks.items():
            for frame in set(stack.split(";")):
                found[frame] += samples
        return found

    def own(self) -> Counter[str]:
        """Samples in which a function itself was running."""
        found: Counter[str] = Counter()
        for stack, samples in self.stacks.items():
            found[stack.rsplit(";", 1)[-1]] += samples
        return found

    def text(self, lines: int = 45) -> str:
        """The most frequent functions, with and without what they call, in per cent."""
        total = self.total or 1
        rows = [f"{total} samples. Own time, and time with callees:"]
        columns = zip(
            self.own().most_common(lines), self.inclusive().most_common(lines), strict=False
        )
        for (own, a), (inclusive, b) in columns:
            rows.append(f"{a / total:6.1%}  {own[:58]:<60}{b / total:6.1%}  {inclusive[:70]}")
        return "\n".join(rows)


class Recording:
    """A running py-spy."""

    def __init__(self, pid: int, output: Path) -> None:
        #: What was seen, once it has ended; nothing where the machine lets nobody look.
        self.profile = Profile(Counter())
        self._output = output
        self._process = subprocess.Popen(
            [
                *(str(BINARIES / "py-spy"), "record", "--pid", str(pid), "--format", "raw"),
                *(
                    "--rate",
                    str(RATE),
                    "--gil",
                    "--nonblocking",
                    "--function",
                    "--output",
                    str(output),
                ),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """End the recording and read it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait(30)
        if self._output.exists():
            for line in self._output.read_text().splitlines():
                stack, _, samples = line.rpartition(" ")
                self.profile.stacks[stack] += int(samples)


def merged(profiles: Iterable[Profile]) -> Profile:
    """Several profiles as one."""
    stacks: Counter[str] = Counter()
    for each in profiles:
        stacks.update(each.stacks)
    return Profile(stacks)


@contextmanager
def profiling(pid: int) -> Iterator[Recording]:
    """Sample a process until the block ends."""
    with tempfile.TemporaryDirectory(prefix="ironbeat-profile-") as folder:
        recording = Recording(pid, Path(folder) / "stacks")
        try:
            yield recording
        finally:
            recording.stop()
