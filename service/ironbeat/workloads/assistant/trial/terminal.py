"""A chat in the terminal: this process plays the channel, the pipeline is the real one."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import typer
from fastapi import FastAPI

from ironbeat import CommandError, ExitStatus, connection, get_settings
from ironbeat.workloads.assistant import accounts, reception
from ironbeat.workloads.assistant.channels import CHANNELS
from ironbeat.workloads.assistant.inventory import PERMISSION
from ironbeat.workloads.assistant.store import fetch
from ironbeat.workloads.assistant.trial.apis import REAL_LIMITS, ChannelApis, Said
from ironbeat.workloads.assistant.trial.senders import App, Webhook, trial_app

# The user who types, and how long the channel would wait for a response.
USER = "1001"
RESPONSE_SECONDS = 60.0
# How long the end of a chat waits for answers that are under way.
ANSWER_SECONDS = 30.0

Post = Callable[[Webhook], httpx.Response]


def chat(channel: str, *, plain: bool = False) -> None:
    """Talk to the assistant until the input ends.

    The app is stored as ``trial-CHANNEL`` with fresh secrets, and removed when the chat ends: its
    address would lead nowhere.
    """
    with ExitStack() as stack:
        apis = stack.enter_context(ChannelApis(limits=REAL_LIMITS, on_said=_show_said))
        played = trial_app(channel, apis.url, plain=plain)
        options = {**played.options, "default_permissions": [PERMISSION]}
        accounts.save(played.channel, played.app_id, played.secrets, options)
        stack.callback(accounts.remove, played.channel, played.app_id)
        post = stack.enter_context(_pipeline())
        _greet(played)
        for line in _lines():
            response = post(played.message(line, user=USER))
            _show_response(played, response)
        _wait_for_answers(played)


def _wait_for_answers(app: App) -> None:
    """What was asked is answered before the app goes: input from a file ends at once."""
    ends_at = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < ends_at:
        with connection() as opened:
            row = fetch(opened, "open_of_app", channel=app.channel, app_id=app.app_id)
        if row is None or not row["open"]:
            return
        time.sleep(0.2)
    typer.secho(f"[{row['open'] if row else 0} not answered: does a worker run?]", fg="red")


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            typer.echo("")
            return
        if line in ("/quit", "/exit"):
            return
        if line:
            yield line


@contextmanager
def _pipeline() -> Iterator[Post]:
    """How to post a webhook: to the running API, or to the same routes in this process."""
    settings = get_settings()
    host = "127.0.0.1" if settings.api_host in ("0.0.0.0", "::") else settings.api_host  # noqa: S104
    address = f"http://{host}:{settings.api_port}"
    with httpx.Client(base_url=address, timeout=RESPONSE_SECONDS) as client:
        if _answers(client):
            typer.echo(f"The API at {address} takes the webhooks.")
            yield lambda webhook: _posted(client, webhook)
            return
    typer.echo("The API does not run here; this process takes the webhooks.")
    with _in_process() as client:
        yield lambda webhook: _posted(client, webhook)


def _answers(client: httpx.Client) -> bool:
    try:
        # A webhook of no app: only this API refuses it so.
        refused = client.get("/api/assistant/webhook/telegram/nobody", timeout=2)
    except httpx.TransportError:
        return False
    return refused.status_code == 404 and "telegram app" in refused.text


@contextmanager
def _in_process() -> Iterator[httpx.Client]:
    import uvicorn

    from ironbeat.workloads.assistant.router import router

    application = FastAPI()
    application.include_router(router, prefix="/api/assistant")
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning"))
    running = threading.Thread(target=server.run, daemon=True)
    running.start()
    waited = threading.Event()
    while not server.started:
        if not running.is_alive():
            raise CommandError("no port could be opened on this machine", status=ExitStatus.FAILED)
        waited.wait(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=RESPONSE_SECONDS) as client:
        yield client
    server.should_exit = True
    running.join(10)


def _posted(client: httpx.Client, webhook: Webhook) -> httpx.Response:
    """Post; the API may still remember the app of a chat that ended just before."""
    ends_at = time.monotonic() + accounts.REMEMBERED_SECONDS + 1
    while True:
        response = client.post(
            webhook.path,
            params=dict(webhook.query),
            headers=dict(webhook.headers),
            content=webhook.body,
        )
        if response.status_code not in (403, 404) or time.monotonic() > ends_at:
            return response
        time.sleep(0.5)


def _greet(app: App) -> None:
    if reception.answers_later():
        how = "a worker answers over the channel's API (it must run)"
    else:
        how = "the answer stands in the webhook's response"
    waits = CHANNELS[app.channel].response_seconds
    typer.echo(f"You are {app.channel} user {USER}; {how}; the channel waits {waits:g} s.")
    typer.echo("Try /help, /stock TPE-1, /run report_low_stock; end with Ctrl-D.")


def _show_said(said: Said) -> None:
    typer.secho(f"\n[{said.channel} API, {said.way}] {said.text}", fg="green")


def _show_response(app: App, response: httpx.Response) -> None:
    if response.status_code != 200:
        typer.secho(f"[refused with {response.status_code}] {response.text}", fg="red")
        return
    text = app.read(response.content)
    typer.secho(f"[response] {text if text is not None else '(taken)'}", fg="cyan")
