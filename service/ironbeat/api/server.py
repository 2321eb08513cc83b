"""The server of ``ironbeat api``: uvicorn, with as many processes as the settings say."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import socket
import sys

from ironbeat.observability import logs, metrics
from ironbeat.settings import Settings, SettingsError, get_settings

# How long open requests may take to end when the server is told to stop.
STOP_SECONDS = 15
BACKLOG = 2048
# What uvicorn's own command line exits with when the application does not start.
STARTUP_FAILURE = 3
_PR_SET_PDEATHSIG = 1


class CannotListen(OSError):
    """The API's address cannot be had: its port is taken, or it is not this machine's."""


def run(
    settings: Settings | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
) -> None:
    """Serve the API until told to stop.

    Raises :class:`SettingsError` when there is no token, and :class:`CannotListen`.
    """
    settings = settings or get_settings()
    if settings.api_token is None or not settings.api_token.get_secret_value():
        raise SettingsError(
            "the API has no token, and would refuse everybody: set IRONBEAT_API_TOKEN in the file "
            "that IRONBEAT_ENV_FILE names; `./scripts/up` and the Ansible role generate one"
        )
    processes = workers or settings.api_workers
    if processes > 1:
        metrics.share(settings.run_dir / "api-metrics")
    logs.configure("api", settings=settings, replace=False)
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    with listen(
        host or settings.api_host, settings.api_port if port is None else port
    ) as listening:
        config = uvicorn.Config(
            "ironbeat.api.application:serve_api",
            factory=True,
            workers=processes,
            timeout_graceful_shutdown=min(STOP_SECONDS, settings.api_timeout),
            timeout_worker_healthcheck=30,
            # Ours, which write JSON and never wait.
            log_config=None,
            server_header=False,
            h11_max_incomplete_event_size=64 * 1024,
        )
        if processes > 1:
            Multiprocess(config, sockets=[listening]).run()
            return
        server = uvicorn.Server(config)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
        if not server.started:
            sys.exit(STARTUP_FAILURE)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens already, for all processes to accept from.

    A socket that is only bound, as uvicorn makes it, can lose its port to another program before
    the first process listens; then the processes would be started for ever, in vain. Raises
    :class:`CannotListen`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by its number: asyncio sets TCP_NODELAY on no other, and without it the second
    # part of each answer waits for the client's delayed acknowledgement, 40 ms.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise CannotListen(error.errno, error.strerror) from error
    found.set_inheritable(True)
    return found


def end_with_parent() -> None:
    """Have the kernel stop this server process when the one that started it is killed.

    Left behind, it would keep the port and the next start of the program could not listen. Does
    nothing in a process that nobody's server started.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    # It may have been killed before the kernel was asked.
    if os.getppid() != parent.pid:
        sys.exit(STARTUP_FAILURE)
