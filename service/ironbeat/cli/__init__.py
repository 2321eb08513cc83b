"""The command line: one module for each group of commands, none of which holds logic.

What a command needs is imported when it runs, so that ``ironbeat --help`` stays quick.
"""


def main() -> None:
    """The program ``ironbeat``."""
    from ironbeat.cli.root import app

    app(prog_name="ironbeat")


def run(*arguments: str) -> None:
    """Run a command of the program ``ironbeat``, as a workload's own commands may do.

    It ends this process with the command's exit status.
    """
    from ironbeat.cli.root import app

    app(list(arguments), prog_name="ironbeat")
