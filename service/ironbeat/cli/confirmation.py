"""Asking before what cannot be undone."""

from __future__ import annotations

import sys

import typer

from ironbeat.cli.failures import CommandError, ExitStatus


def confirm(question: str, yes: bool, as_json: bool) -> None:
    """Ask before what cannot be undone; without a person to ask, ``--yes`` must have been given."""
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise CommandError(
            "this cannot be undone and was not confirmed", "Add --yes.", ExitStatus.REFUSED
        )
    if not typer.confirm(question, err=True):
        raise CommandError("nothing was done", "", ExitStatus.REFUSED)
