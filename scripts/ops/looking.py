"""Looking at hosts: their facts and their supervisord's processes, put together."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.ops import snapshot
from scripts.ops.failures import INCOMPLETE, OpsError
from scripts.ops.inventory import Host
from scripts.ops.processes import Process
from scripts.ops.reach import Reach
from scripts.ops.snapshot import Snapshot
from scripts.ops.supervisord import Supervisor

RUN_DIRECTORY = "/run/ironbeat"
LOG_DIRECTORY = "/var/log/ironbeat"
SETTINGS = "/etc/ironbeat/env"
CERTIFICATE = {"path": "/etc/ironbeat-proxy/certificate.pem", "port": 443}
DISKS = ("/", "/var/log/ironbeat", "/var/lib/ironbeat", "/var/lib/postgresql", "/var/lib/redis")
FACTS_SECONDS = 8.0

_FACTS = (Path(__file__).parent / "onhost" / "facts.py").read_text()


def facts(reached: Reach, *, deep: bool = False) -> dict[str, Any]:
    """What the host itself tells; ``deep`` also asks what listens there.

    Raises :class:`OpsError`.
    """
    host = reached.host
    wanted: dict[str, Any] = {
        "root": host.root,
        "settings": SETTINGS,
        "supervisord": f"{RUN_DIRECTORY}/supervisord.pid",
        "pidfiles": f"{RUN_DIRECTORY}/programs",
        "units": host.units,
        "disks": DISKS,
    }
    if deep:
        wanted["http"] = [name for name in ("api", "flower") if name in host.programs]
        if "proxy" in host.groups:
            wanted["certificate"] = CERTIFICATE
    asked_at = time.time()
    answer = reached.run(["python3", "-I", "-c", _FACTS, json.dumps(wanted)], FACTS_SECONDS)
    answered_at = time.time()
    if answer.status == 127:
        raise OpsError("python3 is not installed there", "Run site.yml.", INCOMPLETE)
    if answer.status != 0:
        raise OpsError(f"its facts cannot be read: {answer.last_words}", status=INCOMPLETE)
    found: dict[str, Any] = json.loads(answer.out)
    # Its clock was read in between: see `checks.skews`.
    return found | {"asked_at": asked_at, "answered_at": answered_at}


def look(reached: Reach, *, deep: bool = False) -> Snapshot:
    """The host now. Facts and processes are asked for at the same time."""
    host = reached.host
    told: Mapping[str, Any] = {}
    failure: OpsError | None = None

    def ask() -> None:
        nonlocal told, failure
        try:
            told = facts(reached, deep=deep)
        except OpsError as error:
            failure = error

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    processes = _processes(reached, host)
    asking.join()
    if failure is not None:
        raise failure
    return snapshot.describe(host, told, processes)


def _processes(reached: Reach, host: Host) -> list[Process] | str:
    if not host.programs:
        return "no supervisord is expected here"
    supervisor = Supervisor(reached)
    try:
        return supervisor.processes()
    except OpsError as error:
        return error.message
    finally:
        supervisor.close()
