"""FastAPI and Starlette in a mesh.

>>> mesh = Mesh()
>>> app = FastAPI(lifespan=mesh.fastapi("orders", port=8000, drain="5s"))
>>> app.add_middleware(MeshServer)

On SIGTERM the instance is marked as draining, serves on while its clients move away, and only then does the server see the
signal. uvicorn would else close its listeners before anybody knew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from trimtab.servers.member import Member, Place

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(
    mesh: Any,
    service: str,
    *,
    port: int,
    drain: str | float = "5s",
    address: str | None = None,
    id: str = "",
    weight: int = 0,
    zone: str = "",
    metadata: Mapping[str, str] | None = None,
    namespace: str | None = None,
    lifespan: Lifespan | None = None,
) -> Lifespan:
    """A lifespan that keeps ``service`` registered while the application serves on ``port``.

    ``drain`` bounds how long it serves on after SIGTERM. ``lifespan`` is the application's own, which runs inside. The rest is
    as in ``Mesh.register``. Raises ValueError for a drain that is no duration.
    """
    place = Place(service, port, address, id, weight, zone, metadata or {}, namespace)
    member = Member(mesh, place, drain=drain)

    @asynccontextmanager
    async def serve(app: Any) -> AsyncIterator[Any]:
        app.state.trimtab = member
        member.start(partial(_stop_listening, asyncio.get_running_loop()))
        try:
            if lifespan is None:
                yield
            else:
                async with lifespan(app) as state:
                    yield state
        finally:
            await asyncio.to_thread(member.leave)

    return serve


def _stop_listening(loop: asyncio.AbstractEventLoop, handler: object) -> None:
    """uvicorn's handler is a method of its server, whose ``servers`` accept connections. Of others nothing is known."""
    for listener in getattr(getattr(handler, "__self__", None), "servers", ()):
        loop.call_soon_threadsafe(listener.close)


class MeshServer:
    """ASGI middleware: counts the calls being served, and closes connections while draining.

    ``readiness`` is a path to answer itself: 200 when the instance takes calls, 503 when it drains.
    """

    def __init__(self, app: App, readiness: str | None = None) -> None:
        self._app = app
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        member = _member(scope)
        if scope["type"] != "http" or member is None:
            await self._app(scope, receive, send)
            return
        if self._readiness is not None and scope["path"] == self._readiness:
            await _answer(send, 503 if member.draining else 200)
            return

        async def send_goodbye(message: Message) -> None:
            if message["type"] == "http.response.start" and member.draining:
                # A client that keeps its connection would find it closed under its next call.
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        member.enter()
        try:
            await self._app(scope, receive, send_goodbye)
        finally:
            member.exit()


def _member(scope: Scope) -> Member | None:
    app = scope.get("app")
    return getattr(app.state, "trimtab", None) if app is not None else None


async def _answer(send: Send, status: int) -> None:
    body = b"draining\n" if status == 503 else b"ready\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
