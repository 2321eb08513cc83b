"""The command line: one module for each group of commands, none of which holds logic.

What a command needs is imported when it runs, so that ``ironbeat --help`` stays quick.
"""

import sys
from io import TextIOWrapper


def main() -> None:
    """The program ``ironbeat``."""
    from ironbeat.cli.root import app

    _print_in_any_encoding()
    app(prog_name="ironbeat")


def _print_in_any_encoding() -> None:
    """What the output's encoding cannot say must end no command: a bar, a lone surrogate."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            says_all = stream.encoding.lower().replace("-", "").startswith("utf")
            # In JSON, the escape of a lone surrogate is what it was read from.
            stream.reconfigure(errors="backslashreplace" if says_all else "replace")


def run(*arguments: str) -> None:
    """Run a command of the program ``ironbeat``, as a workload's own commands may do.

    It ends this process with the command's exit status.
    """
    from ironbeat.cli.root import app

    app(list(arguments), prog_name="ironbeat")
