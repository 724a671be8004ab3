"""A server that stops says goodbye, lets what runs come to an end, and leaves nothing open."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from controlplane.transport import server as server_module
from controlplane.transport.call import Call
from controlplane.transport.connection import Connection
from controlplane.transport.frames import Fault
from controlplane.transport.server import Server
from tests.component.transport.conftest import ALONE, PREFIX, Serve, Served, until
from tests.component.transport.raw import (
    DATA,
    END_STREAM,
    GOAWAY,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Raw,
    message,
    opened,
    said,
)

ECHO, SAME, POUR = PREFIX + "Echo", PREFIX + "Same", PREFIX + "Pour"


async def pour(requests: object, call: Call) -> AsyncIterator[bytes]:
    while True:
        yield bytes(10_000)


POURING: Any = grpc.stream_stream_rpc_method_handler(pour)


async def test_calls_that_run_come_to_their_end(shop: Served) -> None:
    async with Raw(shop.port) as peer, Raw(shop.port) as idle:
        peer.send(opened(1, ECHO), said(1, b"before"))
        assert (await peer.next(DATA, 1)).payload == message(b"before")
        await idle.next(SETTINGS)
        stopping = asyncio.create_task(shop.server.stop(30))
        away = await peer.next(GOAWAY)
        assert away.payload == b"\0\0\0\1\0\0\0\0"
        assert (await idle.farewell()).fault == Fault.NO_ERROR
        peer.send(opened(3, SAME), said(3, b"too late", END_STREAM))
        refused = await peer.next(RST_STREAM)
        assert (refused.stream, refused.number) == (3, Fault.REFUSED_STREAM)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", shop.port)
        peer.send(said(1, b"after", END_STREAM))
        messages, trailers = await peer.answer(1)
        assert (messages, trailers["grpc-status"]) == ([b"after"], "0")
        assert await peer.ended() == b""
        await asyncio.wait_for(stopping, 10)
    assert shop.idle()


async def test_calls_that_outstay_the_grace_end_unavailable(shop: Served) -> None:
    call = shop.channel().stream_stream(ECHO)()
    await call.write(b"a")
    assert await call.read() == b"a"
    await asyncio.wait_for(shop.server.stop(0.05), 10)
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert await call.details() == "the server is shutting down"
    assert shop.idle()


async def test_who_does_not_take_the_farewell_is_dropped(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_FAREWELL", 0.05)
    served = await serve(Pour=POURING)
    async with Raw(served.port) as peer:
        peer.send(opened(1, POUR))
        await peer.headers(1)
        await asyncio.wait_for(served.server.stop(0), 10)
        await peer.ended()
    await until(served.idle)


async def test_clients_move_to_another_server(serve: Serve) -> None:
    one, two = await serve(), await serve()
    channel: Any = grpc.aio.insecure_channel(f"ipv4:{one.address},{two.address}", ALONE)
    async with channel:
        assert await channel.unary_unary(SAME)(b"here") == b"here"
        first, second = (one, two) if one.connections else (two, one)
        assert not second.connections
        await asyncio.wait_for(first.server.stop(1), 10)
        for _ in range(20):
            assert await channel.unary_unary(SAME)(b"there", wait_for_ready=True) == b"there"
        assert second.connections


async def test_no_call_is_lost_while_a_server_stops(serve: Serve) -> None:
    """What a client sends while the server says goodbye is either served or refused so that gRPC sends it again."""
    one, two = await serve(), await serve()
    channel: Any = grpc.aio.insecure_channel(f"ipv4:{one.address},{two.address}", ALONE)
    async with channel:
        answered = 0

        async def ask() -> None:
            nonlocal answered
            for _ in range(50):
                assert await channel.unary_unary(SAME)(b"?", wait_for_ready=True) == b"?"
                answered += 1

        asking = asyncio.gather(*(ask() for _ in range(10)))
        await until(lambda: answered > 50)
        first = one if one.connections else two
        await asyncio.wait_for(first.server.stop(5), 10)
        await asyncio.wait_for(asking, 20)
    assert answered == 500


async def test_a_server_may_be_stopped_at_any_time_and_twice(shop: Served) -> None:
    await Server().stop(1)
    await shop.server.stop(1)
    await asyncio.wait_for(shop.server.stop(1), 10)


async def test_who_connects_while_the_server_stops_is_sent_away(shop: Served) -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    async with Raw(shop.port) as peer:
        peer.send(opened(1, ECHO), said(1, b"a"))
        await peer.next(DATA, 1)
        stopping = asyncio.create_task(shop.server.stop(30))
        await peer.next(GOAWAY)
        await loop.connect_accepted_socket(lambda: Connection(shop.server, loop), ours)
        reader, writer = await asyncio.open_connection(sock=theirs)
        writer.write(PREFACE + opened(1, ECHO))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        assert len(shop.running) == 1
        peer.send(said(1, b"", END_STREAM))
        await peer.ended()
        await asyncio.wait_for(stopping, 10)


async def test_the_farewell_reaches_a_client_that_still_speaks(shop: Served) -> None:
    async with Raw(shop.port) as peer:
        await peer.next(SETTINGS)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # a ReadTransport as well
        stopping = asyncio.create_task(shop.server.stop(30))
        await until(lambda: all(connection._closing_since for connection in shop.connections))
        for stream in (1, 3, 5):
            peer.send(opened(stream, SAME))
            await asyncio.sleep(0.02)
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await peer.farewell() == (0, Fault.NO_ERROR, "")
        await asyncio.wait_for(stopping, 10)
