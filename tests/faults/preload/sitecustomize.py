"""Read by every Python program of a suite when it starts: what wrong clocks need.

* A suite all of whose clocks are wrong has a file of variables beside this one. Its programs are
  started without them: each is executed once more, and the servers that it becomes are, too.
* `time.sleep` waits for a point of the monotonic clock, by `clock_nanosleep`. With that clock left
  as it is, libfaketime (0.9.10) answers that with EINVAL, which no real clock does. `select` waits
  for a duration.
"""

import json
import os
import select
import sys
import time
from pathlib import Path

VARIABLES = Path(__file__).with_name("clock.json")

if VARIABLES.exists():
    variables = json.loads(VARIABLES.read_text())
    really_execve = os.execve
    if "LD_PRELOAD" not in os.environ:
        really_execve(sys.executable, sys.orig_argv, {**os.environ, **variables})

    def execve(path, argv, env):
        """As `os.execve`, and at the same wrong time."""
        really_execve(path, argv, {**env, **variables})

    os.execve = execve

if "faketime" in os.environ.get("LD_PRELOAD", ""):

    def sleep(seconds: float) -> None:
        """As `time.sleep`."""
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        select.select((), (), (), seconds)

    time.sleep = sleep
