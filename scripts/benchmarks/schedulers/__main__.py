"""``python -m benchmarks.schedulers MODULE fill COUNT PER_SECOND | edit``."""

from __future__ import annotations

import importlib
import json
import sys


def main(arguments: list[str]) -> None:
    """Do what was asked and print one JSON value."""
    module, what, *rest = arguments
    scheduler = importlib.import_module(f"benchmarks.schedulers.{module}")
    if what == "fill":
        count, per_second = rest
        print(json.dumps(scheduler.fill(int(count), float(per_second))))
    else:
        print(json.dumps(scheduler.edit()))


if __name__ == "__main__":
    main(sys.argv[1:])
