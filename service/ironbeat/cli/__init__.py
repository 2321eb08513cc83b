"""The command line: one module for each group of commands, none of which holds logic.

What a command needs is imported when it runs, so that ``ironbeat --help`` stays quick.
"""


def main() -> None:
    """The program ``ironbeat``."""
    from ironbeat.cli.root import app

    app(prog_name="ironbeat")
