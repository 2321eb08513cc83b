"""The embedded servers: private, durable enough, and back after a crash."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from ironbeat.embedded import EmbeddedError, ServerProcess, temporary_postgres, temporary_redis
from ironbeat.embedded import account as accounts
from ironbeat.embedded.account import Account, account_for, servers_directory, socket_directory
from ironbeat.embedded.postgres import Postgres
from ironbeat.embedded.temporary import answers, free_port


def test_postgres_asks_for_the_password_and_has_pgvector(postgres_server: ServerProcess) -> None:
    with psycopg.connect(postgres_server.url) as connection:
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'").fetchone() == (2.0,)
        row = connection.execute("SELECT usesuper FROM pg_user WHERE usename = current_user")
        assert row.fetchone() == (False,)
    without = postgres_server.url.replace("@", "wrong@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(without)


def test_redis_asks_for_the_password_and_never_evicts(redis_server: ServerProcess) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        policy = client.config_get("maxmemory*")
    assert policy["maxmemory-policy"] == "noeviction"
    assert policy["maxmemory"] == str(2 * 1024**3)
    address = redis_server.url.rpartition("@")[2]
    with (
        redis.Redis.from_url(f"redis://{address}") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_no_server_runs_as_root_or_shows_its_password(
    postgres_server: ServerProcess, redis_server: ServerProcess
) -> None:
    for server in (postgres_server, redis_server):
        process = psutil.Process(server.pid)
        assert process.uids().real != 0
        password = server.url.partition("//")[2].rpartition("@")[0].rpartition(":")[2]
        assert password not in " ".join(process.cmdline())


def test_postgres_listens_on_loopback_only(postgres_server: ServerProcess) -> None:
    listening = {
        each.laddr.ip
        for each in psutil.Process(postgres_server.pid).net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_committed_rows_survive_a_killed_postgres() -> None:
    with temporary_postgres() as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept (id int)")
        server.kill()
        assert not server.running
        server.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_postmaster_killed_alone_comes_back() -> None:
    # Its backends still hold the shared memory for a moment.
    with temporary_postgres() as server:
        connection = psycopg.connect(server.url, autocommit=True)
        psutil.Process(server.pid).kill()
        while server.running:
            time.sleep(0.01)
        server.start()
        with psycopg.connect(server.url) as again:
            assert again.execute("SELECT 1").fetchone() == (1,)
        connection.close()


def test_written_keys_survive_a_killed_redis() -> None:
    with temporary_redis(append_only=True) as server, redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        time.sleep(1.1)
        server.kill()
        server.start()
        assert client.get("kept") == b"yes"


def test_a_paused_server_does_not_answer() -> None:
    with (
        temporary_redis() as server,
        redis.Redis.from_url(server.url, socket_timeout=0.3, retry=None) as client,
    ):
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert client.ping()


def make(home: Path, **changes: object) -> Postgres:
    home.parent.chmod(0o755)
    values: dict[str, object] = {
        "home": home,
        "port": free_port(),
        "user": "ironbeat",
        "password": "first",
        "database": "ironbeat",
        "account": account_for(home.parent),
        "durable": False,
    }
    return Postgres(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def home() -> Iterator[Path]:
    # pytest's own directories are closed to the ordinary user that root's servers run as.
    with tempfile.TemporaryDirectory(prefix="ironbeat-test-") as directory:
        yield Path(directory) / "postgres"


def test_everything_in_the_home_is_private(home: Path) -> None:
    make(home).prepare()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "superuser-password").stat().st_mode) == 0o600


def test_data_of_another_version_are_not_touched(home: Path) -> None:
    make(home).prepare()
    (home / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match="made by PostgreSQL 17, this is 18"):
        make(home).prepare()


def test_a_lock_left_behind_with_a_pid_in_use_is_cleared(home: Path) -> None:
    make(home).prepare()
    (home / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{home / 'data'}\n")
    make(home).prepare()
    assert not (home / "data" / "postmaster.pid").exists()


def test_a_second_server_on_the_same_data_is_refused(home: Path) -> None:
    first = make(home)
    url = f"postgresql://ironbeat:first@127.0.0.1:{first.port}/ironbeat"
    server = ServerProcess(
        url, first.prepare, lambda: answers(url), home.parent / "log", signal.SIGINT
    )
    server.start()
    try:
        with pytest.raises(EmbeddedError, match=f"already runs .*pid {server.pid}\\)"):
            make(home).prepare()
    finally:
        server.stop()


def test_long_paths_get_a_short_socket_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 30)
    deep.mkdir()
    sockets = socket_directory(deep, Account())
    assert len(str(sockets)) < 90
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert socket_directory(deep, Account()) == sockets
    sockets.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run as somebody else")
def test_data_stay_where_they_were_begun(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    above = home.parent
    monkeypatch.setattr(accounts, "SHELTER", above / "shelter")
    nobody = Account(65534, 65534)
    for kept in ("there", "sheltered"):
        (above / kept / "var").mkdir(parents=True)
    above.chmod(0o755)
    there, sheltered = (above / kept / "var" for kept in ("there", "sheltered"))
    sheltered.parent.chmod(0o700)
    shelter = servers_directory(sheltered, nobody)
    assert shelter.parent == above / "shelter"
    assert servers_directory(there, nobody) == there
    for directory in (there, shelter):
        (directory / "postgres" / "data").mkdir(parents=True)
    # What could be entered no longer can, and the other way round.
    there.parent.chmod(0o700)
    sheltered.parent.chmod(0o755)
    with pytest.raises(PermissionError, match=f"can no longer reach its data in {there}"):
        servers_directory(there, nobody)
    assert servers_directory(sheltered, nobody) == shelter


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    def run(*arguments: str, **names: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ironbeat.embedded", *arguments],
            env={**os.environ, "IRONBEAT_STATE_DIR": str(tmp_path), **names},
            capture_output=True,
            text=True,
        )

    assert run("mysql").returncode == 2
    far = run("postgres", IRONBEAT_DATABASE_URL="postgresql://a:b@db.example/x")
    assert far.returncode == 1
    assert "db.example" in far.stderr
    bare = run("redis", IRONBEAT_BROKER_URL="redis://127.0.0.1:7000/1")
    assert bare.returncode == 1
    assert "has no password" in bare.stderr
