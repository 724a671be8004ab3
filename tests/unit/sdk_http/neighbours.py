"""Meshes that know several services, and small HTTP servers that hang as long as they are told to."""

from __future__ import annotations

import asyncio
import select
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import requests
from trimtab.core.calling.call import Call
from trimtab.discovery import Callee
from trimtab.http.aiohttp import session
from trimtab.http.httpx import async_client, client
from trimtab.http.requests import adapter

from tests.unit.sdk_http.known_mesh import KnownMesh


class Server(ThreadingHTTPServer):
    """Answers with its name and the body that it got; ``hanging``: not before it may go on, or its client has left."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.hanging = False
        self.seen: list[Any] = []
        self.came, self.left, self.going_on = threading.Event(), threading.Event(), threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Server

    def do_GET(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        server.seen.append((self.command, self.path, {name.lower(): text for name, text in self.headers.items()}, body))
        server.came.set()
        while server.hanging and not server.going_on.is_set():
            if select.select([self.connection], [], [], 0.01)[0]:
                server.left.set()
                self.close_connection = True
                return
        told = server.name.encode() + body
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    do_POST = do_PUT = do_GET  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


@contextmanager
def serving(name: str) -> Iterator[Server]:
    server = Server(name)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.going_on.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


class Neighbours:
    """A mesh of several services, each a KnownMesh of its own."""

    def __init__(self, **services: KnownMesh) -> None:
        self.services = services

    def callee(self, service: str, namespace: str | None = None) -> Callee:
        return self.services[service].service


class AsyncNeighbours(Neighbours):
    """The asynchronous twin."""

    def known(self, service: str, namespace: str | None = None) -> Callee | None:
        return super().callee(service, namespace)

    async def callee(self, service: str, namespace: str | None = None) -> Callee:  # type: ignore[override]
        return super().callee(service, namespace)


Then = Callable[[], Coroutine[Any, Any, None]] | None


class Told(NamedTuple):
    """An answer, whatever library it came from."""

    status: int
    text: str
    call: Call


class Http:
    """One library, as one makes a single request with it. ``cancels``: it can end a request that is under way."""

    def __init__(self, name: str) -> None:
        self.library, _, self.kind = name.partition(" ")
        self.cancels = self.kind == "async"

    def mesh(self, **services: KnownMesh) -> Neighbours:
        return (AsyncNeighbours if self.cancels else Neighbours)(**services)

    async def request(self, mesh: Neighbours, method: str, url: str, body: Any = None, then: Then = None) -> Told:
        """``then``: awaited while the client is still open."""
        if self.kind != "async":
            loop = asyncio.get_running_loop()

            def finish() -> None:
                if then is not None:
                    asyncio.run_coroutine_threadsafe(then(), loop).result(20)

            return await asyncio.to_thread(self._blocking, mesh, method, url, body, finish)
        if self.library == "aiohttp":
            async with session(mesh) as http, http.request(method, url, data=body) as got:
                told = Told(got.status, await got.text(), got.trimtab)  # type: ignore[attr-defined]
                if then is not None:
                    await then()
                return told
        async with async_client(mesh, library=self.library) as http:  # type: ignore[call-overload]
            answer = await http.request(method, url, content=body)
            if then is not None:
                await then()
            return Told(answer.status_code, answer.text, answer.extensions["trimtab"])

    def _blocking(self, mesh: Neighbours, method: str, url: str, body: Any, finish: Callable[[], None]) -> Told:
        if self.library == "requests":
            with requests.Session() as http:
                http.mount("mesh://", adapter(mesh))
                answer = http.request(method, url, data=body)
                finish()
                return Told(answer.status_code, answer.text, answer.trimtab)  # type: ignore[attr-defined]
        with client(mesh, library=self.library) as http:  # type: ignore[call-overload]
            answer = http.request(method, url, content=body)
            finish()
            return Told(answer.status_code, answer.text, answer.extensions["trimtab"])


LIBRARIES = ("httpx blocking", "httpx async", "httpx2 blocking", "httpx2 async", "requests blocking", "aiohttp async")
