"""ASGI applications in a mesh: what their callers say is heard, and the policies of the service decide who is let in.

>>> app.add_middleware(MeshServer)  # beside lifespan=mesh.fastapi("orders", port=8000)
>>> app = MeshServer(app, mesh, "orders")  # any ASGI application
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from math import inf
from typing import Any

from trimtab.calling import context
from trimtab.calling.context import MIRRORED_HEADER, PRIORITY_HEADER, TIMEOUT_HEADER
from trimtab.core.orca import FORMAT_HEADER, LOAD_HEADER
from trimtab.core.serving import NO_HEADERS, Arrival
from trimtab.errors import TrimtabError
from trimtab.gate import Visit
from trimtab.load_meter import LoadMeter
from trimtab.servers.admission import (
    HEALTH_PATHS,
    Problem,
    Reception,
    priority_of,
    problem,
    timeout_of,
    wait_awaiting,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_TIMEOUT = TIMEOUT_HEADER.encode()
_PRIORITY = PRIORITY_HEADER.encode()
_MIRRORED = MIRRORED_HEADER.encode()
_FORMAT = FORMAT_HEADER.encode()
_LOAD = LOAD_HEADER.encode()
# Of a request's body that is read while its call waits. What is more stays with the server, which slows its client down.
_AHEAD = 65_536


class MeshServer:
    """ASGI middleware for HTTP; other scopes pass.

    Calls inherit the deadline and the priority that their callers give them, so that what they call in turn ends in time; one
    whose time is over is refused. The ``server`` section of the service's policy limits how many are served, live: the others
    wait, or get 503 or 429 with Retry-After. A call ends with its response. Connections are closed while draining.

    ``mesh`` and ``service`` (with ``namespace``, by default the mesh's own) need not be given beside ``mesh.fastapi(...)``.
    ``readiness`` is a path to answer itself: 200 when the instance takes calls, 503 when it drains. The paths ``exempt`` are
    let in whatever else is going on. Answers tell of the load of the process where their callers ask for that, or, with
    ``load_reports``, always. Raises SettingsInvalid for a mesh without a service.
    """

    def __init__(
        self,
        app: App,
        mesh: Any = None,
        service: str = "",
        *,
        namespace: str | None = None,
        readiness: str | None = None,
        exempt: Collection[str] = HEALTH_PATHS,
        load_reports: bool = False,
    ) -> None:
        self._app = app
        self._reception = Reception(mesh, service, namespace) if mesh is not None or service else None
        self._readiness = readiness
        self._exempt = frozenset(exempt)
        self._load_reports = load_reports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._opening(scope, send))
            return
        member = _member(scope)
        reception = self._reception
        if reception is None and member is not None:
            reception = self._reception = member.reception
        if scope["type"] != "http" or reception is None:
            await self._app(scope, receive, send)
            return
        if member is not None:
            if self._readiness is not None and scope["path"] == self._readiness:
                await _answer(send, 503 if member.draining else 200)
                return
            send = _saying_goodbye(member, send)
        reception.serving.enter()
        try:
            if scope["path"] in self._exempt:
                await self._app(scope, receive, send)
            else:
                await self._serve(reception, scope, receive, send)
        finally:
            reception.serving.exit()

    async def _serve(self, reception: Reception, scope: Scope, receive: Receive, send: Send) -> None:
        timeout, priority, mirrored, asked = None, "", False, self._load_reports
        for name, value in scope["headers"]:
            if name == _TIMEOUT:
                timeout = timeout_of(value.decode("latin-1"))
            elif name == _PRIORITY:
                priority = priority_of(value.decode("latin-1"))
            elif name == _MIRRORED:
                mirrored = True
            elif name == _FORMAT:
                asked = True
        app = self._app
        if asked or reception.meter.counting:
            app = _metered(app, reception.meter, asked)
        gate = reception.gate or await asyncio.to_thread(reception.open)
        if gate is None or (timeout is None and not priority and gate.idle):
            await app(scope, receive, send)
            return
        now = gate.clock.now()
        deadline = None if timeout is None else now + timeout
        headers = _lowered(scope) if gate.needs_headers else NO_HEADERS
        call = Arrival(scope["method"], scope["path"], headers, priority, inf if deadline is None else deadline)
        try:
            visit = gate.arrive(call, now)
        except TrimtabError as error:
            await _refuse(send, problem(error))
            return
        if deadline is not None or priority:
            app = _inheriting(app, deadline, priority, mirrored)
        if visit is None:
            await app(scope, receive, send)
        else:
            await _visit(visit, app, scope, receive, send)

    def _opening(self, scope: Scope, send: Send) -> Send:
        """Follow the policies before the first call comes in."""

        async def send_opening(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                member = _member(scope)
                if self._reception is None and member is not None:
                    self._reception = member.reception
                if self._reception is not None:
                    await asyncio.to_thread(self._reception.open)
            await send(message)

        return send_opening


async def _visit(visit: Visit, app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a call that has a place or waits for one, and have it leave."""
    good = False
    ahead = None
    try:
        if visit.until is not None:
            receive = ahead = _Ahead(receive)
            try:
                if not await wait_awaiting(visit, ahead):
                    return
            except TrimtabError as error:
                await _refuse(send, problem(error))
                return
        await app(scope, receive, send)
        good = True
    finally:
        visit.leave(visit.clock.now(), good)
        if ahead is not None:
            ahead.close()


class _Ahead:
    """Reads a request's body ahead while its call waits: there is no other way to hear that the client went away."""

    def __init__(self, receive: Receive) -> None:
        self.gone = False
        self._receive = receive
        self._held: deque[Message] = deque()
        self._size = 0
        self._next: asyncio.Task[Message] | None = None

    def listen(self) -> asyncio.Future[Any] | None:
        """The message that is awaited, None when enough was read."""
        if self._next is None and self._size < _AHEAD:
            self._next = asyncio.create_task(self._take())
            self._next.add_done_callback(self._hear)
        return self._next

    async def _take(self) -> Message:
        return await self._receive()

    def _hear(self, task: asyncio.Future[Message]) -> None:
        # Taken by the application, or failed or cancelled: then it finds out itself.
        if task is not self._next or task.cancelled() or task.exception() is not None:
            return
        self._next, message = None, task.result()
        self._held.append(message)
        self._size += len(message.get("body", b""))
        self.gone = message["type"] == "http.disconnect"

    async def __call__(self) -> Message:
        """The application receives: what was read already first."""
        if self._held:
            return self._held.popleft()
        if self._next is not None:
            task, self._next = self._next, None
            return await task
        return await self._receive()

    def close(self) -> None:
        """Nobody receives any more."""
        if self._next is not None:
            self._next.cancel()


def _inheriting(app: App, deadline: float | None, priority: str, mirrored: bool) -> App:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        until, marks = context.deadline.set(deadline), context.marks.set(context.marked(priority, mirrored))
        try:
            await app(scope, receive, send)
        finally:
            context.deadline.reset(until)
            context.marks.reset(marks)

    return serve


def _metered(app: App, meter: LoadMeter, asked: bool) -> App:
    """Count a call that is served, and tell of the load with its answer if its caller asked for that."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        failed = False

        async def send_report(message: Message) -> None:
            nonlocal failed
            if message["type"] == "http.response.start":
                failed = message["status"] >= 500
                if asked:
                    told = (_LOAD, meter.report().text.encode())
                    message = {**message, "headers": [*message.get("headers", ()), told]}
            await send(message)

        try:
            await app(scope, receive, send_report)
        except Exception:
            failed = True
            raise
        finally:
            meter.served(failed)

    return serve


def _saying_goodbye(member: Any, send: Send) -> Send:
    async def send_goodbye(message: Message) -> None:
        if message["type"] == "http.response.start" and member.draining:
            # A client that keeps its connection would find it closed under its next call.
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return send_goodbye


def _member(scope: Scope) -> Any:
    app = scope.get("app")
    return getattr(app.state, "trimtab", None) if app is not None else None


def _lowered(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def _refuse(send: Send, told: Problem) -> None:
    headers = [(name.encode(), value.encode()) for name, value in told.headers]
    await send({"type": "http.response.start", "status": told.status, "headers": headers})
    await send({"type": "http.response.body", "body": told.body})


async def _answer(send: Send, status: int) -> None:
    body = b"draining\n" if status == 503 else b"ready\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
