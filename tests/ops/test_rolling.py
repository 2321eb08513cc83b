"""Restarts on a real supervisord, reached over real SSH: drained, killed, aborted, replaced."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ops.conftest import Site

from scripts.ops import restart, roll
from scripts.ops.reach import SshReach
from scripts.ops.restart import Rolled
from scripts.ops.roll import Candidate
from scripts.ops.supervisord import Supervisor, SupervisorError

# Programs as they behave on TERM: one ends at once, one finishes what it does, one never ends, and
# one does not come back once a file is there.
FILES = """
[program:prompt]
command=sleep 600
startsecs=0
autorestart=true
[program:drain]
command=sh -c 'trap "sleep 2; exit 0" TERM; while :; do sleep 0.1; done'
process_name=drain_%(process_num)02d
numprocs=2
startsecs=0
autorestart=true
stopwaitsecs=30
[program:stubborn]
command=sh -c 'trap "" TERM; while :; do sleep 0.1; done'
startsecs=0
autorestart=true
stopwaitsecs=2
[program:fragile]
command=sh -c 'if test -e broken; then echo it is broken; echo mend it; exit 1; fi; exec sleep 600'
startsecs=1
startretries=1000
autorestart=true
"""


def wait_until(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Rig:
    """A supervisord with its programs in a directory of its own."""

    def __init__(self, home: Path, site: Site) -> None:
        self.home = home
        self.reached = SshReach(site.host())
        self.supervisor = Supervisor(self.reached, str(home / "s"))
        self.write(FILES)

    def write(self, programs: str) -> None:
        """Its file, with these programs."""
        settings = (
            "[unix_http_server]\nfile=s\n[supervisord]\nnodaemon=true\nlogfile=log\npidfile=pid\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        )
        (self.home / "conf").write_text(settings + programs)

    def all_run(self) -> bool:
        try:
            return all(each.state == "RUNNING" for each in self.supervisor.processes())
        except SupervisorError:
            return False

    def candidates(self, *programs: str) -> list[Candidate]:
        bounds, changed = self.supervisor.bounds(), self.supervisor.changed_groups()
        processes = self.supervisor.processes()
        found = [restart.candidate("here", each, bounds, changed) for each in processes]
        return roll.chosen(found, programs)

    def restart(self, *programs: str) -> Rolled:
        sites = {"here": restart._Site(self.reached, self.supervisor, "here")}
        waves = roll.plan(self.candidates(*programs))
        return restart._Rolling(sites, tell=None).through(waves)

    def pids(self) -> dict[str, int]:
        return {each.full_name: each.pid for each in self.supervisor.processes()}


@pytest.fixture(scope="module")
def rig(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    # The path of a socket may have a hundred characters only.
    home = tmp_path_factory.mktemp("rig")
    rig = Rig(home, site)
    program = str(Path(sys.executable).parent / "supervisord")
    process = subprocess.Popen([program, "-c", "conf"], cwd=home, stdout=subprocess.DEVNULL)
    try:
        wait_until(rig.all_run, "all programs run")
        yield rig
    finally:
        process.terminate()
        process.wait(60)
        rig.reached.close()


def test_each_process_is_drained_one_after_another(rig: Rig) -> None:
    before = rig.pids()
    rolled = rig.restart("drain")
    assert rolled.ok and [each.name for each in rolled.done] == ["drain:drain_00", "drain:drain_01"]
    after = rig.pids()
    for each in rolled.done:
        assert not each.killed and each.drained_seconds >= 2
        assert after[each.name] == each.pid != before[each.name]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"drain:drain_00", "drain:drain_01"}


def test_one_that_does_not_end_is_killed_at_its_deadline_and_not_before(rig: Rig) -> None:
    rolled = rig.restart("stubborn")
    (done,) = rolled.done
    assert rolled.ok and done.killed and done.drained_seconds >= 2
    assert "killed at its deadline" in restart.done_line(done)


def test_one_that_does_not_come_back_stops_everything_and_says_why(rig: Rig) -> None:
    (rig.home / "broken").touch()
    before = rig.pids()
    try:
        rolled = rig.restart("fragile", "prompt")
    finally:
        (rig.home / "broken").unlink()
    (done,) = rolled.done
    assert not rolled.ok and not done.ok
    assert done.said == "ends at once, 4 times now: it is broken; mend it"
    assert rolled.left == ["here: prompt"] and rig.pids()["prompt"] == before["prompt"]
    lines = restart.outcome_lines(rolled, "production")
    assert "look at: fab logs -e production --limit here --program fragile" in lines
    # Once the cause is gone, restarting it brings it back.
    assert rig.restart("fragile").ok


def test_one_that_was_stopped_by_hand_is_started(rig: Rig) -> None:
    rig.supervisor.stop_group("prompt")
    wait_until(lambda: not rig.pids()["prompt"], "it stopped")
    (done,) = rig.restart("prompt").done
    assert done.ok and done.pid == rig.pids()["prompt"] > 0


def test_a_group_whose_file_changed_is_replaced_together(rig: Rig) -> None:
    before = rig.pids()
    rig.write(FILES.replace("numprocs=2", "numprocs=1"))
    (step,) = roll.plan(rig.candidates("drain"))[0].steps["here"]
    assert step.replace and step.names == ("drain:drain_00", "drain:drain_01")
    rolled = rig.restart("drain")
    assert rolled.ok and not any(each.killed for each in rolled.done)
    after = rig.pids()
    assert "drain:drain_01" not in after
    assert before["drain:drain_00"] != after["drain:drain_00"] > 0


def test_a_supervisord_that_is_not_there_is_told(site: Site, tmp_path: Path) -> None:
    nobody = Supervisor(SshReach(site.host()), str(tmp_path / "none"))
    with pytest.raises(SupervisorError, match="supervisord does not answer on") as error:
        nobody.processes()
    assert error.value.hint == "On the host: systemctl status supervisor"
