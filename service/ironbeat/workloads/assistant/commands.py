"""``ironbeat assistant …``: the channel apps, who may do what, what was said, and a chat to try."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NoReturn

import typer

from ironbeat import CommandError, ExitStatus, audited

app = typer.Typer(no_args_is_help=True)
account_app = typer.Typer(no_args_is_help=True)
app.add_typer(account_app, name="account", help="The apps of the channels.")

Channel = Annotated[str, typer.Option(help="wechat, wecom, dingtalk or telegram.")]
AppId = Annotated[str, typer.Option("--app-id", help="The channel's name of the app.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")]


@app.callback()
def group() -> None:
    """The chat assistant: its channel apps, users, tools and answers."""


@account_app.command("add")
@audited("assistant.account_add", "channel", "app_id")
def add_account(
    channel: Channel,
    app_id: AppId,
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE; `account options` explains them. May be repeated."),
    ] = None,
    grant: Annotated[
        list[str] | None,
        typer.Option(help="What every new user may do, e.g. inventory.read. May be repeated."),
    ] = None,
) -> None:
    """Store an app, or replace the secrets and options of one that is there.

    Secrets are asked for; from a pipe they are read as one JSON object. They never stand in the
    command line, which every user of the machine can read.
    """
    from ironbeat.workloads.assistant import accounts

    known = _channel(channel)
    options = _options(option or (), grant)
    asked = {**known.required, **known.optional, **_llm_key(options)}
    secrets = _ask(asked, known.required) if sys.stdin.isatty() else _piped()
    try:
        accounts.save(channel, app_id, secrets, options)
    except accounts.AccountError as error:
        raise CommandError(
            str(error),
            f"`ironbeat assistant account options --channel {channel}` lists what there is.",
            ExitStatus.USAGE,
        ) from error
    typer.echo(f"{channel} {app_id} is stored. Its webhook is below the API's address at:")
    typer.echo(f"  /api/assistant/webhook/{channel}/{app_id}")


@account_app.command("options")
def explain_account(channel: Channel, as_json: AsJson = False) -> None:
    """What an account of a channel consists of."""
    from ironbeat.workloads.assistant import accounts

    known = _channel(channel)
    rows = [
        *(("secret", name, True, text) for name, text in known.required.items()),
        *(("secret", name, False, text) for name, text in known.optional.items()),
        ("secret", accounts.LLM_KEY, False, "the key of the endpoint at llm_url"),
        *(("option", name, True, text) for name, text in known.required_options.items()),
        *(("option", name, False, text) for name, text in accounts.OPTIONS.items()),
    ]
    _show([dict(zip(("kind", "name", "required", "meaning"), row, strict=True)) for row in rows],
          as_json)  # fmt: skip


@account_app.command("list")
def list_accounts(as_json: AsJson = False) -> None:
    """The apps, without their secrets."""
    from ironbeat.workloads.assistant import accounts

    rows = [
        {
            "channel": each.channel,
            "app_id": each.app_id,
            "enabled": each.enabled,
            "secrets": ", ".join(sorted(each.secrets)),
            "options": ", ".join(f"{name}={value}" for name, value in each.options.items()),
        }
        for each in accounts.every()
    ]
    _show(rows, as_json)


@account_app.command("disable")
@audited("assistant.account_disable", "channel", "app_id")
def disable_account(channel: Channel, app_id: AppId) -> None:
    """Refuse an app's webhooks from now on; its rows stay."""
    _switch(channel, app_id, False)


@account_app.command("enable")
@audited("assistant.account_enable", "channel", "app_id")
def enable_account(channel: Channel, app_id: AppId) -> None:
    """Take an app's webhooks again."""
    _switch(channel, app_id, True)


@account_app.command("remove")
@audited("assistant.account_remove", "channel", "app_id")
def remove_account(
    channel: Channel,
    app_id: AppId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove an app with its users, conversations and messages."""
    from ironbeat.workloads.assistant import accounts

    if not yes and not typer.confirm(f"Remove {channel} {app_id} with all its conversations?"):
        raise CommandError("nothing was removed", "Confirm, or say --yes.", ExitStatus.REFUSED)
    if not accounts.remove(channel, app_id):
        _no_account(channel, app_id)
    typer.echo(f"{channel} {app_id} is removed.")


@app.command()
def users(limit: Limit = 50, as_json: AsJson = False) -> None:
    """Who wrote lately, and what they may do."""
    _show(_query("users_listed", limit=limit), as_json)


@app.command()
@audited("assistant.grant", "user")
def grant(
    user: Annotated[int, typer.Argument(help="The user's number in `users`.")],
    permission: Annotated[str, typer.Argument(help="E.g. inventory.read.")],
    revoke: Annotated[bool, typer.Option("--revoke", help="Take it away instead.")] = False,
) -> None:
    """Let a user do something."""
    rows = _query("revoke" if revoke else "grant", id=user, permission=permission)
    if not rows:
        raise CommandError(
            f"there is no user {user}", "`ironbeat assistant users` lists them.",
            ExitStatus.NOT_FOUND,
        )  # fmt: skip
    typer.echo(f"user {user} may: {', '.join(rows[0]['permissions'] or []) or 'nothing'}")


@app.command()
def answers(
    state: Annotated[
        str | None,
        typer.Option(help="pending, sending, confirmed, returned, unknown or failed."),
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """The latest answers and what became of them, without their text."""
    _show(_query("answers_listed", state=state, limit=limit), as_json)


@app.command()
def tools(as_json: AsJson = False) -> None:
    """The registered tools."""
    from ironbeat.workloads.assistant.tools import registered

    rows = [
        {
            "name": each.name,
            "permission": each.permission or "",
            "seconds": each.seconds,
            "long": each.long,
            "parameters": ", ".join(each.parameters.model_fields),
            "description": each.description,
        }
        for each in registered().values()
    ]
    _show(rows, as_json)


@app.command("try")
@audited("assistant.try", "channel")
def try_it(
    channel: Channel = "telegram",
    plain: Annotated[
        bool, typer.Option("--plain", help="WeChat: plain mode instead of encrypted.")
    ] = False,
) -> None:
    """Chat in this terminal, through the real pipeline, with the channel's side played here.

    The running API is used where it answers, else the pipeline runs in this process. What is typed
    becomes a signed webhook of the channel; answers come back in its response or through its API.
    """
    from ironbeat.workloads.assistant.trial.terminal import chat

    _channel(channel)
    chat(channel, plain=plain)


def _channel(name: str) -> Any:
    from ironbeat.workloads.assistant.channels import CHANNELS

    if name not in CHANNELS:
        raise CommandError(
            f"there is no channel {name!r}", f"There are: {', '.join(CHANNELS)}.", ExitStatus.USAGE
        )
    return CHANNELS[name]


def _options(given: Iterable[str], grants: Sequence[str] | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise CommandError(f"{each!r} is not NAME=VALUE", status=ExitStatus.USAGE)
        options[name] = value
    if grants:
        options["default_permissions"] = list(grants)
    return options


def _llm_key(options: Mapping[str, Any]) -> dict[str, str]:
    from ironbeat.workloads.assistant.accounts import LLM_KEY

    return {LLM_KEY: "the key of the endpoint at llm_url"} if "llm_url" in options else {}


def _ask(asked: Mapping[str, str], required: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, meaning in asked.items():
        more = "" if name in required else ", or nothing"
        value = getpass.getpass(f"{name} ({meaning}{more}): ").strip()
        if value:
            found[name] = value
    return found


def _piped() -> dict[str, str]:
    hint = 'Pipe one in: {"bot_token": "…", "webhook_secret": "…"}'
    try:
        found = json.loads(sys.stdin.read())
    except json.JSONDecodeError as error:
        raise CommandError("standard input is no JSON", hint, ExitStatus.USAGE) from error
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise CommandError("standard input is no object of texts", hint, ExitStatus.USAGE)
    return found


def _switch(channel: str, app_id: str, enabled: bool) -> None:
    from ironbeat.workloads.assistant import accounts

    if not accounts.set_enabled(channel, app_id, enabled):
        _no_account(channel, app_id)
    typer.echo(f"{channel} {app_id} is {'enabled' if enabled else 'disabled'}.")


def _no_account(channel: str, app_id: str) -> NoReturn:
    raise CommandError(
        f"there is no account {channel} {app_id}",
        "`ironbeat assistant account list` lists them.",
        ExitStatus.NOT_FOUND,
    )


def _query(name: str, **parameters: Any) -> list[dict[str, Any]]:
    from ironbeat import connection
    from ironbeat.workloads.assistant.store import fetch_all

    with connection() as opened:
        return fetch_all(opened, name, **parameters)


def _show(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2, default=str))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in rows[0] if rows else ("nothing",):
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(each) for each in row.values()))
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def _cell(value: Any) -> str:
    shown: dict[type, Callable[[Any], str]] = {
        bool: lambda each: "yes" if each else "no",
        list: lambda each: ", ".join(map(str, each)),
        type(None): lambda each: "",
    }
    return shown.get(type(value), str)(value)
