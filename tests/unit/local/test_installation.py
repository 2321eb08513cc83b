"""What an installation makes for itself, what it takes over, and what it keeps."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dotenv import dotenv_values

from ironbeat.local import installation as module
from ironbeat.local.installation import Installation, InstallationError
from ironbeat.local.ports import Promises, is_free
from ironbeat.settings import get_settings


@pytest.fixture
def root() -> Iterator[Path]:
    # pytest's own directories are too deep for sockets, which would then go elsewhere.
    with tempfile.TemporaryDirectory(prefix="ironbeat-") as directory:
        yield Path(directory) / "a clone"


@pytest.fixture
def make(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Prepare an installation as ``up`` would in this environment."""

    def make(running: bool = False, **environment: str) -> Installation:
        for each in made:
            each.promises.release()  # that `up` is over
        found = Installation(root, root / "var")
        made.append(found)
        found.prepare(environment, running)
        return found

    made: list[Installation] = []
    yield make
    for each in made:
        each.promises.release()
    get_settings.cache_clear()


def values(installation: Installation) -> dict[str, str | None]:
    return dotenv_values(installation.env_file, interpolate=False)


def test_first_use_generates_every_secret(make) -> None:
    found = values(make())
    passwords = {
        urlsplit(found["IRONBEAT_DATABASE_URL"]).password,
        urlsplit(found["IRONBEAT_BROKER_URL"]).password,
        found["IRONBEAT_API_TOKEN"],
        found["IRONBEAT_FLOWER_BASIC_AUTH"].partition(":")[2],
        found["IRONBEAT_ENCRYPTION_KEY"],
    }
    assert len(passwords) == 5
    assert all(len(each) >= 32 for each in passwords)


def test_the_file_is_not_for_everybody(make) -> None:
    assert stat.S_IMODE(make().env_file.stat().st_mode) == 0o640


def test_two_installations_share_no_secret(make, root: Path) -> None:
    first = values(make())
    other = Installation(root, root / "other")
    other.prepare({}, running=False)
    for name in ("IRONBEAT_API_TOKEN", "IRONBEAT_FLOWER_BASIC_AUTH", "IRONBEAT_ENCRYPTION_KEY"):
        assert first[name] != values(other)[name]


def test_the_second_time_nothing_changes(make) -> None:
    before = make().env_file.read_bytes()
    again = make()
    assert again.env_file.read_bytes() == before
    assert again.notes == []


def test_it_is_what_the_programs_then_read(make, monkeypatch: pytest.MonkeyPatch) -> None:
    installation = make()
    monkeypatch.setattr("os.environ", dict(installation.environment()))
    get_settings.cache_clear()
    settings = get_settings()
    found = values(installation)
    assert settings.database_url.get_secret_value() == found["IRONBEAT_DATABASE_URL"]
    assert settings.state_dir == installation.state_dir
    assert settings.run_dir == installation.run_dir


def test_both_servers_are_its_own_unless_given(make) -> None:
    assert make().embedded == ("postgres", "redis")


@pytest.mark.parametrize(
    ("environment", "embedded", "kept"),
    [
        (
            {"DATABASE_URL": "postgresql://u:p@db/x"},
            ("redis",),
            {"IRONBEAT_DATABASE_URL": "postgresql://u:p@db/x"},
        ),
        (
            {"REDIS_URL": "redis://:p@r:1/0"},
            ("postgres",),
            {"IRONBEAT_REDIS_URL": "redis://:p@r:1/0", "IRONBEAT_BROKER_URL": None},
        ),
        (
            {"CELERY_BROKER_URL": "redis://r/3", "CELERY_RESULT_BACKEND": "redis://r/4"},
            ("postgres",),
            {"IRONBEAT_BROKER_URL": "redis://r/3", "IRONBEAT_RESULT_BACKEND": "redis://r/4"},
        ),
        ({"REDIS_HOST": "r"}, ("postgres",), {"IRONBEAT_REDIS_HOST": "r"}),
        ({"USE_REDIS": "false"}, ("postgres",), {"IRONBEAT_USE_REDIS": "false"}),
        (
            {"IRONBEAT_REDIS_SERVER": "/usr/bin/redis-server"},
            ("postgres", "redis"),
            {"IRONBEAT_REDIS_SERVER": "/usr/bin/redis-server"},
        ),
    ],
)
def test_stores_of_the_users_own(make, environment, embedded, kept) -> None:
    installation = make(**environment)
    assert installation.embedded == embedded
    found = values(installation)
    assert {name: found.get(name) for name in kept} == kept


def test_the_stores_are_chosen_once(make) -> None:
    before = values(make())["IRONBEAT_DATABASE_URL"]
    again = make(DATABASE_URL="postgresql://elsewhere/x", REDIS_HOST="elsewhere")
    assert values(again)["IRONBEAT_DATABASE_URL"] == before
    assert "IRONBEAT_REDIS_HOST" not in values(again)
    assert sorted(note.split()[0] for note in again.notes) == ["DATABASE_URL", "REDIS_HOST"]
    # The same one again is nothing to speak of.
    assert make(DATABASE_URL=before).notes == []


def test_other_settings_are_taken_over_and_kept(make) -> None:
    make(WORKER_CONCURRENCY="4", FLOWER_BASIC_AUTH="ann:hers")
    found = values(make())
    assert found["IRONBEAT_WORKER_CONCURRENCY"] == "4"
    assert found["IRONBEAT_FLOWER_BASIC_AUTH"] == "ann:hers"
    assert values(make(CELERY_WORKER_CONCURRENCY="5"))["IRONBEAT_WORKER_CONCURRENCY"] == "5"


def test_what_the_user_wrote_stays(make, root: Path) -> None:
    (root / "var").mkdir(parents=True)
    env_file = root / "var" / "env"
    env_file.touch(mode=0o640)
    env_file.write_text("# ours\nWORKER_COUNT=3\nSENTRY_DSN=https://k@s.example/1\n")
    installation = make(WORKER_COUNT="2")
    lines = env_file.read_text().splitlines()
    assert lines[:3] == ["# ours", "WORKER_COUNT='2'", "SENTRY_DSN=https://k@s.example/1"]
    assert installation.embedded == ("postgres", "redis")


def test_a_moved_clone_follows_its_place(make, root: Path) -> None:
    make()
    place = root.rename(root.with_name("moved"))
    moved = Installation(place, place / "var")
    moved.prepare({}, running=False)
    assert values(moved)["IRONBEAT_LOG_DIR"] == str(place / "var" / "log")


# -- ports


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_taken_port_is_named_and_the_next_is_used(make, listener: int) -> None:
    installation = make(IRONBEAT_API_PORT=str(listener))
    used = int(values(installation)["IRONBEAT_API_PORT"])
    assert used > listener
    assert is_free(used)
    (note,) = [each for each in installation.notes if "the API" in each]
    assert f"port {listener} is taken" in note
    assert f"the API uses {used}" in note


def test_every_server_gets_a_port_of_its_own(make) -> None:
    found = values(make(IRONBEAT_API_PORT="20400", FLOWER_PORT="20400"))
    ports = [
        found["IRONBEAT_API_PORT"],
        found["IRONBEAT_FLOWER_PORT"],
        str(urlsplit(found["IRONBEAT_DATABASE_URL"]).port),
        str(urlsplit(found["IRONBEAT_BROKER_URL"]).port),
    ]
    assert len(set(ports)) == 4
    assert urlsplit(found["IRONBEAT_RESULT_BACKEND"]).port == int(ports[3])


def ports(installation: Installation) -> set[str | int | None]:
    found = values(installation)
    urls = (found["IRONBEAT_DATABASE_URL"], found["IRONBEAT_BROKER_URL"])
    programs = (found["IRONBEAT_API_PORT"], found["IRONBEAT_FLOWER_PORT"])
    return {*map(int, programs), *(urlsplit(url).port for url in urls)}


def test_two_that_come_up_at_once_choose_different_ports(make, root: Path) -> None:
    first = make()  # nobody listens yet
    other = Installation(root, root / "other")
    other.prepare({}, running=False)
    assert not ports(first) & ports(other)
    chosen = ports(other)
    other.prepare({}, running=False)
    assert ports(other) == chosen, "what it was promised itself is no hindrance"
    other.promises.release()


def test_a_promise_ends_with_its_process() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    held = f"from ironbeat.local.ports import Promises; kept = Promises(); print(kept.take({port}))"
    command = [sys.executable, "-c", f"{held}; input()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        with Promises() as promises:
            assert not promises.take(port)
            process.kill()
            process.wait(10)
            assert promises.take(port)
            assert not promises.take(port), "once only"
        with Promises() as others:
            assert others.take(port), "the first ones were released"


def test_while_the_programs_run_their_ports_stay(make, listener: int) -> None:
    assert values(make(running=True, IRONBEAT_API_PORT=str(listener)))["IRONBEAT_API_PORT"] == str(
        listener
    )


def test_no_free_port_is_said(make, listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTS_TRIED", 1)
    with pytest.raises(InstallationError, match=f"no port from {listener} to {listener} is free"):
        make(IRONBEAT_API_PORT=str(listener))


# -- what supervisord gets


def test_supervisord_gets_no_secret(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    installation = make(
        IRONBEAT_API_TOKEN="a-token-of-ours", DATABASE_URL="postgresql://u:hush@d/x"
    )
    monkeypatch.setattr("os.environ", dict(installation.environment()))
    get_settings.cache_clear()
    given = " ".join(installation.supervisor_environment().values())
    found = values(installation)
    for name in ("IRONBEAT_API_TOKEN", "IRONBEAT_ENCRYPTION_KEY", "IRONBEAT_BROKER_URL"):
        assert found[name] not in given
    assert "hush" not in given


@pytest.mark.parametrize(
    ("pool", "processes"), [("ironbeat", "6"), ("prefork", "2"), ("threads", "2")]
)
def test_how_many_worker_processes(make, monkeypatch, pool: str, processes: str) -> None:
    installation = make(WORKER_COUNT="2", WORKER_CONCURRENCY="3", IRONBEAT_WORKER_POOL=pool)
    monkeypatch.setattr("os.environ", dict(installation.environment()))
    get_settings.cache_clear()
    given = installation.supervisor_environment()
    assert given["IRONBEAT_WORKER_PROCESSES"] == processes


@pytest.mark.parametrize("name", ["50%", 'a "quote"', "back\\slash"])
def test_a_path_that_supervisord_cannot_use_is_refused(tmp_path: Path, name: str) -> None:
    installation = Installation(tmp_path / name, tmp_path / name / "var")
    with pytest.raises(InstallationError, match="move the directory"):
        installation.prepare({}, running=False)
    assert not installation.exists


def test_a_value_that_cannot_be_kept_is_refused(make) -> None:
    with pytest.raises(InstallationError, match="IRONBEAT_FLOWER_BASIC_AUTH holds a quote"):
        make(FLOWER_BASIC_AUTH="ann:it's")


@pytest.mark.parametrize(
    ("workloads", "seconds"), [("marketplace", "930"), ("marketplace,documents", "1830")]
)
def test_a_worker_is_given_the_time_that_any_of_its_tasks_may_take(
    make, monkeypatch, workloads: str, seconds: str
) -> None:
    """The platform's hard limit is 900 s, that of documents 1800."""
    installation = make(IRONBEAT_WORKLOADS=workloads)
    monkeypatch.setattr("os.environ", dict(installation.environment()))
    get_settings.cache_clear()
    assert installation.supervisor_environment()["IRONBEAT_STOP_SECONDS"] == seconds
