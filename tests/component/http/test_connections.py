"""How a command meets a server that is secured, or is none of Trimtab's."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.cli import root
from controlplane.cli.failure import Exit
from controlplane.errors import TrimtabError
from controlplane.http.server import HttpServer
from tests.component.http.conftest import Thread
from tests.support.authority import Authority


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


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)
