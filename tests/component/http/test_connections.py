"""How a command meets a server that is secured, or is none of Trimtab's."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controlplane.cli import root
from controlplane.cli.failure import Exit
from controlplane.errors import TrimtabError
from controlplane.http.server import HttpServer
from tests.component.http.conftest import Thread


def trimtab(*args: str) -> int:
    def never(file: Path | None, flags: dict[str, str]) -> int:
        raise AssertionError("no server is started here")

    return root.main(root.build(serve=never, dev=never), args)


@pytest.fixture
def impostor() -> Iterator[str]:
    """An HTTP server that answers everything with a page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>welcome</html>")

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(5)
    server.server_close()


def test_a_server_that_is_not_trimtab_is_told_apart(impostor: str, capsys: Any) -> None:
    assert trimtab("get", "services", "--server", impostor) == Exit.FAILED
    assert "not Trimtab's" in capsys.readouterr().err


def test_tls_is_verified_and_a_client_shows_its_certificate(authority: Authority, capsys: Any) -> None:
    ca = str(authority.ca)
    cert, key = authority.issue("127.0.0.1")
    thread = Thread(tls=(cert, key, authority.ca))
    served = thread.begin()
    try:
        address = f"https://127.0.0.1:{served.port}"
        assert trimtab("get", "services", "--server", address) == Exit.UNREACHABLE
        assert trimtab("get", "services", "--server", address, "--ca", ca) == Exit.UNREACHABLE  # shows none itself
        assert trimtab("get", "services", "--server", address, "--ca", ca, "--cert", str(cert), "--key", str(key)) == 0
        assert "no services" in capsys.readouterr().err
    finally:
        thread.stop()


def test_a_certificate_that_cannot_be_used_is_a_wrong_usage(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("not a certificate")
    assert trimtab("get", "services", "--server", "https://127.0.0.1:1", "--ca", str(broken)) == Exit.USAGE


def test_a_port_that_is_taken_is_refused_at_once() -> None:
    first = HttpServer("127.0.0.1:0", None, None, None)
    try:
        with pytest.raises(TrimtabError, match="cannot be bound"):
            HttpServer(f"127.0.0.1:{first.port}", None, None, None)
    finally:
        first.stop()


class Authority:
    """A certificate authority of one test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.ca = folder / "ca.pem"
        basic = x509.BasicConstraints(ca=True, path_length=0)
        certificate = (
            self._builder(self._name, self._key).add_extension(basic, critical=True).sign(self._key, hashes.SHA256())
        )
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, address: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        certificate = self._builder(name, key).add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        cert_file, key_file = self._folder / "cert.pem", self._folder / "key.pem"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_file, key_file

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)
