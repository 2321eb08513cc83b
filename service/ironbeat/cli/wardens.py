"""``ironbeat watchdog|scaler``: the programs that look after the others of their host."""

from __future__ import annotations

import signal
from typing import Any

import typer

from ironbeat.cli import pidfile as pidfiles
from ironbeat.cli.programs import Level, LogFile, PidFile, start_logging

app = typer.Typer()


@app.command()
def watchdog(loglevel: Level = None, pidfile: PidFile = None, logfile: LogFile = None) -> None:
    """Run the watchdog: end what hangs on this host, and tell the others what died."""
    with pidfiles.held(pidfile, "watchdog"):
        start_logging("watchdog", loglevel, logfile)
        from ironbeat.settings import get_settings
        from ironbeat.warden.watchdog import Watchdog
        from ironbeat.watch.history import Sampler

        settings = get_settings()
        # How queues and limits go is noted as long as any host is up, and this runs on every host.
        Sampler(settings).start()
        _run(Watchdog(settings, settings.boxes))


@app.command()
def scaler(loglevel: Level = None, pidfile: PidFile = None, logfile: LogFile = None) -> None:
    """Run the scaler: start and stop this host's spare workers with the backlog."""
    with pidfiles.held(pidfile, "scaler"):
        start_logging("scaler", loglevel, logfile)
        from ironbeat.settings import get_settings
        from ironbeat.warden.scaler import Scaler

        _run(Scaler(get_settings()))


def _run(program: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: program.stopping.set())
    program.run()
