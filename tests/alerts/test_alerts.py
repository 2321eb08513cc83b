"""Each alert, fired by its real cause, arrives at a receiver within its stated time, and ends.

Prometheus, Alertmanager and a whole suite run for real. What the rules wait for and look back on is
shortened by one factor, so that all of it takes minutes; the limits themselves are as they are. A
time is stated for the unshortened rules, so it is the most that an alert may take here.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dotenv import dotenv_values

from tests.alerts.causes import CEILING_MB, QUICK, SLOW, Cause
from tests.alerts.watching import Watching, free_port, watching
from tests.faults.suite import Suite
from tests.monitoring import program, rules, seconds
from tests.processes import Program
from tests.receiver import receiver

FACTOR = 0.1
# How long an alert may take to end after its cause has: what it looks back on, and the way.
END_SECONDS = 240.0
STATED = {rule["alert"]: seconds(rule["annotations"]["arrives"]) for rule in rules()}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    program("prometheus")
    directory = tmp_path_factory.mktemp("suite")
    # The database's own user has to reach its directory.
    for path in (directory, *directory.parents):
        if path == Path("/tmp"):
            break
        path.chmod(0o755)
    with receiver() as monitor:
        monitor.status = 500
        found = Suite(
            directory,
            settings={
                "IRONBEAT_WORKER_MAX_MEMORY_MB": str(CEILING_MB),
                "IRONBEAT_HEARTBEAT_URL": monitor.url,
            },
        )
        found.monitor = monitor  # type: ignore[attr-defined]
        try:
            found.up()
            _calm(found)
            yield found
        finally:
            found.down()


def _calm(suite: Suite) -> None:
    """Of twenty ticks a second one is left, and one more each twenty seconds."""
    with psycopg.connect(
        suite.settings.database_url.get_secret_value(), autocommit=True
    ) as connection:
        connection.execute("UPDATE ironbeat.schedules SET enabled = false WHERE name <> 'tick-00'")
        connection.execute(
            "UPDATE ironbeat.schedules SET enabled = true, expression = '20s'"
            " WHERE name = 'tick-01'"
        )


@pytest.fixture(scope="module")
def watch(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watching]:
    values = dotenv_values(suite.installation.env_file)
    api = f"127.0.0.1:{values['IRONBEAT_API_PORT']}"
    with watching(
        tmp_path_factory.mktemp("monitoring"), {"ironbeat": [api]}, factor=FACTOR
    ) as found:
        yield found


def arrive(watch: Watching, suite: Suite, causes: tuple[Cause, ...]) -> list[str]:
    """Each cause in turn until its alerts have arrived; then all of them until they have ended.

    Returns a line for each alert: when it arrived, by when it had to, and when it ended.
    """
    lines = {}
    ended: dict[str, float] = {}
    for cause in causes:
        began = time.time()
        cause.cause(suite)
        for name in cause.alerts:
            most = cause.until_it_shows + STATED[name]
            took = watch.until(name, "firing", began, most)
            lines[name] = f"{cause.name}: {name} after {took:.0f} s (stated: {most:.0f})"
        cause.cure(suite)
        ended |= dict.fromkeys(cause.alerts, time.time())
        # The next cause is to meet a suite that works.
        suite.until_healthy(120)
    for name, at in ended.items():
        took = watch.until(name, "resolved", at, END_SECONDS)
        lines[name] += f", ended {took:.0f} s after its cause"
    return list(lines.values())


def report(lines: list[str]) -> None:
    """What was measured, for whoever runs this with ``-s`` or keeps the file."""
    print("\n" + "\n".join(lines))
    if path := os.environ.get("IRONBEAT_ALERTS_REPORT"):
        with Path(path).open("a") as output:
            output.write("\n".join(lines) + "\n")


@pytest.mark.timeout(600)
def test_what_is_quick_to_show_arrives_and_ends(suite: Suite, watch: Watching) -> None:
    report(arrive(watch, suite, QUICK))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cause", SLOW, ids=lambda cause: cause.name.replace(" ", "-"))
def test_what_takes_minutes_arrives_and_ends(suite: Suite, watch: Watching, cause: Cause) -> None:
    report(arrive(watch, suite, (cause,)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_outside_monitor_that_takes_no_pings_is_told_of(suite: Suite, watch: Watching) -> None:
    monitor: Any = suite.monitor  # type: ignore[attr-defined]
    monitor.status = 500
    began = time.time()
    took = watch.until("heartbeat_refused", "firing", 0.0, 400) - began
    monitor.status = 200
    back = time.time()
    ended = watch.until("heartbeat_refused", "resolved", back, END_SECONDS)
    report([f"a refusing monitor: heartbeat_refused after {took:.0f} s, ended {ended:.0f} s"])


# -- of the hosts: exporters, certificates ---------------------------------------------------------


@contextmanager
def tls_server(directory: Path, days: int, port: int) -> Iterator[str]:
    """A server whose certificate, signed by itself, ends in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{days}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = ThreadingHTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.timeout(240)
def test_a_certificate_that_ends_soon_and_an_exporter_that_is_gone(tmp_path: Path) -> None:
    node, blackbox, tls = free_port(), free_port(), free_port()
    (tmp_path / "blackbox.yml").write_text(
        "modules: {certificate: {prober: tcp, timeout: 5s,"
        " tcp: {tls: true, tls_config: {insecure_skip_verify: true}}}}\n"
    )
    lines = []
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> Program:
            run = Program([program(name), *arguments], tmp_path / f"{name}.log", {})
            stack.callback(run.stop)
            return run

        listening = f"--web.listen-address=127.0.0.1:{node}"
        exporter = start("prometheus-node-exporter", listening)
        start(
            "prometheus-blackbox-exporter",
            f"--config.file={tmp_path / 'blackbox.yml'}",
            f"--web.listen-address=127.0.0.1:{blackbox}",
        )
        targets = {
            "node": [f"127.0.0.1:{node}"],
            "certificate": [f"127.0.0.1:{blackbox}", f"127.0.0.1:{tls}"],
        }
        watch = stack.enter_context(watching(tmp_path, targets, factor=FACTOR))
        began = time.time()
        with tls_server(tmp_path, 10, tls):
            took = watch.until("certificate_expires", "firing", began, 120)
        lines.append(f"ten days left: certificate_expires after {took:.0f} s")
        renewed = time.time()
        stack.enter_context(tls_server(tmp_path, 300, tls))
        took = watch.until("certificate_expires", "resolved", renewed, END_SECONDS)
        lines.append(f"renewed: ended {took:.0f} s after")

        gone = time.time()
        exporter.kill()
        took = watch.until("exporter_down", "firing", gone, STATED["exporter_down"])
        lines.append(f"killed: exporter_down after {took:.0f} s")
        back = time.time()
        start("prometheus-node-exporter", listening)
        took = watch.until("exporter_down", "resolved", back, END_SECONDS)
        lines.append(f"started: ended {took:.0f} s after")
        text = _scrape(node)
    # A real exporter has what the rule about disks names.
    for metric in ("node_filesystem_avail_bytes", "node_filesystem_size_bytes"):
        assert f"\n{metric}{{" in text
    report(lines)


def _scrape(port: int) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_every_alert_has_a_cause_here() -> None:
    caused = {name for cause in (*QUICK, *SLOW) for name in cause.alerts}
    caused |= {"alerts_arrive", "certificate_expires", "exporter_down", "heartbeat_refused"}
    assert {rule["alert"] for rule in rules()} - caused == {"disk_full"}
