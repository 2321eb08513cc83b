"""Alerts about hosts, fired by their real causes with Debian's exporters: they arrive, and end."""

from __future__ import annotations

import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.alerts.watching import END_SECONDS, FACTOR, STATED, free_port, report, watching
from tests.monitoring import program
from tests.processes import Program


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
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
