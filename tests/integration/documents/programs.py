"""What the tests of `documents` start."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.processes import Program

Start = Callable[..., AbstractContextManager[Program]]
PROGRAM = str(Path(sys.executable).parent / "ironbeat")
