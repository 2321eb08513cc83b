"""Reaching a host over real SSH: what is run, carried, refused and told."""

from __future__ import annotations

import http.client
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest
from tests.ops.conftest import Site

from scripts.ops.failures import OpsError, Unreachable
from scripts.ops.inventory import SshOptions
from scripts.ops.reach import LocalReach, Reach, SshReach
from scripts.ops.tunnel import tunnel


@pytest.fixture
def reached(site: Site) -> Iterator[SshReach]:
    found = SshReach(site.host())
    found.open()
    yield found
    found.close()


@pytest.fixture(params=["ssh", "here"])
def either(request: pytest.FixtureRequest, site: Site) -> Iterator[Reach]:
    """A host over SSH, and this machine."""
    found = SshReach(site.host()) if request.param == "ssh" else LocalReach(site.host())
    found.open()
    yield found
    found.close()


def test_a_command_is_run_with_its_arguments_as_they_are(either: Reach) -> None:
    answer = either.run(["printf", "%s|", "a b", "$HOME", "'", "ä"])
    assert (answer.status, answer.out) == (0, "a b|$HOME|'|ä|")
    answer = either.run(["sh", "-c", "echo wrong >&2; exit 3"])
    assert (answer.status, answer.last_words) == (3, "wrong")


def test_what_a_command_says_on_the_way_is_heard_at_once(either: Reach, tmp_path: Path) -> None:
    heard: list[str] = []

    def hear(text: str) -> None:
        heard.append(text)
        (tmp_path / "heard").touch()

    # It ends only once somebody has heard it.
    wait = 'printf "begin\\303" >&2; while ! [ -e "$1" ]; do sleep 0.05; done; printf "\\244nd" >&2'
    answer = either.run(["sh", "-c", f"{wait}; echo done", "sh", f"{tmp_path}/heard"], 20, hear)
    assert (answer.status, answer.out, answer.err) == (0, "done\n", "beginänd")
    assert "".join(heard) == "beginänd"


def test_much_on_both_outputs_is_read_to_its_end(either: Reach) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' o; head -c 3000000 /dev/zero | tr '\\0' e >&2"
    answer = either.run(["sh", "-c", script], timeout=60)
    assert (len(answer.out), len(answer.err)) == (3_000_000, 3_000_000)


def test_a_command_that_does_not_end_is_given_up(either: Reach) -> None:
    with pytest.raises(Unreachable, match=r"no answer within 0\.5 s"):
        either.run(["sleep", "60"], timeout=0.5)


def test_lines_come_as_they_are_written(reached: SshReach) -> None:
    lines = reached.stream(["sh", "-c", "printf 'one\\nz\\303wei\\n'; sleep 60"])
    assert [next(lines), next(lines)] == ["one\n", "z\ufffdwei\n"]
    lines.close()  # type: ignore[attr-defined]
    with pytest.raises(OpsError, match="here: cannot go on"):
        list(reached.stream(["sh", "-c", "echo cannot go on >&2; exit 1"]))


def test_a_command_is_a_socket(reached: SshReach) -> None:
    channel = reached.duplex(["cat"])
    channel.sendall(b"there and back")
    assert channel.recv(100) == b"there and back"
    channel.close()


class _Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * 500_000)

    def log_message(self, *arguments: object) -> None:
        pass


def test_a_tunnel_carries_whole_answers_and_hangs_up_where_nobody_listens(
    reached: SshReach,
) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tunnel(reached, "api", 0, "127.0.0.1", server.server_port) as way:
            for _ in range(3):
                connection = http.client.HTTPConnection("127.0.0.1", way.port, timeout=30)
                connection.request("GET", "/")
                assert len(connection.getresponse().read()) == 500_000
            with pytest.raises(OpsError, match=f"port {way.port} of this laptop is taken"):
                tunnel(reached, "flower", way.port, "127.0.0.1", 1).__enter__()
        server.shutdown()


# -- who is not let in, and what is said of it


def test_a_host_whose_key_is_not_known_is_refused(site: Site, tmp_path: Path) -> None:
    nobody = tmp_path / "known_hosts"
    nobody.write_text("")
    unknown = SshReach(site.host(ssh=SshOptions(known_hosts=str(nobody))))
    with pytest.raises(Unreachable, match="its host key is not known") as error:
        unknown.open()
    assert error.value.hint.startswith("Look at it once: ssh ")
    SshReach(site.host(ssh=SshOptions(accept_unknown=True, known_hosts="/dev/null"))).open()


def test_a_host_whose_key_has_changed_is_refused(site: Site, tmp_path: Path) -> None:
    other = paramiko.ECDSAKey.generate()
    known = tmp_path / "known_hosts"
    name = f"[127.0.0.1]:{site.server.port}"
    known.write_text(f"{name} {other.get_name()} {other.get_base64()}\n")
    for options in (SshOptions(known_hosts=str(known)),):
        with pytest.raises(Unreachable, match="not the one that is known") as error:
            SshReach(site.host(ssh=options)).open()
        assert "ssh-keygen -R" in error.value.hint


def test_a_key_that_is_missing_not_accepted_or_locked_is_told(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=f"its key {tmp_path}/none cannot be read") as error:
        SshReach(site.host(key_file=str(tmp_path / "none"))).open()
    assert "ansible_ssh_private_key_file" in error.value.hint
    paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / "stranger"))
    with pytest.raises(Unreachable, match="does not let operator in") as error:
        SshReach(site.host(key_file=str(tmp_path / "stranger"))).open()
    assert error.value.hint == "Try: ssh operator@127.0.0.1"
    paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / "locked"), password="secret")
    with pytest.raises(Unreachable, match="its key has a passphrase") as error:
        SshReach(site.host(key_file=str(tmp_path / "locked"))).open()
    assert error.value.hint == f"Give it to the agent: ssh-add {tmp_path}/locked"


def test_a_server_that_says_nothing_is_given_up(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unreachable, match="no SSH server answers"):
            SshReach(site.host(port=port)).open()
    with pytest.raises(Unreachable, match="connection refused"):
        SshReach(site.host(port=port)).open()
    with pytest.raises(Unreachable, match="its name is unknown"):
        SshReach(replace(site.host(), address="no-such-host.invalid")).open()


def test_a_connection_that_breaks_is_told(site: Site) -> None:
    reached = SshReach(site.host())
    reached.open()
    lines = reached.stream(["sh", "-c", "echo begun; sleep 60"])
    assert next(lines) == "begun\n"
    site.server.transports[-1].close()
    with pytest.raises(OpsError):
        list(lines)
    deadline = time.monotonic() + 30
    while reached.alive():
        assert time.monotonic() < deadline
        time.sleep(0.05)
