"""A mesh that knows a fixed set of endpoints, and small HTTP servers to stand behind them."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from textwrap import indent
from typing import Any

from trimtab.calling.crew import RealCrew
from trimtab.core.calling.rules import Caller, Release
from trimtab.core.clock import Clock
from trimtab.core.endpoints import Endpoint, Health, ServiceState
from trimtab.discovery import Callee
from trimtab.errors import NoEndpoints
from trimtab.hooks import Audience, Hooks
from trimtab.policy.reading import read


class FromTheFirst(random.Random):
    """Lets a rotation begin with the first endpoint."""

    def getrandbits(self, k: int) -> int:
        return 0


class KnownMesh:
    """A mesh with one service behind every name, under one policy. Takes the endpoints in turn."""

    def __init__(
        self,
        *endpoints: Endpoint,
        policy: str = "default: {}",
        clock: Clock | None = None,
        hooks: Sequence[Hooks] = (),
        crew: RealCrew | None = None,
    ) -> None:
        listener = Audience(hooks, Audience.tell) if hooks else None
        caller = Caller("tests", "", "tests", "round_robin", lambda: None, listener=listener)
        known = {endpoint.id: endpoint for endpoint in endpoints}
        state = ServiceState("default/orders", 1, 1, known, known)
        document = read(f"""
apiVersion: trimtab/v1
kind: ServicePolicy
metadata: {{name: orders, namespace: default}}
spec:
{indent(policy, "  ")}
""")
        self.service = Callee(
            "default/orders",
            caller,
            self._nobody,
            state,
            {"default/orders": Release(document, 7)},
            FromTheFirst(),
            clock,
            crew=crew,
        )
        self.asked: list[tuple[str, str | None]] = []

    def callee(self, service: str, namespace: str | None = None) -> Callee:
        self.asked.append((service, namespace))
        return self.service

    @staticmethod
    def _nobody(callee: Callee) -> Exception:
        return NoEndpoints("no endpoint of orders is known", service="orders")

    @property
    def in_flight(self) -> int:
        return sum(tally.in_flight for tally in self.service.state.tallies.values())

    @property
    def outcomes(self) -> list[tuple[str, bool]]:
        """Whether each counted attempt went well, by endpoint in the order of their first attempts, failures first."""
        told: list[tuple[str, bool]] = []
        for id_, tally in self.service.state.tallies.items():
            told += [(id_, False)] * tally.failures + [(id_, True)] * (tally.calls - tally.failures)
        return told


class AsyncKnownMesh(KnownMesh):
    """The asynchronous twin."""

    def known(self, service: str, namespace: str | None = None) -> Callee | None:
        return super().callee(service, namespace)

    async def callee(self, service: str, namespace: str | None = None) -> Callee:  # type: ignore[override]
        return super().callee(service, namespace)


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
        if self.path.startswith("/hangup"):
            self.close_connection = True
        else:
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
            "headers": {name.lower(): value for name, value in self.headers.items()},
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


def in_child(ask: Callable[[], int]) -> int:
    """What a forked child finds."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(ask()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        return int(answer.read())
