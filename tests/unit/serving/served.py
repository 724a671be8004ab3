"""A mesh whose only service is the one that this process serves, under a policy that can be changed, and servers for it."""

from __future__ import annotations

import asyncio
import random
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import indent
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import uvicorn
from trimtab.core.calling.rules import Release
from trimtab.gate import Gate
from trimtab.load_meter import LoadMeter
from trimtab.policy.reading import read
from trimtab.serving import InFlight
from trimtab.testing import FakeClock

SERVICE = "default/orders"


def release(policy: str, revision: int = 1, name: str = "orders") -> Release:
    document = f"""
apiVersion: trimtab/v1
kind: ServicePolicy
metadata: {{name: "{name}", namespace: default}}
spec:
{indent(policy, "  ")}
"""
    return Release(read(document), revision)


class ServedMesh:
    """What the middlewares need of a mesh."""

    def __init__(self, policy: str | None = None) -> None:
        self.serving = InFlight()
        self.load_clock = FakeClock()
        self.load_meter = LoadMeter(lambda: (0.25, 0.5), self.load_clock)
        self.orders = Gate(SERVICE, {SERVICE: release(policy) if policy else None}, rng=random.Random(7))

    def gate(self, service: str, *, namespace: str | None = None) -> Gate:
        assert (service, namespace) == ("orders", None)
        return self.orders

    def enact(self, policy: str | None) -> None:
        """Put another policy into force, None: none."""
        self.orders.prepare(SERVICE, release(policy, 2) if policy else None)()

    @property
    def waiting(self) -> int:
        return len(self.orders._waiting)

    @property
    def at_rest(self) -> bool:
        """Nobody is inside and nobody waits."""
        entrances = self.orders._rules._entrances.values()
        inside = sum(e.admission.bulkhead.in_flight for e in entrances if e.admission is not None)
        return int(self.serving) == 0 and self.waiting == 0 and inside == 0


def until(condition: Callable[[], object]) -> None:
    """Poll until ``condition`` holds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


async def until_async(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@contextmanager
def asgi_server(app: Any) -> Iterator[str]:
    """uvicorn in a thread of its own; yields its URL."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="auto", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, args=([held],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


class _ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


@contextmanager
def wsgi_server(app: Any) -> Iterator[str]:
    """wsgiref's server, a thread for each connection; yields its URL."""
    server = _ThreadingServer(("127.0.0.1", 0), _Silent)
    server.set_app(app)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
