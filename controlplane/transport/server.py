"""The listening server: methods by path, a task or callbacks for each call, keepalive, and a good end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import grpc

from controlplane.transport.call import Aborted, Call, CallEnded
from controlplane.transport.connection import Connection
from controlplane.transport.headers import Metadata
from controlplane.transport.port import BACKLOG

log = logging.getLogger(__name__)

_TICK = 1.0
_OVERSLEPT = 1.0
_TLS_HANDSHAKE = 10.0
_FAREWELL = 1.0

_STOPPING = "the server is shutting down"

Guard = Callable[[Call], None]


class _Details(NamedTuple):
    """How gRPC's handlers are asked for a method."""

    method: str
    invocation_metadata: Metadata


class Server:
    """Serves gRPC on a bound socket. Takes handlers as ``grpc.aio.Server`` does, so generated code fits."""

    def __init__(self, *, guard: Guard | None = None) -> None:
        """``guard`` looks at every call first. It may raise Aborted."""
        self._guard = guard
        self._callbacks: dict[str, Callable[[Call], None]] = {}
        self._handlers: list[grpc.GenericRpcHandler[Any, Any]] = []
        self._connections: set[Connection] = set()
        self._running: set[asyncio.Task[None] | Call] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._listener: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        self._stopping = False

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler[Any, Any]]) -> None:
        """Serve their methods."""
        self._handlers += handlers

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """What newer generated code calls beside ``add_generic_rpc_handlers``, with the same methods."""

    def add_callback_handler(self, method: str, begin: Callable[[Call], None]) -> None:
        """Serve ``method`` without a task for each call, as gRPC's callback API does in other languages.

        ``begin`` is called where the call comes in. It passes on to ``Call.receive`` what is to be called from then on,
        and the call runs until ``Call.finish``. It may raise Aborted.
        """
        self._callbacks[method] = begin

    async def start(self, bound: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self, loop),
            sock=bound,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=_TLS_HANDSHAKE if tls else None,
        )
        self._ticker = asyncio.create_task(self._tick(), name="keep connections alive")

    async def stop(self, grace: float) -> None:
        """Accept nothing new, give running calls ``grace`` seconds, then end what is left."""
        if self._listener is None or self._ticker is None:
            return
        self._stopping = True
        self._listener.close()
        for connection in tuple(self._connections):
            connection.leave()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace)
        for running in tuple(self._running):
            if isinstance(running, Call):
                running.fail(grpc.StatusCode.UNAVAILABLE, _STOPPING)
            else:
                running.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _FAREWELL)
        with contextlib.suppress(TimeoutError):  # who does not take the farewell is dropped
            await asyncio.wait_for(self._empty.wait(), _FAREWELL)
        for connection in tuple(self._connections):
            connection.abort()
        self._ticker.cancel()
        await asyncio.gather(self._ticker, return_exceptions=True)

    # -- what connections call --------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """Keep it alive from now on."""
        self._connections.add(connection)
        self._empty.clear()
        if self._stopping:  # it was on its way when the listener closed
            connection.leave()

    def closed(self, connection: Connection) -> None:
        """It is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def accept(self, call: Call) -> None:
        """Serve a call, by callbacks or in a task of its own."""
        begin = self._callbacks.get(call.request.method)
        if begin is not None:
            self._begin(call, begin)
            return
        call.task = asyncio.create_task(self._serve(call), name=call.request.method)
        self._running.add(call.task)
        self._idle.clear()
        call.task.add_done_callback(self._done)

    def ended(self, call: Call) -> None:
        """A call of callbacks is served no longer; of another, its task tells."""
        if call.task is None:
            self._done(call)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _done(self, done: asyncio.Task[None] | Call) -> None:
        self._running.discard(done)
        if not self._running:
            self._idle.set()

    def _begin(self, call: Call, begin: Callable[[Call], None]) -> None:
        self._running.add(call)
        self._idle.clear()
        try:
            if self._guard is not None:
                self._guard(call)
            begin(call)
        except Aborted as end:
            call.finish(end.code, end.details, end.metadata)
        except Exception:
            self._failed(call)

    def _failed(self, call: Call) -> None:
        log.exception("%s failed", call.request.method)
        call.finish(grpc.StatusCode.UNKNOWN, "the server failed to serve this call; its log tells why")

    async def _serve(self, call: Call) -> None:
        try:
            try:
                await self._run(call)
                call.complete()
            except Aborted as end:
                call.finish(end.code, end.details, end.metadata)
        except CallEnded:
            log.debug("%s ended while it was answered", call.request.method)
        except asyncio.CancelledError:
            call.finish(grpc.StatusCode.UNAVAILABLE, _STOPPING)
            raise
        except Exception:
            self._failed(call)

    async def _run(self, call: Call) -> None:
        if self._guard is not None:
            self._guard(call)
        handler = self._find(call)
        call.serialize, call.deserialize = handler.response_serializer, handler.request_deserializer
        request: Any = call if handler.request_streaming else await call.read()
        if request is None:
            raise Aborted(grpc.StatusCode.INTERNAL, "the call has no request", ())
        # The stubs know handlers that take gRPC's own context alone; ours is as good.
        behaviours: Any = (
            (handler.unary_unary, handler.stream_unary),
            (handler.unary_stream, handler.stream_stream),
        )
        answer = behaviours[handler.response_streaming][handler.request_streaming](request, call)
        if hasattr(answer, "__aiter__"):
            async with contextlib.aclosing(answer):  # what it holds is let go of here, not whenever it is collected
                async for message in answer:
                    await call.write(message)
            return
        message = await answer
        if not (handler.response_streaming or call.refused):
            await call.write(message)

    def _find(self, call: Call) -> grpc.RpcMethodHandler[Any, Any]:
        details = _Details(call.request.method, call.request.metadata)
        for generic in self._handlers:
            handler = generic.service(details)  # type: ignore[arg-type] # it asks for the two fields alone
            if handler is not None:
                return handler
        raise Aborted(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {call.request.method}", ())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            slept_at = loop.time()
            await asyncio.sleep(_TICK)
            now = loop.time()
            overslept = now - slept_at > _TICK + _OVERSLEPT
            for connection in tuple(self._connections):
                if overslept:
                    connection.forgive(now)
                connection.tick(now)
