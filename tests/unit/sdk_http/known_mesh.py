"""A mesh that knows a fixed set of endpoints, and small HTTP servers to stand behind them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trimtab.core.endpoints import Endpoint, Health, Tally
from trimtab.errors import NoEndpoints


class KnownPick:
    """Counts in flight until it is done, and remembers how it went."""

    def __init__(self, endpoint: Endpoint, tally: Tally, outcomes: list[tuple[str, bool]]) -> None:
        self.endpoint = endpoint
        self._tally = tally
        self._outcomes = outcomes
        tally.start()

    def done(self, ok: bool = True) -> None:
        self._tally.finish(ok)
        self._outcomes.append((self.endpoint.id, ok))


class KnownMesh:
    """Picks the first endpoint that is not excluded."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.endpoints = list(endpoints)
        self.tally = Tally()
        self.asked: list[tuple[str, str | None]] = []
        self.outcomes: list[tuple[str, bool]] = []

    def pick(self, service: str, *, namespace: str | None = None, exclude: Collection[str] = ()) -> KnownPick:
        self.asked.append((service, namespace))
        for endpoint in self.endpoints:
            if endpoint.id not in exclude:
                return KnownPick(endpoint, self.tally, self.outcomes)
        raise NoEndpoints(f"no endpoint of {service} is known", service=service)

    @property
    def in_flight(self) -> int:
        return self.tally.in_flight


class AsyncKnownMesh(KnownMesh):
    """The asynchronous twin."""

    async def pick(self, service: str, *, namespace: str | None = None, exclude: Collection[str] = ()) -> KnownPick:  # type: ignore[override]
        return super().pick(service, namespace=namespace, exclude=exclude)


def endpoint_at(port: int, id_: str = "a", **metadata: str) -> Endpoint:
    return Endpoint(id_, "127.0.0.1", port, 100, Health.HEALTHY, "", metadata)


# A port that is bound and never listened on refuses, and is given to nobody else as long as it is held.
_refusing: list[socket.socket] = []


def refusing_endpoint(id_: str) -> Endpoint:
    """An endpoint whose port nobody listens on, another one at each call."""
    held = socket.socket()
    _refusing.append(held)
    held.bind(("127.0.0.1", 0))
    return endpoint_at(held.getsockname()[1], id_)


class Origin(BaseHTTPRequestHandler):
    """Echoes what it was asked; some paths misbehave."""

    protocol_version = "HTTP/1.1"
    # Head and body in one packet: two small ones would meet a delayed acknowledgement, 40 ms each time.
    wbufsize = -1

    def do_GET(self) -> None:
        if self.path.startswith("/moved"):
            self._reply(307, b"", Location=f"http://{self.headers['Host']}/new?x=1")
        elif self.path.startswith("/relative"):
            self._reply(302, b"", Location="/new")
        elif self.path.startswith("/broken"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"the beginning")
            self.close_connection = True
        elif self.path.startswith("/hangup"):
            self.close_connection = True
        elif self.path.startswith("/fail"):
            self._reply(503, b"later")
        else:
            self._echo()

    def do_POST(self) -> None:
        self._echo()

    def _echo(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(length)
        seen = {
            "host": self.headers["Host"],
            "path": self.path,
            "method": self.command,
            "body": body.decode(),
            "client": self.client_address[1],
        }
        self._reply(200, json.dumps(seen).encode())

    def _reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


@contextmanager
def origin() -> Iterator[int]:
    """A server on a free port, which is yielded."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
