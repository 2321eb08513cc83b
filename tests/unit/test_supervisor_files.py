"""The rules that supervisor/ must keep, asserted on the files as supervisord itself reads them."""

from __future__ import annotations

import configparser
import getpass
import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
from supervisor.options import ServerOptions

from ironbeat.settings import Settings, unknown_names

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "supervisor").rglob("*.conf"))
PROGRAM_FILES = [path for path in FILES if path.name != "supervisord.conf"]
NUISANCE = "a dir, full; of #1 'quotes"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What supervisord finds in its environment; the paths are as unpleasant as paths can be."""
    directory = tmp_path / NUISANCE
    directory.mkdir()
    (directory / "env").touch(mode=0o640)
    settings = Settings()
    values = {
        "IRONBEAT_BIN": str(directory / "bin"),
        "IRONBEAT_USER": getpass.getuser(),
        "IRONBEAT_ENV_FILE": str(directory / "env"),
        "IRONBEAT_RUN_DIR": str(directory),
        "IRONBEAT_PID_DIR": str(directory / "programs"),
        "IRONBEAT_LOG_DIR": str(directory),
        "IRONBEAT_WORKER_PROCESSES": "3",
        "IRONBEAT_WORKER_SPARES": "2",
        "IRONBEAT_RQ_WORKERS": "2",
        "IRONBEAT_RQ_DASHBOARDS": "1",
        "IRONBEAT_STOP_SECONDS": str(settings.stop_seconds),
        "IRONBEAT_AUTOSTART": "true",
        "IRONBEAT_LOCAL_PROGRAMS": "local/postgres.conf local/redis.conf",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.fixture
def read(places: dict[str, str]) -> ServerOptions:
    options = ServerOptions()
    options.realize(["-c", str(ROOT / "supervisor" / "supervisord.conf")])
    assert options.parse_warnings == []
    return options


@pytest.fixture
def processes(read: ServerOptions) -> dict[str, Any]:
    return {
        process.name: process
        for group in read.process_group_configs
        for process in group.process_configs
    }


def test_the_programs_have_the_names_that_others_use(read: ServerOptions) -> None:
    groups = {
        group.name: [process.name for process in group.process_configs]
        for group in read.process_group_configs
    }
    assert groups == {
        "postgres": ["postgres"],
        "redis": ["redis"],
        "beat": ["beat"],
        "watchdog": ["watchdog"],
        "worker": ["worker_00", "worker_01", "worker_02"],
        "spare": ["worker_03", "worker_04"],
        "scaler": ["scaler"],
        "rq_worker": ["rq_worker_00", "rq_worker_01"],
        "rq_dashboard": ["rq_dashboard"],
        "flower": ["flower"],
        "api": ["api"],
    }


def test_the_stores_start_first_and_stop_last(read: ServerOptions) -> None:
    ordered = [group.name for group in sorted(read.process_group_configs)]
    assert ordered == [
        *("postgres", "redis", "beat", "watchdog", "worker", "spare", "scaler", "rq_worker"),
        *("flower", "rq_dashboard", "api"),
    ]


def test_the_stopping_ladder(processes: dict[str, Any]) -> None:
    settings = Settings()
    for name in ("worker_00", "worker_03"):
        assert (
            settings.task_soft_time_limit
            < settings.task_time_limit
            <= settings.drain_seconds
            < processes[name].stopwaitsecs
        )
    assert processes["api"].stopwaitsecs > settings.api_timeout
    # RQ's worker kills a child a minute after its time is over.
    assert processes["rq_worker_00"].stopwaitsecs > settings.rq_job_timeout + 60


def test_stopping_reaches_one_process_and_killing_the_group(processes: dict[str, Any]) -> None:
    for name, process in processes.items():
        assert not process.stopasgroup, name
        assert process.killasgroup, name


def test_postgres_shuts_down_fast(processes: dict[str, Any]) -> None:
    assert processes["postgres"].stopsignal == signal.SIGINT
    for name, process in processes.items():
        assert name == "postgres" or process.stopsignal == signal.SIGTERM


def test_everything_comes_back(processes: dict[str, Any]) -> None:
    for name, process in processes.items():
        assert process.autorestart is not False, name
        assert process.startretries >= 1000, name


def test_each_process_has_a_log_of_its_own_that_rotates(
    processes: dict[str, Any], places: dict[str, str]
) -> None:
    logs = [process.stdout_logfile for process in processes.values()]
    assert len(set(logs)) == len(logs)
    for process in processes.values():
        assert Path(process.stdout_logfile).parent == Path(places["IRONBEAT_LOG_DIR"])
        assert process.redirect_stderr
        assert process.stdout_logfile_maxbytes > 0
        assert process.stdout_logfile_backups > 0


def test_each_program_of_ours_has_a_pidfile_of_its_own(
    processes: dict[str, Any], places: dict[str, str]
) -> None:
    pidfiles = []
    for name, process in processes.items():
        words = shlex.split(process.command)
        assert words[0].startswith(places["IRONBEAT_BIN"] + "/"), "no shell, no wrapper"
        if words[0].endswith("/ironbeat"):
            pidfiles.append(words[words.index("--pidfile") + 1])
            assert pidfiles[-1] == f"{places['IRONBEAT_PID_DIR']}/{name}.pid"
    assert len(set(pidfiles)) == len(pidfiles) == 13


def test_the_programs_run_as_the_user_given(processes: dict[str, Any]) -> None:
    for name, process in processes.items():
        assert process.uid == (None if name in ("postgres", "redis") else os.getuid()), name


def test_control_is_a_private_socket_and_nothing_else(read: ServerOptions) -> None:
    (server,) = read.configroot.supervisord.server_configs
    assert Path(server["file"]).name == "supervisor.sock"
    assert server["chmod"] == 0o770


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_secret_and_no_environment_line(path: Path) -> None:
    parser = configparser.RawConfigParser()
    parser.read(path)
    for section in parser.sections():
        assert "environment" not in parser[section]
        assert "password" not in parser[section]
        for value in parser[section].values():
            assert not any(
                word in value.lower() for word in ("password", "token", "secret", "_url")
            )


@pytest.mark.parametrize("path", PROGRAM_FILES, ids=lambda path: path.name)
def test_one_file_a_program(path: Path) -> None:
    parser = configparser.RawConfigParser()
    parser.read(path)
    assert parser.sections() == [f"program:{path.stem}"]


def test_every_name_used_is_explained(places: dict[str, str]) -> None:
    explained = (ROOT / "supervisor" / "supervisord.conf").read_text()
    for name in places:
        assert f";   {name} " in explained


def test_no_name_of_a_place_counts_as_a_mistyped_setting(places: dict[str, str]) -> None:
    assert unknown_names(places) == {}


def test_spares_are_the_scaler_s_to_start(processes: dict[str, Any]) -> None:
    for name, process in processes.items():
        assert process.autostart is (name not in ("worker_03", "worker_04")), name


def test_there_need_be_no_spares(places: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRONBEAT_WORKER_SPARES", "0")
    options = ServerOptions()
    options.realize(["-c", str(ROOT / "supervisor" / "supervisord.conf")])
    [spare] = [group for group in options.process_group_configs if group.name == "spare"]
    assert spare.process_configs == []


def test_rq_need_not_be_there(places: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRONBEAT_RQ_WORKERS", "0")
    monkeypatch.setenv("IRONBEAT_RQ_DASHBOARDS", "0")
    options = ServerOptions()
    options.realize(["-c", str(ROOT / "supervisor" / "supervisord.conf")])
    names = [p.name for group in options.process_group_configs for p in group.process_configs]
    assert "worker_00" in names and not [name for name in names if name.startswith("rq_")]
