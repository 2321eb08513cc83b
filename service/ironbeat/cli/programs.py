"""``ironbeat worker|beat|flower|api``: the four programs that supervisord runs.

Each runs in the process that was started, so that the supervisor's pid is the program's. Secrets
come from the settings; none is ever an argument, where any user could read it with ``ps``.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ironbeat.cli import pidfile as pidfiles
from ironbeat.cli.failures import CommandError, ExitStatus

OWN_POOL = "ironbeat.execution.pool:TaskPool"
SCHEDULER = "ironbeat.schedules.beat:Scheduler"
# What supervisord calls the processes of its program `worker`.
_SUPERVISED = re.compile(r"worker_(\d+)")

# What Flower's address answers where there is no broker.
DISABLED = "disabled: Flower shows a broker, and there is none (USE_REDIS=false)\n"

app = typer.Typer()


class Pool(StrEnum):
    """Where a worker runs its tasks."""

    IRONBEAT = "ironbeat"
    PREFORK = "prefork"
    THREADS = "threads"
    SOLO = "solo"
    EVENTLET = "eventlet"
    GEVENT = "gevent"


class LogLevel(StrEnum):
    """How much a program logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


PidFile = Annotated[
    Path | None,
    typer.Option("--pidfile", help="Where to keep the process number.", envvar="IRONBEAT_PIDFILE"),
]
LogFile = Annotated[
    Path | None,
    typer.Option("--logfile", help="Where to log; the setting `log_file`, else standard error."),
]
Level = Annotated[
    LogLevel | None,
    typer.Option(
        "--loglevel", "-l", help="The setting `log_level` otherwise.", case_sensitive=False
    ),
]


def node_name(name: str | None, host: str, *, environment: Any = os.environ, pid: int) -> str:
    """A worker's node name ``NAME@HOST``.

    ``name`` may be a number (``3`` is ``worker-03``), a name, or a whole node name. Without one it
    is supervisord's name of the process, else one made of ``pid``, as two workers of one host
    must never share a name.
    """
    if name and "@" in name:
        return name
    name = name or environment.get("SUPERVISOR_PROCESS_NAME") or f"worker-{pid}"
    supervised = _SUPERVISED.fullmatch(name)
    number = supervised[1] if supervised else name
    if number.isdigit():
        name = f"worker-{int(number):02d}"
    return f"{name}@{host}"


def _require_package(pool: Pool) -> None:
    if importlib.util.find_spec(pool.value) is None:
        raise CommandError(
            f"the pool {pool.value!r} needs the package {pool.value!r}, which is not installed",
            f"Install it (`pip install {pool.value}`), or choose another --pool.",
            ExitStatus.USAGE,
        )


def start_logging(
    program: str, level: LogLevel | None, file: Path | None, *, worker: str | None = None
) -> str:
    """Set up the program's logs; returns their level. Raises :class:`CommandError`."""
    from ironbeat.observability import logs
    from ironbeat.settings import get_settings

    settings = get_settings()
    chosen = level.value.upper() if level else settings.log_level
    try:
        logs.configure(program, level=chosen, file=file, settings=settings, worker=worker)
    except OSError as error:
        raise CommandError(
            f"the log file {file or settings.log_file} cannot be written: {error.strerror}",
            "Give --logfile a place this user may write.",
            ExitStatus.SETTINGS,
        ) from error
    return chosen


@app.command()
def worker(
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", help="`worker-03`, or its number, or a whole node name."),
    ] = None,
    queues: Annotated[
        str | None,
        typer.Option("--queues", "-Q", help="Consume from these only, separated by commas."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-c",
            min=1,
            help="Tasks at once. Pool `ironbeat` runs one; start more workers (WORKER_COUNT).",
        ),
    ] = None,
    pool: Annotated[
        Pool | None,
        typer.Option("--pool", "-P", help="The setting `worker_pool` otherwise."),
    ] = None,
    loglevel: Level = None,
    pidfile: PidFile = None,
    logfile: LogFile = None,
) -> None:
    """Run a worker: consume tasks from the queues and execute them."""
    import socket

    from ironbeat.settings import get_settings

    settings = get_settings()
    chosen = pool or Pool(settings.worker_pool)
    if chosen in (Pool.EVENTLET, Pool.GEVENT):
        _require_package(chosen)
        # Before anything else is imported that would keep an unpatched socket or lock.
        from celery import maybe_patch_concurrency

        maybe_patch_concurrency(["worker", "--pool", chosen.value])
    if chosen is Pool.IRONBEAT:
        if concurrency not in (None, 1):
            raise CommandError(
                f"a worker of pool 'ironbeat' runs one task at a time, not {concurrency}",
                "Start that many workers (WORKER_COUNT), or choose --pool prefork or threads.",
                ExitStatus.USAGE,
            )
        concurrency = 1
        os.environ["CELERY_CUSTOM_WORKER_POOL"] = OWN_POOL
    elif concurrency is None:
        concurrency = settings.worker_concurrency
    wanted = listed(queues) if queues is not None else list(settings.consumed_queues or ())
    hostname = node_name(name, socket.gethostname(), pid=os.getpid())

    with pidfiles.held(pidfile, f"worker {hostname}"):
        level = start_logging("worker", loglevel, logfile, worker=hostname)
        from celery.concurrency import get_implementation

        from ironbeat.app import current_app
        from ironbeat.observability.logs import hook_celery

        hook_celery()

        celery = current_app()
        refuse_unknown_queues(celery, wanted)
        program = celery.Worker(
            hostname=hostname,
            pool_cls=get_implementation("custom" if chosen is Pool.IRONBEAT else chosen.value),
            concurrency=concurrency,
            queues=wanted or None,
            loglevel=level,
            optimization="fair",
            without_gossip=True,
            without_mingle=True,
            quiet=True,
        )
        program.start()
    raise typer.Exit(program.exitcode or 0)


def listed(text: str) -> list[str]:
    """The parts of ``text`` that commas separate."""
    return [part for part in (each.strip() for each in text.split(",")) if part]


def refuse_unknown_queues(celery: Any, wanted: list[str]) -> None:
    """Refuse to consume from queues that no workload of ``celery`` has."""
    known = set(celery.amqp.queues)
    unknown = [queue for queue in wanted if queue not in known]
    if unknown:
        raise CommandError(
            f"no workload that is switched on has the queue {', '.join(map(repr, unknown))}",
            f"The queues are: {', '.join(sorted(known))}.",
            ExitStatus.USAGE,
        )


@app.command()
def beat(
    loglevel: Level = None,
    pidfile: PidFile = None,
    logfile: LogFile = None,
) -> None:
    """Run beat: turn schedules that are due into runs. Any number of beats may run at once."""
    with pidfiles.held(pidfile, "beat"):
        level = start_logging("beat", loglevel, logfile)
        from ironbeat.app import current_app
        from ironbeat.observability.logs import hook_celery

        hook_celery()
        # Named here too: an application that was adopted keeps its own configuration.
        current_app().Beat(scheduler=SCHEDULER, loglevel=level, quiet=True).run()


@app.command()
def flower(
    address: Annotated[
        str | None,
        typer.Option(
            "--address", "--host", help="Listen here; the setting `flower_host` otherwise."
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The setting `flower_port` otherwise.")
    ] = None,
    loglevel: Level = None,
    pidfile: PidFile = None,
    logfile: LogFile = None,
) -> None:
    """Run Flower, the field's web page for workers and tasks, behind its generated password."""
    from ironbeat.settings import get_settings

    settings = get_settings()
    if not settings.use_redis:
        with pidfiles.held(pidfile, "flower"):
            start_logging("flower", loglevel, logfile)
            _say_disabled(
                address or settings.flower_host,
                settings.flower_port if port is None else port,
            )
        return
    if settings.flower_basic_auth is None:
        raise CommandError(
            "Flower has no password, and never runs without one",
            "Set FLOWER_BASIC_AUTH=user:password in the file that IRONBEAT_ENV_FILE names; "
            "`./scripts/up` and the Ansible role generate one.",
            ExitStatus.SETTINGS,
        )
    with pidfiles.held(pidfile, "flower"):
        start_logging("flower", loglevel, logfile)
        _run_flower(
            settings,
            address or settings.flower_host,
            settings.flower_port if port is None else port,
        )


def _say_disabled(address: str, port: int) -> None:
    """Answer in Flower's place that it has nothing to look at, until told to stop."""
    import signal
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Disabled(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.end_headers()
            self.wfile.write(DISABLED.encode())

        def log_message(self, format: str, *args: Any) -> None:
            logging.getLogger("ironbeat").debug(format, *args)

    def stop(_signum: int, _frame: Any) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    try:
        server = ThreadingHTTPServer((address, port), Disabled)
    except OSError as error:
        raise cannot_listen("Flower", address, port, "FLOWER_PORT", error) from error
    logging.getLogger("ironbeat").info("Flower is disabled: USE_REDIS=false")
    try:
        server.serve_forever()
    except (KeyboardInterrupt, SystemExit):
        server.server_close()


# The latest tasks that Flower remembers; the ledger has all of them.
FLOWER_TASKS = 10_000


def _run_flower(settings: Any, address: str, port: int) -> None:
    import atexit
    import signal

    from flower.app import Flower
    from flower.command import apply_env_options, extract_settings
    from flower.urls import settings as web_settings
    from tornado.options import options

    from ironbeat.app import current_app

    settings.state_dir.mkdir(parents=True, exist_ok=True)
    # Whatever else the owner sets by FLOWER_… holds; the password, address and port are ours.
    apply_env_options()
    password = settings.flower_basic_auth.get_secret_value()
    options.basic_auth = [part.strip() for part in password.split(",")]
    options.address = address
    options.port = port
    options.db = str(settings.state_dir / "flower.db")
    options.persistent = True
    # Also while it runs, so that a kill loses a minute and not everything.
    if "FLOWER_STATE_SAVE_INTERVAL" not in os.environ:
        options.state_save_interval = 60_000
    # A task takes some 4 KB, and saving all of them stops the page meanwhile.
    if "FLOWER_MAX_TASKS" not in os.environ:
        options.max_tasks = FLOWER_TASKS
    extract_settings()

    served = Flower(capp=current_app(), options=options, **web_settings)
    atexit.register(served.stop)

    def stop(_signum: int, _frame: Any) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    try:
        listening = served.start_http_server()
    except OSError as error:
        raise cannot_listen("Flower", address, port, "FLOWER_PORT", error) from error
    logging.getLogger("ironbeat").info("Flower listens on http://%s:%s", address, listening)
    try:
        served.start()
    except (KeyboardInterrupt, SystemExit):
        served.stop()


def cannot_listen(
    program: str, address: str, port: int, setting: str, error: OSError
) -> CommandError:
    """A program's port is taken, or its address is not this machine's."""
    return CommandError(
        f"{program} cannot listen on {address}:{port}: {error.strerror or error}",
        f"Stop what listens there, or choose another port with --port or {setting}.",
        ExitStatus.REFUSED,
    )


@app.command()
def api(
    host: Annotated[
        str | None, typer.Option(help="Listen here; the setting `api_host` otherwise.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The setting `api_port` otherwise.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; the setting `api_workers` otherwise.")
    ] = None,
    loglevel: Level = None,
    pidfile: PidFile = None,
    logfile: LogFile = None,
) -> None:
    """Run the HTTP API: health, metrics, runs, schedules and the workloads' own routes."""
    from ironbeat.settings import get_settings

    settings = get_settings()
    address, number = host or settings.api_host, settings.api_port if port is None else port
    with pidfiles.held(pidfile, "api"):
        level = start_logging("api", loglevel, logfile)
        # The processes that uvicorn starts read their settings anew.
        _set_for_children("log_level", level)
        if logfile is not None:
            _set_for_children("log_file", str(logfile))
        from ironbeat.api import server

        try:
            server.run(settings, host=address, port=number, workers=workers)
        except server.CannotListen as error:
            raise cannot_listen("the API", address, number, "IRONBEAT_API_PORT", error) from error


def _set_for_children(field: str, value: str) -> None:
    """Set a setting by all its names, as two that differ would be refused."""
    from ironbeat.settings import names_of

    for name in names_of(field):
        os.environ[name] = value
