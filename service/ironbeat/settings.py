"""Every setting: its type, its default, and the environment names that set it.

A setting ``worker_count`` is set by ``IRONBEAT_WORKER_COUNT``, and by the names its owners have
used before (``WORKER_COUNT``). Names stand in the process's environment or in the file that
``IRONBEAT_ENV_FILE`` names (``NAME=value`` lines); the environment replaces the same name of the
file. Then, for each setting:

- a specific name (``CELERY_BROKER_URL``) wins over a general one (``REDIS_URL``), and a URL over
  host, port and database number;
- two equally specific names with different values are refused, whichever place they come from;
- a value out of range, or limits that contradict each other, are refused with the name to change.

:func:`describe` tells for every setting what it is and where it comes from.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import os
import re
import stat
import sys
import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from dotenv import dotenv_values
from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ironbeat import throttle

PREFIX = "IRONBEAT_"
ENV_FILE = "IRONBEAT_ENV_FILE"

# supervisord waits this much longer than a worker may drain before it kills the worker.
STOP_MARGIN_SECONDS = 30

MASK = "********"

# Names that tell supervisord and its programs where and how to run; they set no field.
PLACES = frozenset(
    {
        ENV_FILE,
        "IRONBEAT_AUTOSTART",
        "IRONBEAT_BIN",
        "IRONBEAT_LOCAL_PROGRAMS",
        "IRONBEAT_PIDFILE",
        "IRONBEAT_PID_DIR",
        "IRONBEAT_RQ_DASHBOARDS",
        "IRONBEAT_RQ_WORKERS",
        "IRONBEAT_STOP_SECONDS",
        "IRONBEAT_USER",
        "IRONBEAT_WORKER_PROCESSES",
    }
)

REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")
POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


class SettingsError(Exception):
    """Settings contradict each other or hold a bad value; the message names them and the fix."""


@dataclass(frozen=True)
class Names:
    """The names that set a field beside ``IRONBEAT_<FIELD>``.

    ``specific`` ones mean this setting alone; ``general`` ones give way to any specific name.
    """

    specific: tuple[str, ...] = ()
    general: tuple[str, ...] = ()


def _names(*specific: str, general: tuple[str, ...] = ()) -> Names:
    return Names(specific, general)


Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[int, Field(ge=1)]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class Settings(BaseSettings):
    """The platform's settings; build one with :func:`get_settings`."""

    model_config = SettingsConfigDict(extra="ignore", validate_default=True)

    # -- stores
    database_url: Annotated[SecretStr, _names(general=("DATABASE_URL",))] = Field(
        SecretStr("postgresql://localhost/ironbeat"), description="PostgreSQL: the ledger."
    )
    broker_url: Annotated[SecretStr, _names("CELERY_BROKER_URL")] = Field(
        SecretStr(""), description="Redis that carries messages; default from the redis_* settings."
    )
    result_backend: Annotated[SecretStr, _names("CELERY_RESULT_BACKEND")] = Field(
        SecretStr(""), description="Redis that keeps results; default from the redis_* settings."
    )
    redis_url: Annotated[SecretStr | None, _names(general=("REDIS_URL",))] = Field(
        None, description="One Redis for messages and results; without a number, two databases."
    )
    use_redis: Annotated[bool, _names("USE_REDIS")] = Field(
        True, description="Off: no broker at all; the fallback scheduler runs everything."
    )
    redis_host: Annotated[str, _names("REDIS_HOST")] = Field(
        "localhost", pattern=r"^[A-Za-z0-9_.:-]+$"
    )
    redis_port: Annotated[Port, _names("REDIS_PORT")] = 6379
    redis_password: Annotated[SecretStr | None, _names("REDIS_PASSWORD")] = None
    redis_db_broker: Annotated[int, _names("REDIS_DB_BROKER")] = Field(1, ge=0)
    redis_db_backend: Annotated[int, _names("REDIS_DB_BACKEND")] = Field(2, ge=0)
    redis_server: Path | None = Field(
        None, description="A redis-server program to run on a laptop instead of the embedded one."
    )
    broker_timeout_seconds: float = Field(
        2.0, gt=0, description="How long a submission may wait for the broker before the ledger."
    )
    result_expires: int = Field(3600, ge=0, description="Seconds; 0 keeps results for ever.")

    # -- what runs
    timezone: str = Field("Asia/Taipei", description="Default zone of schedules (IANA name).")
    workloads: str = Field("", description="Enabled workloads, comma-separated; empty: all.")
    app: str = Field(
        "", description="module:attribute of your own Celery application; empty: Ironbeat's."
    )
    use_celery: Annotated[bool, _names("USE_CELERY")] = Field(
        False, description="Whether the workload documents submits to Celery (else to RQ)."
    )
    documents_llm_url: str = Field(
        "", description="OpenAI-compatible address (…/v1) that writes summaries; empty: none."
    )
    documents_llm_model: str = Field("default", min_length=1, max_length=200)
    documents_llm_key: SecretStr | None = Field(None, description="Bearer token of that address.")
    documents_llm_timeout: float = Field(30.0, gt=0, le=600, description="Seconds an answer takes.")
    ai_assistant_use_async: Annotated[bool, _names("AI_ASSISTANT_USE_ASYNC")] = Field(
        False, description="Whether the workload assistant answers in a task."
    )

    analytics_model: str = Field(
        "",
        description="Directory of a sentence-transformers model of at most 1024 dimensions for the "
        "workload analytics; empty: the built-in one.",
    )
    analytics_method: Literal["average", "dbscan", "hdbscan"] = Field(
        "average", description="How the workload analytics groups questions."
    )
    analytics_distance: float = Field(
        0.0, ge=0, le=2, description="Cosine distance within a group; 0: the method's own."
    )

    # -- places
    state_dir: Path = Field(Path("var"), description="Data, sockets, logs of this installation.")
    run_dir: Path = Field(Path(), description="Pidfiles and sockets; default state_dir/run.")
    log_dir: Path = Field(Path(), description="Log files; default state_dir/log.")
    spool_dir: Path = Field(
        Path(), description="Outcomes kept while PostgreSQL is away; default state_dir/spool."
    )
    spool_max_mb: Count = Field(
        64, description="A worker spools at most so much; then it holds acknowledgements back."
    )
    env_file: Path | None = Field(None, description="The file these settings were read from.")

    # -- secrets
    api_token: SecretStr | None = Field(None, description="Bearer token of the HTTP API.")
    dashboard_viewer_password: SecretStr | None = Field(
        None,
        description="Password of the account `viewer`, which may look; empty: no such account.",
    )
    dashboard_operator_password: SecretStr | None = Field(
        None, description="Password of the account `operator`, which may change; empty: none such."
    )
    alerts_token: SecretStr | None = Field(
        None, description="Bearer token by which Alertmanager hands over alerts for chats."
    )
    flower_basic_auth: Annotated[SecretStr | None, _names("FLOWER_BASIC_AUTH")] = Field(
        None, description="user:password of Flower; several separated by commas."
    )
    encryption_key: SecretStr | None = Field(
        None, description="Fernet key for sensitive arguments; older keys follow, comma-separated."
    )

    # -- workers
    worker_count: Annotated[Count, _names("WORKER_COUNT")] = Field(
        1, description="Workers supervised on a host."
    )
    worker_concurrency: Annotated[
        Count, _names("WORKER_CONCURRENCY", "CELERY_WORKER_CONCURRENCY")
    ] = Field(2, description="Tasks that run at once in each worker.")
    worker_queues: str = Field("", description="Queues consumed, comma-separated; empty: all.")
    worker_pool: Literal["ironbeat", "prefork", "threads", "solo", "eventlet", "gevent"] = (
        "ironbeat"
    )
    worker_prefetch_multiplier: Annotated[int, _names("CELERY_WORKER_PREFETCH_MULTIPLIER")] = Field(
        1, ge=0
    )
    worker_max_tasks_per_child: Annotated[
        int, _names("WORKER_MAX_TASKS_PER_CHILD", "CELERY_WORKER_MAX_TASKS_PER_CHILD")
    ] = Field(1000, ge=0, description="A worker recycles after so many tasks; 0: never.")
    worker_max_memory_mb: int = Field(
        512, ge=0, description="A worker recycles above this resident size; 0: never."
    )
    task_acks_late: Annotated[bool, _names("CELERY_TASK_ACKS_LATE")] = True
    task_reject_on_worker_lost: Annotated[bool, _names("CELERY_TASK_REJECT_ON_WORKER_LOST")] = True
    task_soft_time_limit: Seconds = Field(600, description="Seconds until a task is asked to end.")
    task_time_limit: Seconds = Field(900, description="Seconds until a task is ended.")
    drain_seconds: int = Field(
        0,
        ge=0,
        description="How long a stopping worker may finish; default: the hard limit (a laptop's "
        "waits for the longest hard limit of its workloads).",
    )
    lease_seconds: float = Field(
        6.0, gt=0, description="Without renewal for so long, a process counts as dead."
    )
    lease_renew_seconds: float = Field(2.0, gt=0)
    poison_limit: Count = Field(3, description="Worker deaths after which a run is dead.")
    throttles: str = Field(
        "",
        description="Limits over all workers: `TASK=100/m,concurrency:5,key:customer; TASK=…`.",
    )

    # -- overload
    worker_spares: int = Field(
        0, ge=0, description="Workers the scaler may add on a host while work piles up."
    )
    scale_up_backlog: Count = Field(
        10, description="Waiting messages for each worker that call for another one."
    )
    scale_up_seconds: float = Field(5.0, gt=0, description="For how long there must be so many.")
    scale_down_seconds: float = Field(
        60.0, gt=0, description="How long next to nothing must wait until a spare is stopped."
    )
    stall_seconds: Seconds = Field(
        60, description="After so many seconds without a sign of life the watchdog ends a process."
    )
    queue_limits: str = Field(
        "", description="Waiting runs a queue may hold: `default=100000,mail=5000`; 0: any number."
    )
    broker_backlog: int = Field(
        100_000, ge=0, description="Messages of a queue in Redis; more wait in the ledger. 0: all."
    )
    broker_memory_percent: int = Field(
        70, ge=0, le=95, description="Share of Redis' memory that messages may fill; 0: all of it."
    )

    # -- RQ, the second carrier of messages
    rq_worker_count: int = Field(
        2, ge=0, description="Workers of RQ's supervised on a host, where RQ is used."
    )
    rq_job_timeout: Seconds = Field(600, description="Seconds a job of RQ's may take.")
    rq_result_ttl: int = Field(86400, ge=0, description="Seconds that RQ keeps a result.")
    rq_failure_ttl: int = Field(604800, ge=0, description="Seconds that RQ keeps a failed job.")
    rq_max_connections: Count = Field(20, description="Connections of a process to RQ's Redis.")
    rq_dashboard_host: str = "127.0.0.1"
    rq_dashboard_port: Port = 9181
    rq_dashboard_auth: SecretStr | None = Field(
        None, description="user:password of RQ's dashboard; Flower's where it is not given."
    )

    # -- faces
    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    api_workers: Count = 4
    api_timeout: Seconds = Field(120, description="Seconds an HTTP request may take.")
    api_max_body_bytes: int = Field(
        2 * 1024 * 1024, ge=1024, description="A larger HTTP request is refused."
    )
    session_hours: float = Field(
        12.0, gt=0, le=720, description="Hours until somebody has to log in to the dashboard again."
    )
    audit_days: Count = Field(400, description="Days that the audit of changes is kept.")
    audit_submissions: bool = Field(
        True,
        description="Whether tasks submitted over HTTP are in the audit, a row each.",
    )
    monitoring_networks: str = Field(
        "", description="Networks (CIDR, comma-separated) that may read /health and /metrics."
    )
    flower_host: str = "127.0.0.1"
    flower_port: Annotated[Port, _names("FLOWER_PORT")] = 5555

    # -- watching
    log_level: Annotated[LogLevel, _names("CELERY_LOG_LEVEL", general=("LOG_LEVEL",))] = "INFO"
    log_levels: str = Field(
        "", description="Other levels by module: `celery=WARNING,ironbeat.runs=DEBUG`."
    )
    log_file: Annotated[Path | None, _names("CELERY_LOG_FILE")] = Field(
        None, description="Where a program logs; default: standard error."
    )
    sentry_dsn: Annotated[SecretStr | None, _names(general=("SENTRY_DSN",))] = None
    heartbeat_url: SecretStr | None = Field(
        None, description="Outside monitor that beat pings while all is well (Healthchecks)."
    )
    heartbeat_seconds: float = Field(30.0, ge=1, description="How often beat pings it.")
    heartbeat_schedule_url: SecretStr | None = Field(
        None,
        description="Address with {slug} pinged at start, success and failure of schedules' runs.",
    )
    heartbeat_schedules: str = Field(
        "", description="Schedules told of there, comma-separated, * and ? allowed; empty: all."
    )
    history_days: Count = Field(30, description="Days that ended runs are kept.")

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def boxes(self) -> Path:
        """Where the processes of this host leave their black boxes."""
        return self.state_dir / "processes"

    @property
    def stop_seconds(self) -> int:
        """Seconds a supervisor must wait for a worker before it kills it (``stopwaitsecs``)."""
        return self.drain_seconds + STOP_MARGIN_SECONDS

    @property
    def enabled_workloads(self) -> tuple[str, ...] | None:
        """The names in ``workloads``; ``None`` for all that are installed."""
        return _listed(self.workloads) or None

    @property
    def consumed_queues(self) -> tuple[str, ...] | None:
        """The names in ``worker_queues``; ``None`` for every queue of the enabled workloads."""
        return _listed(self.worker_queues) or None

    @property
    def heartbeat_patterns(self) -> tuple[str, ...]:
        """The patterns in ``heartbeat_schedules``."""
        return _listed(self.heartbeat_schedules)

    @property
    def monitors(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks in ``monitoring_networks``."""
        return tuple(ipaddress.ip_network(part) for part in _listed(self.monitoring_networks))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then the names of this module's docstring."""
        return init_settings, _Environment(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, given: dict[str, Any]) -> dict[str, Any]:
        derived = dict(given)
        for field, value in _derived_urls(given).items():
            derived.setdefault(field, value)
        state_dir = Path(given.get("state_dir") or "var")
        derived.setdefault("run_dir", state_dir / "run")
        derived.setdefault("log_dir", state_dir / "log")
        derived.setdefault("spool_dir", state_dir / "spool")
        derived.setdefault("drain_seconds", given.get("task_time_limit", 900))
        return derived

    @field_validator("log_level", mode="before")
    @classmethod
    def _level_name(cls, value: Any) -> Any:
        # A Celery worker leaves CELERY_LOG_LEVEL as a number to the processes that it starts.
        if isinstance(value, str) and value.isdigit():
            return logging.getLevelName(int(value))
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_levels")
    @classmethod
    def _known_levels(cls, value: str) -> str:
        log_levels(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            zoneinfo.ZoneInfo(value)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            raise ValueError("use an IANA zone name such as Asia/Taipei or UTC") from None
        return value

    @field_validator("database_url")
    @classmethod
    def _postgres_url(cls, value: SecretStr) -> SecretStr:
        return _checked_url(value, POSTGRES_SCHEMES)

    @field_validator("broker_url", "result_backend", "redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else _checked_url(value, REDIS_SCHEMES)

    @field_validator("documents_llm_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if value and (
            urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).netloc
        ):
            raise ValueError("use a URL that begins with http:// or https://")
        return value

    @field_validator("heartbeat_url", "heartbeat_schedule_url")
    @classmethod
    def _heartbeat(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        url = value.get_secret_value() if value is not None else ""
        if not url:
            return None
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError("use a URL that begins with http:// or https://")
        if info.field_name == "heartbeat_schedule_url" and "{slug}" not in url:
            raise ValueError("the URL must hold {slug}, where the schedule's name goes")
        return value

    @field_validator("flower_basic_auth", "rq_dashboard_auth")
    @classmethod
    def _user_and_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            for pair in value.get_secret_value().split(","):
                user, colon, password = pair.partition(":")
                if not (user and colon and password):
                    raise ValueError("use user:password, several separated by commas")
        return value

    @field_validator("encryption_key")
    @classmethod
    def _fernet_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            for key in value.get_secret_value().split(","):
                if not _is_fernet_key(key):
                    raise ValueError("use 32 random bytes in URL-safe base64 (a Fernet key)")
        return value

    @field_validator("monitoring_networks")
    @classmethod
    def _networks(cls, value: str) -> str:
        for part in _listed(value):
            try:
                ipaddress.ip_network(part)
            except ValueError as error:
                raise ValueError(f"{error}; use e.g. 10.0.0.0/24 or 10.0.0.5") from None
        return value

    @field_validator("workloads", "worker_queues")
    @classmethod
    def _names_only(cls, value: str, info: ValidationInfo) -> str:
        for name in _listed(value):
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
                raise ValueError(f"{name!r} is no name; use names separated by commas")
        return value

    @field_validator("queue_limits")
    @classmethod
    def _caps(cls, value: str) -> str:
        queue_caps(value)
        return value

    @field_validator("throttles")
    @classmethod
    def _throttles(cls, value: str) -> str:
        throttle.parse(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        # DESIGN rule: soft limit < hard limit <= drain < stopwaitsecs < TimeoutStopSec.
        if self.task_soft_time_limit >= self.task_time_limit:
            raise ValueError(
                _contradiction(
                    ("task_soft_time_limit", self.task_soft_time_limit, "must be below"),
                    ("task_time_limit", self.task_time_limit, "raise the latter"),
                )
            )
        if self.drain_seconds < self.task_time_limit:
            raise ValueError(
                _contradiction(
                    ("drain_seconds", self.drain_seconds, "must not be below"),
                    ("task_time_limit", self.task_time_limit, "raise the former, or leave it out"),
                )
            )
        if self.lease_renew_seconds * 2 > self.lease_seconds:
            raise ValueError(
                _contradiction(
                    ("lease_renew_seconds", self.lease_renew_seconds, "must be at most half of"),
                    ("lease_seconds", self.lease_seconds, "raise the latter"),
                )
            )
        if self.flower_port == self.api_port and self.flower_host == self.api_host:
            raise ValueError(
                _contradiction(
                    ("flower_port", self.flower_port, "must differ from"),
                    ("api_port", self.api_port, "change one of them"),
                )
            )
        return self


def log_levels(text: str) -> dict[str, str]:
    """The levels in ``text`` (``module=LEVEL``, separated by commas) by module.

    Raises :class:`ValueError` naming the part that is no such pair.
    """
    found = {}
    for part in _listed(text):
        module, equals, level = (piece.strip() for piece in part.partition("="))
        if not (module and equals and level.upper() in get_args(LogLevel)):
            raise ValueError(
                f"{part!r} is not `module=LEVEL` with one of {', '.join(get_args(LogLevel))}"
            )
        found[module] = level.upper()
    return found


def queue_caps(text: str) -> dict[str, int]:
    """The caps in ``text`` (``QUEUE=NUMBER``, separated by commas) by queue; 0 is none.

    Raises :class:`ValueError` naming the part that is no such pair.
    """
    found = {}
    for part in _listed(text):
        queue, equals, number = (piece.strip() for piece in part.partition("="))
        if not (equals and queue and number.isdigit()):
            raise ValueError(f"{part!r} is not `QUEUE=NUMBER`, e.g. default=100000")
        found[queue] = int(number)
    return found


@dataclass(frozen=True)
class Setting:
    """One setting as it is: its value (masked when secret), where from, and what sets it."""

    name: str
    value: Any
    origin: str
    secret: bool
    names: tuple[str, ...]
    description: str


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises :class:`SettingsError` that names every bad value. ``get_settings.cache_clear()`` makes
    the next call read them anew.
    """
    given = given_values()
    try:
        settings = Settings()
    except ValidationError as error:
        raise SettingsError(_explain(error, given)) from None
    settings._origins.update({field: value.origin for field, value in given.items()})
    return settings


def describe(settings: Settings) -> Iterator[Setting]:
    """Every setting with its value, origin and names, in the order of the class."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        secret = isinstance(value, SecretStr) or "SecretStr" in str(field.annotation)
        yield Setting(
            name=name,
            value=_masked(value) if secret else value,
            origin=settings._origins.get(name) or _derived_origin(settings, name) or "default",
            secret=secret,
            names=names_of(name),
            description=field.description or "",
        )


def names_of(field: str) -> tuple[str, ...]:
    """All names that set ``field``, the most specific first."""
    names = _metadata(Settings.model_fields[field])
    return (PREFIX + field.upper(), *names.specific, *names.general)


def unknown_names(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Names beginning with ``IRONBEAT_`` that set nothing, each with the nearest that does."""
    environment = os.environ if environment is None else environment
    known = {PREFIX + field.upper() for field in Settings.model_fields} | PLACES
    given = {*environment, *_file_values(settings_file(environment))}
    return {
        name: next(iter(get_close_matches(name, known, 1)), "")
        for name in sorted(given)
        if name.startswith(PREFIX) and name not in known
    }


# -- where values come from


@dataclass(frozen=True)
class Given:
    """A value as it was given, and by which name of which place."""

    value: str
    name: str
    place: str

    @property
    def origin(self) -> str:
        """Name and place, for people."""
        return f"{self.name} ({self.place})"


def given_values(environment: Mapping[str, str] | None = None) -> dict[str, Given]:
    """What the environment and the settings file say, by field, not yet validated.

    Raises :class:`SettingsError` when two names of the same setting differ.
    """
    environment = os.environ if environment is None else environment
    path = settings_file(environment)
    raw = {name: Given(value, name, str(path)) for name, value in _file_values(path).items()}
    raw.update(
        {name: Given(value, name, "environment") for name, value in environment.items() if value}
    )
    found: dict[str, Given] = {}
    conflicts: list[str] = []
    for field in Settings.model_fields:
        if field == "env_file":
            continue
        names = _metadata(Settings.model_fields[field])
        for tier in ((PREFIX + field.upper(), *names.specific), names.general):
            given = [raw[name] for name in tier if name in raw]
            differing = [each for each in given if each.value != given[0].value]
            if differing:
                conflicts.append(_conflict(field, given[0], differing[0]))
            if given:
                found[field] = given[0]
                break
    if conflicts:
        raise SettingsError("\n".join(conflicts))
    if path is not None:
        found["env_file"] = Given(
            str(path), ENV_FILE, "environment" if ENV_FILE in environment else "found there"
        )
    return found


def settings_file(environment: Mapping[str, str]) -> Path | None:
    """The file of settings: what ``IRONBEAT_ENV_FILE`` names, else the one of this installation."""
    if named := environment.get(ENV_FILE):
        return Path(named)
    # A checkout keeps its environment in .venv and its state in var, side by side.
    for candidate in (Path(sys.prefix).parent / "var" / "env", Path("/etc/ironbeat/env")):
        if os.access(candidate, os.R_OK):
            return candidate
    return None


def _file_values(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & 0o007:
            raise SettingsError(
                f"{path} holds secrets and everybody may read it; run: chmod 640 {path}"
            )
        with path.open() as file:
            values = dotenv_values(stream=file, interpolate=False)
    except OSError as error:
        raise SettingsError(
            f"{ENV_FILE}={path} cannot be read: {error.strerror}; correct the name, or give this "
            "user the right to read it"
        ) from error
    return {name: value for name, value in values.items() if value}


class _Environment(PydanticBaseSettingsSource):
    """Feeds :func:`given_values` to pydantic-settings."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        return {field: given.value for field, given in given_values().items()}


def _metadata(field: FieldInfo) -> Names:
    return next((each for each in field.metadata if isinstance(each, Names)), Names())


# -- values made from others


def _derived_urls(given: Mapping[str, Any]) -> dict[str, str]:
    """``broker_url`` and ``result_backend`` where they were not given themselves."""
    numbers = {
        "broker_url": given.get("redis_db_broker", 1),
        "result_backend": given.get("redis_db_backend", 2),
    }
    if one := _plain(given.get("redis_url")):
        # With a database number of its own it holds both, as its owners have it.
        if _has_database(one):
            return dict.fromkeys(numbers, one)
        return {field: _with_database(one, number) for field, number in numbers.items()}
    if not any(field in given for field in ("redis_host", "redis_port", "redis_password")) and (
        broker := _plain(given.get("broker_url"))
    ):
        # Results go to the server of the messages, unless something says otherwise.
        return {"result_backend": _with_database(broker, numbers["result_backend"])}
    password = _plain(given.get("redis_password"))
    credentials = f":{quote(password, safe='')}@" if password else ""
    host = given.get("redis_host", "localhost")
    host = f"[{host}]" if ":" in str(host) else host
    return {
        field: f"redis://{credentials}{host}:{given.get('redis_port', 6379)}/{number}"
        for field, number in numbers.items()
    }


def _has_database(url: str) -> bool:
    parts = urlsplit(url.split(";")[0])
    if parts.scheme == "redis+socket":
        return "virtual_host=" in parts.query
    return parts.path.strip("/") != ""


def _with_database(url: str, number: Any) -> str:
    if ";" in url:  # several sentinels: each part of the list is a URL
        return ";".join(_with_database(part, number) for part in url.split(";"))
    if url.startswith("redis+socket:"):
        address, _, query = url.partition("?")
        kept = [each for each in query.split("&") if each and "virtual_host=" not in each]
        return f"{address}?{'&'.join([*kept, f'virtual_host={number}'])}"
    return urlunsplit(urlsplit(url)._replace(path=f"/{number}"))


def _derived_origin(settings: Settings, name: str) -> str | None:
    sources = {
        "broker_url": ("redis_url", "redis_host", "redis_port", "redis_db_broker"),
        "result_backend": ("redis_url", "broker_url", "redis_host", "redis_db_backend"),
        "run_dir": ("state_dir",),
        "log_dir": ("state_dir",),
        "spool_dir": ("state_dir",),
        "drain_seconds": ("task_time_limit",),
    }.get(name, ())
    for source in sources:
        if origin := settings._origins.get(source):
            return f"derived from {origin}"
    return None


def client_url(url: str) -> str:
    """A broker's ``url``, as Celery wants it, for redis-py, which spells unix sockets otherwise."""
    if not url.startswith("redis+socket:"):
        return url
    parts = urlsplit(url)
    number = parse_qs(parts.query).get("virtual_host", ["0"])[0].lstrip("/")
    return urlunsplit(parts._replace(scheme="unix", query=f"db={number}"))


# -- checks and messages


def _checked_url(value: SecretStr, schemes: tuple[str, ...]) -> SecretStr:
    url = value.get_secret_value()
    try:
        parts = urlsplit(url.split(";")[0])
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_valid = urlsplit(""), False
    if parts.scheme not in schemes or not port_is_valid:
        raise ValueError(f"use a URL that begins with {', '.join(f'{s}://' for s in schemes)}")
    return value


def _is_fernet_key(text: str) -> bool:
    try:
        return len(base64.urlsafe_b64decode(text)) == 32
    except (binascii.Error, ValueError):
        return False


def _contradiction(first: tuple[str, Any, str], second: tuple[str, Any, str]) -> str:
    (a, a_value, relation), (b, b_value, fix) = first, second
    return f"{PREFIX}{a.upper()}={a_value} {relation} {PREFIX}{b.upper()}={b_value}: {fix}"


def _conflict(field: str, first: Given, second: Given) -> str:
    def shown(given: Given) -> str:
        if "SecretStr" in str(Settings.model_fields[field].annotation):
            return given.origin
        return f"{given.name}={given.value} ({given.place})"

    return (
        f"{shown(first)} and {shown(second)} set the same setting, {field}, differently: "
        f"remove one of them"
    )


def _explain(error: ValidationError, given: Mapping[str, Given]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            lines.append(message)
            continue
        field = str(problem["loc"][0])
        annotation = str(Settings.model_fields[field].annotation)
        name = given[field].name if field in given else PREFIX + field.upper()
        place = f" ({given[field].place})" if field in given else ""
        value = "" if "SecretStr" in annotation else f"={problem['input']}"
        lines.append(f"{name}{value}{place}: {message}")
    return "\n".join(lines)


def _masked(value: SecretStr | None) -> str | None:
    """A secret with all but its harmless parts hidden: of a URL, the password only."""
    if value is None:
        return None
    text = value.get_secret_value()
    if "://" not in text:
        return MASK
    return ";".join(_masked_url(part) for part in text.split(";"))


def _masked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    account, at, _ = parts.netloc.rpartition("@")
    if at and ":" in account:
        url = url.replace(f"//{account}@", f"//{account.partition(':')[0]}:{MASK}@", 1)
    elif at and parts.scheme in ("http", "https"):  # a key, as in Sentry's DSN
        url = url.replace(f"//{account}@", f"//{MASK}@", 1)
    return re.sub(r"(password=)[^&]*", rf"\g<1>{MASK}", url)


def _plain(value: Any) -> str | None:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return str(value) if value else None


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part for part in (each.strip() for each in text.split(",")) if part)
