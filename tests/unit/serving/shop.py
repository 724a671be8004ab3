"""One small application in both forms: it tells what its calls inherited, and holds them up for as long as a test wants."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from trimtab.calling import context


class Shop:
    """``/tell``: what is inherited. ``/hold``: as soon as it was released. ``/echo``: the body. ``/stream``: lines, the last
    one as soon as it was released. ``/fail``: an exception."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.served: list[str] = []

    def told(self) -> bytes:
        told: dict[str, Any] = {"left": context.remaining(), "priority": context.marks.get().priority}
        if context.marks.get().mirrored:
            told["mirrored"] = True
        return json.dumps(told).encode()

    # ASGI

    def asgi(self) -> Starlette:
        paths = {
            "/tell": self._tell,
            "/hold": self._hold,
            "/echo": self._echo,
            "/stream": self._stream,
            "/fail": self._fail,
        }
        paths["/healthz"] = self._tell
        routes: list[Any] = [Route(path, serve, methods=["GET", "POST"]) for path, serve in paths.items()]
        return Starlette(routes=[*routes, WebSocketRoute("/socket", self._socket)])

    async def _tell(self, request: Request) -> Response:
        return Response(self.told())

    async def _hold(self, request: Request) -> Response:
        self.served.append(request.query_params.get("name", ""))
        await self._until_open()
        return Response(b"held")

    async def _echo(self, request: Request) -> Response:
        return Response(await request.body())

    async def _stream(self, request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield b"first\n"
            await self._until_open()
            yield self.told()

        return StreamingResponse(lines())

    async def _fail(self, request: Request) -> Response:
        raise RuntimeError("it broke")

    async def _socket(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    async def _until_open(self) -> None:
        while not self.open.is_set():
            await asyncio.sleep(0.005)

    # WSGI

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
        if path == "/fail":
            raise RuntimeError("it broke")
        if path == "/hold":
            self.served.append(query.removeprefix("name="))
            self.open.wait(10)
        start_response("200 OK", [("Content-Type", "text/plain")])
        if path == "/stream":
            return self._lines()
        if path == "/echo":
            return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]
        return [b"held" if path == "/hold" else self.told()]

    def _lines(self) -> Iterator[bytes]:
        yield b"first\n"
        deadline = time.monotonic() + 10
        while not self.open.is_set() and time.monotonic() < deadline:
            time.sleep(0.005)
            yield b"\n"  # a server notices that nobody reads only when it writes
        yield self.told()
