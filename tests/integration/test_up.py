"""``scripts/up`` as a newcomer runs it: from a fresh copy of the tree, to a healthy suite and back.

One installation serves all tests of this file, in their order: it is brought up once, broken, used,
and taken down.
"""

from __future__ import annotations

import re
import socket
import stat
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from tests.installation import Clone, cloned, coming_up

# Making the environment and starting everything once; the rest waits for things that take seconds.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def clone() -> Iterator[Clone]:
    with cloned() as found:
        yield found


@pytest.fixture(scope="module")
def first(clone: Clone) -> Iterator[str]:
    """The first ``up``, with the usual port of the API taken by somebody else."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with coming_up():  # and not between the choice of an installation and its API
            try:
                other.bind(("127.0.0.1", 8000))
                other.listen()
            except OSError:
                pass  # somebody else has it already, which is as good
        done = clone.up()
        assert done.returncode == 0, done.stdout
        yield done.stdout


def eventually(question: Callable[[], object], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.2)


def test_before_anything_there_is_nothing_to_stop(clone: Clone) -> None:
    assert "Nothing" in clone.up("--down").stdout
    assert clone.up("--status").returncode == 3


def test_it_ends_healthy_and_says_where_everything_is(clone: Clone, first: str) -> None:
    status, health = clone.health()
    assert (status, health["status"]) == (200, "healthy")
    assert health["checks"]["celery_worker"] == "ok (2 workers)"
    assert f"http://127.0.0.1:{clone.settings['IRONBEAT_API_PORT']}" in first
    assert f"http://127.0.0.1:{clone.settings['IRONBEAT_FLOWER_PORT']}" in first
    assert re.search(r"IRONBEAT_FLOWER_BASIC_AUTH in .*var/env", first)
    assert len(first.partition("Next:")[2].strip().splitlines()) == 3


def test_a_taken_port_was_named_and_the_next_one_used(clone: Clone, first: str) -> None:
    assert "port 8000 is taken by another program; the API uses " in first
    assert int(clone.settings["IRONBEAT_API_PORT"]) > 8000


def test_no_secret_is_shown_anywhere(clone: Clone, first: str) -> None:
    from urllib.parse import urlsplit

    settings = clone.settings
    secrets = [
        settings["IRONBEAT_API_TOKEN"],
        settings["IRONBEAT_ENCRYPTION_KEY"],
        settings["IRONBEAT_FLOWER_BASIC_AUTH"].partition(":")[2],
        urlsplit(settings["IRONBEAT_DATABASE_URL"]).password,
        urlsplit(settings["IRONBEAT_BROKER_URL"]).password,
    ]
    shown = {"the output": first}
    for name, process in clone.processes().items():
        shown[f"the command line of {name}"] = " ".join(process.cmdline())
        shown[f"the environment of {name}"] = " ".join(process.environ().values())
    for log in (clone.directory / "var" / "log").iterdir():
        shown[log.name] = log.read_text(errors="replace")
    for place, text in shown.items():
        assert not [secret for secret in secrets if secret in text], place
    assert stat.S_IMODE((clone.directory / "var" / "env").stat().st_mode) == 0o640


def test_flower_asks_for_its_password(clone: Clone, first: str) -> None:
    url = f"http://127.0.0.1:{clone.settings['IRONBEAT_FLOWER_PORT']}/"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=10)
    assert refused.value.code == 401
    secret = b64encode(clone.settings["IRONBEAT_FLOWER_BASIC_AUTH"].encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {secret}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 200


def test_schedules_run_on_the_sample_rows(clone: Clone, first: str) -> None:
    def ran() -> bool:
        with psycopg.connect(clone.settings["IRONBEAT_DATABASE_URL"]) as connection:
            row = connection.execute(
                "SELECT count(DISTINCT schedule_name) FROM ironbeat.run_history"
                " WHERE state = 'succeeded'"
            ).fetchone()
        # The three of every 30 seconds at least.
        return bool(row and row[0] >= 3)

    eventually(ran, seconds=150)


def test_the_command_finds_its_installation_by_itself(clone: Clone, first: str) -> None:
    assert clone.ironbeat("health")["status"] == "healthy"


def test_a_second_up_is_harmless(clone: Clone, first: str) -> None:
    before = {name: process.pid for name, process in clone.processes().items()}
    settings = clone.settings
    again = clone.up()
    assert again.returncode == 0, again.stdout
    assert {name: process.pid for name, process in clone.processes().items()} == before
    assert clone.settings == settings
    assert "Sample rows" not in again.stdout


@pytest.mark.parametrize("name", ["worker_00", "beat", "redis", "postgres"])
def test_what_is_killed_comes_back(clone: Clone, first: str, name: str) -> None:
    before = clone.processes()[name]
    before.kill()
    eventually(lambda: name in (now := clone.processes()) and now[name].pid != before.pid)
    eventually(lambda: clone.health()[1].get("status") == "healthy")


def test_down_stops_everything_at_once_when_nothing_runs(clone: Clone, first: str) -> None:
    started = time.monotonic()
    done = clone.up("--down")
    assert done.returncode == 0, done.stdout
    assert time.monotonic() - started < 60
    assert clone.processes() == {}
    assert clone.up("--status").returncode == 3
    # Once more changes nothing.
    assert clone.up("--down").returncode == 0


def test_up_goes_on_with_the_same_data(clone: Clone, first: str) -> None:
    settings = clone.settings
    again = clone.up()
    assert again.returncode == 0, again.stdout
    assert "Sample rows" not in again.stdout
    for name in ("IRONBEAT_API_TOKEN", "IRONBEAT_FLOWER_BASIC_AUTH", "IRONBEAT_ENCRYPTION_KEY"):
        assert clone.settings[name] == settings[name]
    with psycopg.connect(clone.settings["IRONBEAT_DATABASE_URL"]) as connection:
        row = connection.execute("SELECT count(*) FROM ironbeat.run_history").fetchone()
    assert row and row[0] >= 3


def test_what_a_killed_supervisord_leaves_behind_is_stopped(clone: Clone, first: str) -> None:
    run_dir = Path(clone.settings["IRONBEAT_RUN_DIR"])
    psutil.Process(int((run_dir / "supervisord.pid").read_text())).kill()
    orphans = clone.processes()
    assert orphans.keys() == {
        "postgres",
        "redis",
        "beat",
        "worker_00",
        "worker_01",
        "flower",
        "api",
        "watchdog",
        "scaler",
    }
    # As `up` does before it starts their successors.
    done = clone.up("--down")
    assert done.returncode == 0, done.stdout
    for name in orphans:
        assert name in done.stdout
    assert clone.processes() == {}


def test_what_is_not_healthy_is_named_with_the_end_of_its_log(clone: Clone, first: str) -> None:
    data = clone.directory / "var" / "postgres" / "data"
    version = data / "PG_VERSION"
    kept = version.read_text()
    version.write_text("12\n")
    try:
        failed = clone.up()
    finally:
        version.write_text(kept)
        clone.up("--down", "--now")
    assert failed.returncode == 1
    assert "postgres is" in failed.stdout
    assert "was made by PostgreSQL 12, this is 18" in failed.stdout
