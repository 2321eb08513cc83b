"""``ironbeat rq-worker|rq-dashboard``: RQ's side, for a workload that uses both queues."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
from typing import Annotated, Any

import typer

from ironbeat.cli import pidfile as pidfiles
from ironbeat.cli.failures import CommandError, ExitStatus
from ironbeat.cli.programs import (
    Level,
    LogFile,
    PidFile,
    cannot_listen,
    listed,
    refuse_unknown_queues,
    start_logging,
)

app = typer.Typer()

PAGE_SECONDS = 2.5


@app.command("rq-worker")
def rq_worker(
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="`rq-03`, or a whole NAME@HOST.")
    ] = None,
    queues: Annotated[
        str | None,
        typer.Option("--queues", "-Q", help="Only these, separated by commas (no `rq:` needed)."),
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="End when the queues are empty.")] = False,
    loglevel: Level = None,
    pidfile: PidFile = None,
    logfile: LogFile = None,
) -> None:
    """Run a worker of RQ's: it takes jobs from RQ's queues and runs each in a child process."""
    import socket

    from ironbeat.execution.rq_carrier import own_name
    from ironbeat.settings import get_settings

    settings = get_settings()
    if not settings.use_redis:
        raise CommandError(
            "RQ needs Redis, and USE_REDIS is off", "Set USE_REDIS=true.", ExitStatus.SETTINGS
        )
    called = name or os.environ.get("SUPERVISOR_PROCESS_NAME") or f"rq-{os.getpid()}"
    hostname = called if "@" in called else f"{called.replace('_', '-')}@{socket.gethostname()}"
    with pidfiles.held(pidfile, f"rq-worker {hostname}"):
        start_logging("rq-worker", loglevel, logfile, worker=hostname)
        from ironbeat.app import current_app

        celery = current_app()
        wanted = [own_name(part) for part in listed(queues or "")]
        refuse_unknown_queues(celery, wanted)
        of_workloads = [q.name for w in celery.ironbeat.workloads if w.rq for q in w.queues]
        from ironbeat.execution.rq_worker import Worker

        Worker(celery, wanted or of_workloads or sorted(celery.amqp.queues), hostname).run(
            burst=burst
        )


@app.command("rq-dashboard")
def rq_dashboard(
    address: Annotated[
        str | None, typer.Option("--address", help="The setting `rq_dashboard_host` otherwise.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The setting `rq_dashboard_port` (9181) otherwise."),
    ] = None,
    loglevel: Level = None,
    pidfile: PidFile = None,
    logfile: LogFile = None,
) -> None:
    """Run rq-dashboard, RQ's web page, behind its password (Flower's unless it has its own)."""
    from ironbeat.settings import get_settings

    settings = get_settings()
    if importlib.util.find_spec("rq_dashboard") is None:
        raise CommandError(
            "the package rq-dashboard is not installed",
            "It comes with the extra `documents`: scripts/up --with documents; on hosts "
            "service_extras: [documents] and site.yml.",
            ExitStatus.SETTINGS,
        )
    auth = settings.rq_dashboard_auth or settings.flower_basic_auth
    if auth is None:
        raise CommandError(
            "RQ's dashboard has no password, and never runs without one",
            "Set IRONBEAT_RQ_DASHBOARD_AUTH=user:password (or FLOWER_BASIC_AUTH) in the file that "
            "IRONBEAT_ENV_FILE names.",
            ExitStatus.SETTINGS,
        )
    with pidfiles.held(pidfile, "rq-dashboard"):
        start_logging("rq-dashboard", loglevel, logfile)
        _serve(
            settings,
            [pair.strip() for pair in auth.get_secret_value().split(",")],
            address or settings.rq_dashboard_host,
            settings.rq_dashboard_port if port is None else port,
        )


def _serve(settings: Any, accounts: list[str], address: str, port: int) -> None:
    from werkzeug.serving import make_server

    try:
        server = make_server(address, port, _page(settings, accounts), threaded=True)
    except (OSError, SystemExit) as error:
        problem = error if isinstance(error, OSError) else OSError("the port is taken")
        raise cannot_listen(
            "RQ's dashboard", address, port, "IRONBEAT_RQ_DASHBOARD_PORT", problem
        ) from error

    def stop(_signum: int, _frame: Any) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    logging.getLogger("ironbeat").info(
        "RQ's dashboard listens on http://%s:%s", address, server.port
    )
    server.serve_forever()


def _page(settings: Any, accounts: list[str]) -> Any:
    """rq-dashboard as it is, on the broker's Redis, asked for a password before anything else."""
    import hmac

    import rq_dashboard
    from flask import Flask, Response, request
    from rq.serializers import JSONSerializer
    from rq_dashboard import web

    from ironbeat.settings import client_url

    page = Flask("rq_dashboard")
    page.config.from_object(rq_dashboard.default_settings)
    page.config["RQ_DASHBOARD_REDIS_URL"] = client_url(settings.broker_url.get_secret_value())
    page.config["RQ_DASHBOARD_POLL_INTERVAL"] = int(PAGE_SECONDS * 1000)
    # The jobs are JSON; pickle would run what somebody wrote into Redis.
    web.config.serializer = JSONSerializer

    @page.before_request
    def ask_for_the_password() -> Response | None:
        given = request.authorization
        said = f"{given.username}:{given.password}" if given and given.type == "basic" else ""
        # All are compared, so that the time tells nothing.
        matches = [hmac.compare_digest(said.encode(), each.encode()) for each in accounts]
        if any(matches):
            return None
        return Response(
            "Please log in.", 401, {"WWW-Authenticate": 'Basic realm="RQ", charset="UTF-8"'}
        )

    page.register_blueprint(web.blueprint, url_prefix="")
    web.setup_rq_connection(page)
    return page
