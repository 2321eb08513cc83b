import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ironbeat.cli import pidfile
from ironbeat.cli.failures import CommandError, ExitStatus
from ironbeat.cli.programs import node_name


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        ("3", {}, "worker-03@h"),
        ("12", {}, "worker-12@h"),
        ("models-1", {}, "models-1@h"),
        ("worker_04", {}, "worker-04@h"),
        ("a@elsewhere", {}, "a@elsewhere"),
        (None, {"SUPERVISOR_PROCESS_NAME": "worker_07"}, "worker-07@h"),
        (None, {}, "worker-4711@h"),
    ],
)
def test_two_workers_of_a_host_never_share_a_name(
    name: str | None, environment: dict[str, str], expected: str
) -> None:
    assert node_name(name, "h", environment=environment, pid=4711) == expected


def test_a_pidfile_holds_the_number_and_goes_with_its_program(tmp_path: Path) -> None:
    path = tmp_path / "run" / "beat.pid"
    with pidfile.held(path, "beat"):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_stale_pidfile_is_taken_over_even_if_its_number_lives_again(tmp_path: Path) -> None:
    path = tmp_path / "beat.pid"
    path.write_text(f"{os.getppid()}\n and more than the new number needs")
    with pidfile.held(path, "beat"):
        assert path.read_text() == f"{os.getpid()}\n"


HOLDER = """
import sys, time
from pathlib import Path
from ironbeat.cli import pidfile
with pidfile.held(Path(sys.argv[1]), "beat"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_program_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "beat.pid"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(CommandError, match=str(holder.pid)) as refused,
            pidfile.held(path, "beat"),
        ):
            pass
        assert refused.value.status is ExitStatus.REFUSED
        assert path.read_text() == f"{holder.pid}\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        assert path.exists()
        with pidfile.held(path, "beat"):
            assert path.read_text() == f"{os.getpid()}\n"
    finally:
        holder.kill()
        holder.wait(10)


FORKING = """
import os, sys
from pathlib import Path
from ironbeat.cli import pidfile
path = Path(sys.argv[1])
with pidfile.held(path, "worker"):
    child = os.fork()
    if not child:
        sys.exit(0)
    os.waitpid(child, 0)
    print(path.read_text().strip() == str(os.getpid()))
"""


def test_a_forked_child_leaves_its_parents_pidfile_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "worker.pid")
    ran = subprocess.run(
        [sys.executable, "-c", FORKING, path], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "True\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CommandError, match="cannot be written") as refused,
        pidfile.held(tmp_path / "file" / "x.pid", "beat"),
    ):
        pass
    assert refused.value.status is ExitStatus.SETTINGS
