"""Nobody is sent more than they take, and nobody can make the server hold more than a window."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from controlplane.transport.call import MAX_MESSAGE, Call
from tests.component.transport.conftest import PREFIX, Serve, Served, until
from tests.component.transport.raw import (
    DATA,
    END_STREAM,
    PING,
    WINDOW_UPDATE,
    Raw,
    frame,
    message,
    opened,
    said,
    settings,
    window_update,
)

ECHO, SAME, TALK = PREFIX + "Echo", PREFIX + "Same", PREFIX + "Talk"
WINDOW = 65_535
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5


def talking(behaviour: Any) -> Any:
    return grpc.stream_stream_rpc_method_handler(behaviour)


async def the_only(served: Served) -> Call:
    """The one call of the one connection."""
    await until(lambda: [call for connection in served.connections for call in connection._calls.values()])
    ((call,),) = [list(connection._calls.values()) for connection in served.connections if connection._calls]
    return call


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_530, 65_531, 200_000, MAX_MESSAGE])
async def test_messages_of_every_size_pass_both_ways(size: int, shop: Served) -> None:
    channel = shop.channel()
    text = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert await channel.unary_unary(SAME)(text) == text
    call = channel.stream_stream(ECHO)()
    for _ in range(3):
        await call.write(text)
        assert await call.read() == text
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK


async def test_a_message_over_the_limit_is_refused_before_it_is_whole(serve: Serve) -> None:
    heard, cancelled = asyncio.Event(), asyncio.Event()

    async def listen(requests: AsyncIterator[bytes], call: Call) -> None:
        try:
            async for _ in requests:
                heard.set()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    served = await serve(Talk=talking(listen))
    channel = served.channel()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(SAME)(bytes(MAX_MESSAGE + 1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_MESSAGE) in str(caught.value.details())
    assert await channel.unary_unary(SAME)(b"the connection is whole") == b"the connection is whole"
    async with Raw(served.port) as peer:
        peer.send(opened(1, TALK), said(1, b"fine"))
        await heard.wait()
        peer.send(frame(DATA, 0, 1, b"\0\xff\xff\xff\xff"))
        assert (await peer.answer(1))[1]["grpc-status"] == "8"
    await asyncio.wait_for(cancelled.wait(), 10)


async def test_a_client_that_does_not_read_makes_write_wait_and_nobody_else(serve: Serve) -> None:
    size, written = 10_000, 0

    async def pour(requests: object, call: Call) -> AsyncIterator[bytes]:
        nonlocal written
        for number in range(100):
            yield number.to_bytes(4, "big") * (size // 4)
            written = number + 1

    served = await serve(Talk=talking(pour))
    async with Raw(served.port) as peer:
        peer.send(window_update(0, 2**30), opened(1, TALK, flags=END_STREAM | 0x4))
        call = await the_only(served)
        await until(lambda: call._out)
        for stream in (3, 5, 7):
            peer.send(opened(stream, SAME), said(stream, b"beside", END_STREAM))
            assert (await peer.headers(stream))["content-type"] == "application/grpc"
            assert (await peer.next(DATA, stream)).payload == message(b"beside")
        assert await served.channel().unary_unary(SAME)(b"elsewhere") == b"elsewhere"
        assert written == WINDOW // (size + 5)
        assert len(call._out) <= size + 5


async def test_what_waited_for_the_client_arrives_in_order(serve: Serve) -> None:
    async def pour(requests: object, call: Call) -> AsyncIterator[bytes]:
        for number in range(100):
            yield number.to_bytes(4, "big") * 2_500

    served = await serve(Talk=talking(pour))
    async with Raw(served.port) as peer:
        peer.send(window_update(0, 2**30), opened(1, TALK, flags=END_STREAM | 0x4))
        call = await the_only(served)
        await until(lambda: call._out)
        peer.send(window_update(1, 7), window_update(1, 1), window_update(1, 2**30))
        messages, trailers = await peer.answer(1)
    assert messages == [number.to_bytes(4, "big") * 2_500 for number in range(100)]
    assert trailers["grpc-status"] == "0"


async def test_grpcs_client_may_read_late(serve: Serve) -> None:
    written = 0

    async def pour(requests: object, call: Call) -> AsyncIterator[bytes]:
        nonlocal written
        for number in range(60):
            yield bytes([number]) * 200_000
            written = number + 1

    served = await serve(Talk=talking(pour))
    channel = served.channel(("grpc.http2.bdp_probe", 0))  # else it takes megabytes ahead
    call = channel.stream_stream(TALK)()
    assert await call.read() == bytes(200_000)
    assert await channel.unary_unary(SAME)(b"beside") == b"beside"
    assert written < 60
    for number in range(1, 60):
        assert await call.read() == bytes([number]) * 200_000
    assert await call.code() is grpc.StatusCode.OK


async def test_a_handler_that_does_not_read_makes_the_client_wait(serve: Serve) -> None:
    reading, heard = asyncio.Event(), bytearray()

    async def listen(requests: AsyncIterator[bytes], call: Call) -> None:
        await reading.wait()
        async for request in requests:
            heard.extend(request)

    served = await serve(Talk=talking(listen))
    async with Raw(served.port) as peer:
        chunk = bytes(range(100)) + bytes(891)
        peer.send(opened(1, TALK), *(said(1, chunk) for _ in range(WINDOW // 996)), frame(PING, 0, 0, bytes(8)))
        while (came := await peer.frame()).kind != PING:
            assert (came.kind, came.stream) != (WINDOW_UPDATE, 1)
        reading.set()
        assert (await peer.next(WINDOW_UPDATE, 1)).number >= WINDOW // 2
        peer.send(said(1, b"more", END_STREAM))
        assert (await peer.answer(1))[1]["grpc-status"] == "0"
    assert bytes(heard) == chunk * (WINDOW // 996) + b"more"


async def test_empty_messages_fill_the_window_too(serve: Serve) -> None:
    reading, heard = asyncio.Event(), 0

    async def listen(requests: AsyncIterator[bytes], call: Call) -> None:
        nonlocal heard
        await reading.wait()
        async for request in requests:
            assert request == b""
            heard += 1

    served = await serve(Talk=talking(listen))
    async with Raw(served.port) as peer:
        peer.send(opened(1, TALK), *(frame(DATA, 0, 1, message(b"") * 2_621) for _ in range(5)))
        call = await the_only(served)
        await until(lambda: len(call._inbox) == 13_105)
        assert call._unspent < 100
        reading.set()
        await peer.next(WINDOW_UPDATE, 1)
        peer.send(said(1, b"", END_STREAM))
        assert (await peer.answer(1))[1]["grpc-status"] == "0"
    assert heard == 13_106


async def test_the_initial_window_may_change_in_the_middle_of_a_call(shop: Served) -> None:
    async with Raw(shop.port) as peer:

        async def take(size: int) -> None:
            while size > 0:
                size -= len((await peer.next(DATA, 1)).payload)
            assert size == 0

        async def nothing_comes() -> None:
            peer.send(frame(PING, 0, 0, bytes(8)))
            while (came := await peer.frame()).kind != PING:
                assert came.kind != DATA

        peer.send(window_update(0, 2**30), opened(1, ECHO), *(said(1, bytes(9_995)) for _ in range(6)))
        await take(60_000)
        peer.send(settings((INITIAL_WINDOW_SIZE, 10)))  # 59,990 below nothing
        peer.send(said(1, bytes(100)))
        await nothing_comes()
        peer.send(window_update(1, 59_990))
        await nothing_comes()
        peer.send(window_update(1, 1))
        await take(1)
        peer.send(settings((INITIAL_WINDOW_SIZE, 109)))
        await take(99)
        peer.send(settings((INITIAL_WINDOW_SIZE, 0)))
        await nothing_comes()
        peer.send(window_update(1, 109 + 5))
        await take(5)
        peer.send(opened(3, ECHO), said(3, b"nothing yet", END_STREAM))
        await nothing_comes()
        peer.send(settings((INITIAL_WINDOW_SIZE, WINDOW)))
        assert (await peer.next(DATA, 3)).payload == message(b"nothing yet")


async def test_the_connections_window_is_shared_and_never_overdrawn(shop: Served) -> None:
    async with Raw(shop.port) as peer:
        streams = range(1, 21, 2)
        peer.send(*(opened(stream, ECHO) + said(stream, bytes(9_995), END_STREAM) for stream in streams))
        came = 0
        while came < WINDOW:
            came += len((await peer.next(DATA)).payload)
        assert came == WINDOW
        await peer.answers_pings()
        peer.send(window_update(0, 100_000 - WINDOW))
        while came < 100_000:
            came += len((await peer.next(DATA)).payload)
        assert came == 100_000
        await until(lambda: not shop.running)


async def test_frames_are_as_large_as_the_client_allows(shop: Served) -> None:
    async with Raw(shop.port) as peer:
        peer.send(opened(1, ECHO), said(1, bytes(15_000)), said(1, bytes(15_000)))
        assert [len((await peer.next(DATA)).payload) for _ in range(2)] == [15_005, 15_005]
        peer.send(window_update(1, 2**20), window_update(0, 2**20))
        peer.send(settings((INITIAL_WINDOW_SIZE, 2**20)))
        large = message(bytes(40_000))
        pieces = [frame(DATA, 0, 1, large[at : at + 16_000]) for at in range(0, len(large), 16_000)]
        peer.send(*pieces)
        assert [len((await peer.next(DATA)).payload) for _ in range(3)] == [16_384, 16_384, 40_005 - 2 * 16_384]
        peer.send(settings((MAX_FRAME_SIZE, 2**16)), *pieces)
        assert len((await peer.next(DATA)).payload) == 40_005


BOMB = gzip.compress(bytes(MAX_MESSAGE + 1))


@pytest.mark.parametrize(
    ("compressed", "encoding", "status"),
    [
        (BOMB, "gzip", "8"),
        (b"no gzip at all", "gzip", "13"),
        (gzip.compress(b"text")[:-9], "gzip", "13"),
        (b"text", "br", "12"),
        (b"text", "identity", "13"),
    ],
    ids=["a bomb", "garbage", "cut short", "an unknown encoding", "no encoding"],
)
async def test_what_cannot_be_decompressed_is_refused(
    compressed: bytes, encoding: str, status: str, serve: Serve
) -> None:
    async def deliver(requests: object, call: Call) -> None:
        call.receive(lambda _: None, lambda: None)
        await asyncio.Event().wait()

    served = await serve(Talk=talking(deliver))
    async with Raw(served.port) as peer:
        for stream, path in ((1, SAME), (3, ECHO), (5, TALK)):
            sent = frame(DATA, 0, stream, message(compressed, compressed=True))
            peer.send(opened(stream, path, grpc_encoding=encoding), sent)
            assert (await peer.answer(stream))[1]["grpc-status"] == status
        await peer.answers_pings()
    await until(served.idle)


async def test_bombs_that_nobody_reads_stay_small(serve: Serve) -> None:
    async def deaf(requests: object, call: Call) -> None:
        await asyncio.Event().wait()

    served = await serve(Talk=talking(deaf))
    bomb = gzip.compress(bytes(MAX_MESSAGE))
    count = WINDOW // (len(bomb) + 5)
    async with Raw(served.port) as peer:
        sent = (frame(DATA, 0, 1, message(bomb, compressed=True)) for _ in range(count))
        peer.send(opened(1, TALK, grpc_encoding="gzip"), *sent)
        call = await the_only(served)
        await until(lambda: len(call._inbox) == count)
        assert sum(map(len, call._inbox)) < WINDOW
