"""``python -m tests.faults``: cause faults, and print a row for each."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from tests.faults import table
from tests.faults.accounting import Account
from tests.faults.scenario import Skipped
from tests.faults.scenarios import SCENARIOS, SUBMISSIONS, problems, run_all


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; 1 if anything did not hold."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:30} {scenario.component}: {scenario.fault}")
        return 0
    if asked.into:
        try:
            table.write_into(asked.into, {})
        except (OSError, table.NoPlace) as error:
            parser.error(str(error))
    failed = False
    if not asked.json:
        print("\n".join(table.HEAD), flush=True)
    for name, found in run_all(asked.names or SCENARIOS, submissions=asked.submissions):
        if isinstance(found, Account):
            wrong = problems(found)
            failed |= bool(wrong)
            row = table.row(found)
            print(json.dumps(asdict(found)) if asked.json else row, flush=True)
            for each in wrong:
                _say(f"{name}: {each}")
            if not wrong and asked.into:
                table.write_into(asked.into, {name: row})
        elif isinstance(found, Skipped):
            _say(f"{name}: skipped, {found}")
        else:
            failed = True
            _say(f"{name}: {''.join(traceback.format_exception(found))}")
    return 1 if failed else 0


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _scenario(name: str) -> str:
    if name not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"no scenario is named {name!r}; --list names them")
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Cause faults in a suite of one's own under load, and account for every run.",
    )
    parser.add_argument(
        "names", nargs="*", type=_scenario, metavar="NAME", help="scenarios; none named: all"
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--json", action="store_true", help="a JSON object a line, not Markdown")
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="put rows that hold into the table of this file"
    )
    parser.add_argument(
        "--submissions", type=int, default=SUBMISSIONS, metavar="N", help=f"default {SUBMISSIONS}"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
