"""What makes an installation this one: its places, settings, secrets and ports.

All of it lies in one file, ``var/env`` (mode 0640), made on first use and the user's to edit: the
programs read it, and so does the command ``ironbeat``. A setting that stands in the environment of
``scripts/up`` (``WORKER_CONCURRENCY=4 ./scripts/up``) is written there, so that the programs, the
commands and the next ``up`` agree. Only the stores are chosen once, when the installation is made:
an address that happens to stand in a shell must not move it to another database.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from dotenv import dotenv_values

from ironbeat import settings_file
from ironbeat.embedded.account import Account, socket_directory
from ironbeat.local.ports import Promises
from ironbeat.settings import (
    ENV_FILE,
    PREFIX,
    STOP_MARGIN_SECONDS,
    Given,
    Settings,
    get_settings,
    given_values,
    names_of,
)
from ironbeat.workload import Workload, WorkloadError, discover

LOCAL_PROGRAMS = "IRONBEAT_LOCAL_PROGRAMS"
POSTGRES = "local/postgres.conf"
REDIS = "local/redis.conf"

# Not the servers' usual ports, where a server of the user's own would be, and below those that
# the kernel gives to outgoing connections.
POSTGRES_PORT = 15432
REDIS_PORT = 16379
PORTS_TRIED = 200

# Who sets one of these brings a Redis of their own.
CHOOSE_REDIS = frozenset({"broker_url", "redis_url", "redis_host", "redis_port", "redis_password"})

# What the programs inherit of the caller's environment.
INHERITED = re.compile(
    r"PATH|PYTHONPATH|HOME|USER|LOGNAME|LANG|LC_.*|TZ|TMPDIR|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE"
    r"|(?i:https?_proxy|no_proxy|all_proxy)"
)

_HEADING = """\
# The settings and secrets of this installation, made by scripts/up and yours to edit. Every program
# reads them when it starts. Keep this file to yourself: mode 0640, never in a repository.
"""


class InstallationError(Exception):
    """This installation cannot be made or used; the message says what to do."""


@dataclass
class Installation:
    """An installation of the checkout ``root``, with its state in ``state_dir``."""

    root: Path
    state_dir: Path
    notes: list[str] = field(default_factory=list)
    promises: Promises = field(default_factory=Promises)

    @property
    def env_file(self) -> Path:
        """The file of settings and secrets."""
        return self.state_dir / "env"

    @property
    def log_dir(self) -> Path:
        """Where each process has its log file."""
        return self.state_dir / "log"

    @property
    def run_dir(self) -> Path:
        """Pidfiles and sockets; as short a path as sockets need."""
        return socket_directory(self.state_dir / "run", Account())

    @property
    def programs(self) -> Path:
        """The directory of the environment's programs."""
        return Path(sys.executable).parent

    @property
    def exists(self) -> bool:
        """Whether it was ever brought up."""
        return self.env_file.exists()

    @property
    def embedded(self) -> tuple[str, ...]:
        """The servers that run as its own programs: of ``postgres`` and ``redis``."""
        given = self._file().get(LOCAL_PROGRAMS, "")
        return tuple(Path(each).stem for each in given.split())

    def prepare(self, environment: Mapping[str, str], running: bool) -> None:
        """Make what is missing, take over what ``environment`` sets, and find free ports.

        While its programs are ``running`` the ports stay as they are; else the chosen ones are
        promised to this process until ``promises`` are released. Raises
        :class:`InstallationError`, or ``SettingsError`` when ``environment`` contradicts itself.
        """
        self._refuse_impossible()
        for directory, mode in ((self.state_dir, 0o755), (self.log_dir, 0o750)):
            directory.mkdir(parents=True, exist_ok=True)
            # Only the directories of the servers need to be reached by their user.
            directory.chmod(mode)
        file = self._file()
        values = self._chosen(file, environment)
        values |= {
            "IRONBEAT_STATE_DIR": str(self.state_dir),
            "IRONBEAT_RUN_DIR": str(self.run_dir),
            "IRONBEAT_LOG_DIR": str(self.log_dir),
        }
        if not running:
            values |= self._free_ports({**file, **values})
        self._write(values)

    def activate(self) -> Settings:
        """Make this process use this installation, and nothing of its caller's settings."""
        environment = self.environment()
        os.environ.clear()
        os.environ.update(environment)
        get_settings.cache_clear()
        return get_settings()

    def environment(self) -> dict[str, str]:
        """What commands of this installation find in their environment; nothing secret."""
        inherited = {k: v for k, v in os.environ.items() if INHERITED.fullmatch(k)}
        return {**inherited, ENV_FILE: str(self.env_file)}

    def supervisor_environment(self) -> dict[str, str]:
        """What supervisord finds in its environment: the places that supervisor/*.conf names."""
        settings = get_settings()
        workers = settings.worker_count
        if settings.worker_pool == "ironbeat":
            # That pool runs one task at a time in each process.
            workers *= settings.worker_concurrency
        return {
            **self.environment(),
            "IRONBEAT_BIN": str(self.programs),
            "IRONBEAT_USER": pwd.getpwuid(os.geteuid()).pw_name,
            "IRONBEAT_RUN_DIR": str(settings.run_dir),
            "IRONBEAT_PID_DIR": str(settings.run_dir),
            "IRONBEAT_LOG_DIR": str(settings.log_dir),
            "IRONBEAT_WORKER_PROCESSES": str(workers),
            "IRONBEAT_WORKER_SPARES": str(settings.worker_spares),
            "IRONBEAT_RQ_WORKERS": str(settings.rq_worker_count if _uses_rq(settings) else 0),
            "IRONBEAT_RQ_DASHBOARDS": str(int(_uses_rq(settings))),
            "IRONBEAT_STOP_SECONDS": str(_stop_seconds(settings)),
            # The tables come first.
            "IRONBEAT_AUTOSTART": "false",
            LOCAL_PROGRAMS: self._file().get(LOCAL_PROGRAMS, ""),
        }

    def fingerprint(self) -> str:
        """What programs that start now are made of: settings, and the packages installed."""
        digest = hashlib.sha256(self.env_file.read_bytes())
        made_from = self.programs.parent / "made-from"
        if made_from.exists():
            digest.update(made_from.read_bytes())
        return digest.hexdigest()

    def _refuse_impossible(self) -> None:
        for path in (self.root, self.state_dir, self.programs):
            if "%" in str(path) or '"' in str(path) or "\\" in str(path):
                raise InstallationError(
                    f'{path}: supervisord cannot use a path with %, " or \\ in it; '
                    "move the directory"
                )
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            raise InstallationError(
                f"the user {os.geteuid()} has no name (no line in /etc/passwd), without which "
                "neither PostgreSQL nor supervisord starts; use an ordinary user"
            ) from None

    # -- settings

    def _file(self) -> dict[str, str]:
        if not self.env_file.exists():
            return {}
        found = dotenv_values(self.env_file, interpolate=False)
        return {name: value for name, value in found.items() if value is not None}

    def _chosen(self, file: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
        """What the file has to say beyond, or other than, what it says."""
        given = given_values({**environment, ENV_FILE: os.devnull})
        for place in ("env_file", "state_dir", "run_dir", "log_dir"):
            given.pop(place, None)
        set_in_file = {
            setting
            for setting in Settings.model_fields
            if any(file.get(name) for name in names_of(setting))
        }
        values: dict[str, str] = {}
        if LOCAL_PROGRAMS in file:
            self._keep_stores(file, given)
        else:
            values |= _stores({*given, *set_in_file}, given.get("use_redis"))
        for setting, generate in _GENERATED.items():
            if setting not in set_in_file and setting not in given:
                values[PREFIX + setting.upper()] = generate()
        return values | {_name_in(file, setting): each.value for setting, each in given.items()}

    def _keep_stores(self, file: Mapping[str, str], given: dict[str, Given]) -> None:
        for setting in {"database_url", "result_backend", *CHOOSE_REDIS} & given.keys():
            ignored = given.pop(setting)
            if ignored.value not in [file.get(name) for name in names_of(setting)]:
                self.notes.append(
                    f"{ignored.name} is set here but not used: this installation keeps the stores "
                    f"it began with; {self.env_file} names them"
                )

    def _write(self, values: Mapping[str, str]) -> None:
        """Change or add ``values`` in the file; everything else in it stays as it is."""
        try:
            settings_file.change(self.env_file, values, heading=_HEADING)
        except ValueError as error:
            raise InstallationError(str(error)) from None

    # -- ports

    def _free_ports(self, file: Mapping[str, str]) -> dict[str, str]:
        self.promises.release()
        values: dict[str, str] = {}
        for setting, what in (("api_port", "the API"), ("flower_port", "Flower")):
            name = _name_in(file, setting)
            default = Settings.model_fields[setting].default
            host = file.get(PREFIX + setting.upper().replace("PORT", "HOST")) or "127.0.0.1"
            text = file.get(name) or str(default)
            if text.isdigit():  # else the settings refuse it, and say so better
                values[name] = str(self._free(int(text), host, what))
        programs = file.get(LOCAL_PROGRAMS, "").split()
        if POSTGRES in programs:
            url = file["IRONBEAT_DATABASE_URL"]
            port = self._free(urlsplit(url).port or 5432, "127.0.0.1", "PostgreSQL")
            values["IRONBEAT_DATABASE_URL"] = _with_port(url, port)
        if REDIS in programs:
            url = file["IRONBEAT_BROKER_URL"]
            before = urlsplit(url).port or 6379
            port = self._free(before, "127.0.0.1", "Redis")
            values["IRONBEAT_BROKER_URL"] = _with_port(url, port)
            results = file.get("IRONBEAT_RESULT_BACKEND", "")
            if urlsplit(results).port == before:
                values["IRONBEAT_RESULT_BACKEND"] = _with_port(results, port)
        return values

    def _free(self, wanted: int, host: str, what: str) -> int:
        for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
            if self.promises.take(port, host):
                if port != wanted:
                    self.notes.append(
                        f"port {wanted} is taken by another program; {what} uses {port}"
                    )
                return port
        raise InstallationError(
            f"no port from {wanted} to {wanted + PORTS_TRIED - 1} is free for {what}"
        )


def _stores(chosen: AbstractSet[str], use_redis: Given | None) -> dict[str, str]:
    """The servers of its own that a new installation runs: those that nobody else provides."""
    programs = []
    values = {}
    if "database_url" not in chosen:
        programs.append(POSTGRES)
        values["IRONBEAT_DATABASE_URL"] = (
            f"postgresql://ironbeat:{_password()}@127.0.0.1:{POSTGRES_PORT}/ironbeat"
        )
    unwanted = use_redis is not None and use_redis.value.lower() in ("0", "false", "no", "off")
    if not unwanted and not chosen & CHOOSE_REDIS:
        programs.append(REDIS)
        address = f"redis://:{_password()}@127.0.0.1:{REDIS_PORT}"
        values["IRONBEAT_BROKER_URL"] = f"{address}/1"
        if "result_backend" not in chosen:
            values["IRONBEAT_RESULT_BACKEND"] = f"{address}/2"
    values[LOCAL_PROGRAMS] = " ".join(programs)
    return values


def _password() -> str:
    return secrets.token_urlsafe(24)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


_GENERATED: dict[str, Callable[[], str]] = {
    "api_token": _password,
    "dashboard_viewer_password": _password,
    "dashboard_operator_password": _password,
    "flower_basic_auth": lambda: f"ironbeat:{_password()}",
    "encryption_key": _fernet_key,
}


def _name_in(file: Mapping[str, str], setting: str) -> str:
    """The name that sets ``setting`` in ``file``; our own where none does."""
    return next((name for name in names_of(setting) if file.get(name)), PREFIX + setting.upper())


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    account, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{account}{at}{parts.hostname}:{port}"))


def _uses_rq(settings: Settings) -> bool:
    """Whether a workload that is on has tasks that RQ may carry."""
    return settings.use_redis and any(workload.rq for workload in _workloads(settings))


def _stop_seconds(settings: Settings) -> int:
    """How long supervisord waits for a worker: no shorter than any task of its may take."""
    longest = max((w.time_limit or 0 for w in _workloads(settings)), default=0)
    return max(settings.stop_seconds, longest + STOP_MARGIN_SECONDS)


def _workloads(settings: Settings) -> Sequence[Workload]:
    try:
        return discover(settings.enabled_workloads)
    except WorkloadError:
        return ()
