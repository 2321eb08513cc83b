"""What `up` says of programs that do not run."""

from __future__ import annotations

from pathlib import Path

from ironbeat.local.bringing import _told
from ironbeat.local.supervised import Process


def failed(tmp_path: Path, log: str) -> Process:
    path = tmp_path / "api.log"
    path.write_text(log)
    return Process("api", "api", "BACKOFF", 0, 0, path, "exited too quickly")


def test_the_end_of_the_log_is_shown_with_the_problem(tmp_path: Path) -> None:
    told = _told([failed(tmp_path, "one\ntwo\n")])
    assert (
        told == f"api is backoff (exited too quickly); {tmp_path}/api.log ends:\n    one\n    two"
    )


def test_of_a_port_that_somebody_took_meanwhile_it_says_what_to_do(tmp_path: Path) -> None:
    said = "ironbeat: the API cannot listen on 127.0.0.1:8000: Address already in use\n"
    told = _told([failed(tmp_path, said)])
    assert told.endswith("run scripts/up --down, then scripts/up, which takes the next free one.")
