"""``ironbeat users add|passwd|role|remove|list``: who may log in to the dashboard."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ironbeat.cli.failures import CommandError, ExitStatus
from ironbeat.cli.output import JsonFlag, moment, show, table

if TYPE_CHECKING:
    from ironbeat.access.users import Role

app = typer.Typer(
    name="users",
    help="People who may log in to the dashboard: viewers look, operators change.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The person's name.")]
RoleOption = Annotated[str, typer.Option("--role", help="viewer or operator.")]


def _url() -> str:
    from ironbeat.settings import get_settings

    return get_settings().database_url.get_secret_value()


def _asked_password() -> str:
    """A password typed twice, or the first line of standard input: never an argument."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return password


def _explained(error: Exception) -> CommandError:
    from ironbeat.access.users import NoSuchUser

    status = ExitStatus.NOT_FOUND if isinstance(error, NoSuchUser) else ExitStatus.USAGE
    return CommandError(str(error), "Nothing was changed.", status)


@app.command()
def add(name: Name, role: RoleOption = "viewer", as_json: JsonFlag = False) -> None:
    """Let somebody in; the password is asked for, or read from standard input."""
    from ironbeat import database
    from ironbeat.access import users
    from ironbeat.access.passwords import WeakPassword

    password = _asked_password()
    with database.connection(_url()) as connection:
        try:
            users.add(connection, name, role, password)
        except (users.BadUser, users.UserExists, WeakPassword) as error:
            raise _explained(error) from error
    show({"name": name, "role": role}, as_json, lambda: f"{name} may log in as {role}.")


@app.command()
def passwd(name: Name, as_json: JsonFlag = False) -> None:
    """Give somebody another password; who is logged in with the old one is logged out."""
    from ironbeat import database
    from ironbeat.access import users
    from ironbeat.access.passwords import WeakPassword

    password = _asked_password()
    with database.connection(_url()) as connection:
        try:
            users.change(connection, name, password=password)
        except (users.NoSuchUser, WeakPassword) as error:
            raise _explained(error) from error
    show({"name": name}, as_json, lambda: f"{name} has another password.")


@app.command()
def role(
    name: Name,
    role: Annotated[str, typer.Argument(help="viewer or operator.")],
    as_json: JsonFlag = False,
) -> None:
    """Let somebody change things, or only look; who is logged in has to log in again."""
    from ironbeat import database
    from ironbeat.access import users

    with database.connection(_url()) as connection:
        try:
            users.change(connection, name, role=role)
        except (users.NoSuchUser, users.BadUser) as error:
            raise _explained(error) from error
    show({"name": name, "role": role}, as_json, lambda: f"{name} is {role} now.")


@app.command()
def remove(name: Name, as_json: JsonFlag = False) -> None:
    """Let somebody in no more, at once."""
    from ironbeat import database
    from ironbeat.access import users

    with database.connection(_url()) as connection:
        try:
            users.remove(connection, name)
        except users.NoSuchUser as error:
            raise _explained(error) from error
    show({"name": name}, as_json, lambda: f"{name} may log in no more.")


@app.command("list")
def list_users(as_json: JsonFlag = False) -> None:
    """List who may log in. `settings`: the password is a setting, not one of this table's."""
    from ironbeat import database
    from ironbeat.access import users
    from ironbeat.settings import get_settings

    settings = get_settings()
    accounts: tuple[tuple[Role, object], ...] = (
        ("viewer", settings.dashboard_viewer_password),
        ("operator", settings.dashboard_operator_password),
    )
    given: dict[Role, str] = {role: "set" for role, secret in accounts if secret}
    with database.connection(_url()) as connection:
        found = users.everybody(connection, given)
    show(
        found,
        as_json,
        lambda: table(
            None,
            ["!name", "!role", "!kept in", "since"],
            [(each.name, each.role, each.source, moment(each.changed_at)) for each in found],
        ),
    )
