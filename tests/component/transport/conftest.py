"""A server with handlers of the test's own on a free port, without a control plane around it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
import uvloop

from controlplane.transport.call import Call
from controlplane.transport.connection import Connection
from controlplane.transport.port import bind
from controlplane.transport.server import Guard, Server
from tests.component.transport.raw import DATA, Raw, message, opened, said

ALONE = (("grpc.use_local_subchannel_pool", 1),)
# Whoever waits longer than this waits for ever.
PATIENCE = 10.0
PREFIX = "/test.Shop/"

Handlers = dict[str, Any]
Serve = Callable[..., Awaitable["Served"]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that a replica runs on; the tests of ``tests/component/rpc`` run the same transport on asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


class Served:
    """A running server, and what it must have let go of at the end."""

    def __init__(self, handlers: Handlers, guard: Guard | None) -> None:
        self.server = Server(guard=guard)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Shop", handlers),))
        self.calls: list[Call] = []
        self._bound = bind("127.0.0.1:0", "test")
        self.port: int = self._bound.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._stack = AsyncExitStack()

    async def start(self, tls: ssl.SSLContext | None) -> None:
        await self.server.start(self._bound, tls)

    async def stop(self) -> None:
        await self._stack.aclose()
        await self.server.stop(0)

    def channel(self, *options: tuple[str, Any]) -> Any:
        """A connection of its own; untyped, as the stubs of gRPC want serializers where none are needed."""
        channel = grpc.aio.insecure_channel(self.address, (*ALONE, *options))
        self._stack.push_async_callback(channel.close, None)
        return channel

    @property
    def connections(self) -> set[Connection]:
        return self.server._connections

    @property
    def running(self) -> set[asyncio.Task[None] | Call]:
        return self.server._running

    def idle(self) -> bool:
        """No connection and no handler is left."""
        return not self.connections and not self.running


async def until(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    """Poll until ``condition`` holds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


async def echo(requests: Call, call: Call) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def same(request: bytes, call: Call) -> bytes:
    return request


USUAL: Handlers = {
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Same": grpc.unary_unary_rpc_method_handler(same),
}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """``await serve(Name=handler, …)`` serves those beside ``Echo`` and ``Same``; nothing may be left at the end."""
    async with AsyncExitStack() as stack:

        async def start(*, guard: Guard | None = None, tls: ssl.SSLContext | None = None, **handlers: Any) -> Served:
            served = Served({**USUAL, **handlers}, guard)
            await served.start(tls)

            async def stop() -> None:
                await served.stop()
                await until(served.idle)

            stack.push_async_callback(stop)
            return served

        yield start


@pytest.fixture
async def shop(serve: Serve) -> Served:
    return await serve()


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An error in the log that its test did not take notice of (``caplog.clear()``) is a failure."""
    caplog.set_level(logging.INFO)
    yield
    records = [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert not records, [record.getMessage() for record in records]


class Neighbour:
    """A call on a connection of its own that nothing may disturb."""

    def __init__(self, peer: Raw) -> None:
        self._peer = peer
        self._said = 0
        peer.send(opened(1, PREFIX + "Echo"))

    async def talks(self) -> None:
        self._said += 1
        word = b"%d" % self._said
        self._peer.send(said(1, word))
        assert (await self._peer.next(DATA, 1)).payload == message(word)


@pytest.fixture
async def neighbour(shop: Served) -> AsyncIterator[Neighbour]:
    async with Raw(shop.port) as peer:
        neighbour = Neighbour(peer)
        await neighbour.talks()
        yield neighbour
        await neighbour.talks()
