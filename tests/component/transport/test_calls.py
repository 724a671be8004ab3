"""Calls of gRPC's own clients, synchronous and asyncio: the four kinds, metadata, statuses, failures."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from controlplane.transport.call import MAX_MESSAGE, Aborted, Call
from tests.component.transport.conftest import ALONE, PREFIX, Serve, Served, until
from tests.component.transport.raw import DATA, END_STREAM, Raw, frame, message, opened, said

ECHO, SAME = PREFIX + "Echo", PREFIX + "Same"
Metadata = tuple[tuple[str, str | bytes], ...]


def number(raw: bytes) -> int:
    return int(struct.unpack(">q", raw)[0])


def raw(value: int) -> bytes:
    return struct.pack(">q", value)


async def double(request: int, call: Call) -> int:
    return 2 * request


async def count(request: int, call: Call) -> AsyncIterator[int]:
    for value in range(request):
        yield value


async def count_by_writing(request: int, call: Call) -> None:
    for value in range(request):
        await call.write(value)


async def add(requests: AsyncIterator[int], call: Call) -> int:
    total = 0
    async for request in requests:
        total += request
    return total


async def add_by_reading(requests: object, call: Call) -> int:
    total = 0
    while (request := await call.read()) is not None:
        total += request
    return total


async def sums(requests: AsyncIterator[int], call: Call) -> AsyncIterator[int]:
    total = 0
    async for request in requests:
        total += request
        yield total


async def sums_by_hand(requests: object, call: Call) -> None:
    total = 0
    while (request := await call.read()) is not None:
        total += request
        await call.write(total)


def coded(kind: Callable[..., Any], behaviour: Any) -> Any:
    return kind(behaviour, request_deserializer=number, response_serializer=raw)


NUMBERS = {
    "Double": coded(grpc.unary_unary_rpc_method_handler, double),
    "Count": coded(grpc.unary_stream_rpc_method_handler, count),
    "CountByWriting": coded(grpc.unary_stream_rpc_method_handler, count_by_writing),
    "Add": coded(grpc.stream_unary_rpc_method_handler, add),
    "AddByReading": coded(grpc.stream_unary_rpc_method_handler, add_by_reading),
    "Sums": coded(grpc.stream_stream_rpc_method_handler, sums),
    "SumsByHand": coded(grpc.stream_stream_rpc_method_handler, sums_by_hand),
}


async def test_an_asyncio_client_makes_the_four_kinds_of_calls(serve: Serve) -> None:
    channel = (await serve(**NUMBERS)).channel()

    async def given() -> AsyncIterator[int]:
        for value in (1, 2, 3):
            yield value

    assert await channel.unary_unary(PREFIX + "Double", raw, number)(21) == 42
    for name in ("Count", "CountByWriting"):
        assert [value async for value in channel.unary_stream(PREFIX + name, raw, number)(3)] == [0, 1, 2]
        assert [value async for value in channel.unary_stream(PREFIX + name, raw, number)(0)] == []
    for name in ("Add", "AddByReading"):
        assert await channel.stream_unary(PREFIX + name, raw, number)(given()) == 6
    for name in ("Sums", "SumsByHand"):
        assert [value async for value in channel.stream_stream(PREFIX + name, raw, number)(given())] == [1, 3, 6]


async def test_a_synchronous_client_makes_the_four_kinds_of_calls(serve: Serve) -> None:
    served = await serve(**NUMBERS)

    def calls() -> None:
        channel: Any = grpc.insecure_channel(served.address, ALONE)
        with channel:
            assert channel.unary_unary(PREFIX + "Double", raw, number)(21, timeout=10) == 42
            assert list(channel.unary_stream(PREFIX + "Count", raw, number)(3, timeout=10)) == [0, 1, 2]
            assert channel.stream_unary(PREFIX + "Add", raw, number)(iter((1, 2, 3)), timeout=10) == 6
            assert list(channel.stream_stream(PREFIX + "Sums", raw, number)(iter((1, 2)), timeout=10)) == [1, 3]

    await asyncio.to_thread(calls)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if isinstance(call, grpc.aio.UnaryUnaryCall | grpc.aio.StreamUnaryCall):
            await call
        else:
            async for _ in call:
                continue
    return caught.value


async def test_metadata_travels_both_ways(serve: Serve) -> None:
    seen: list[Metadata] = []

    async def keep(request: bytes, call: Call) -> bytes:
        seen.append(call.invocation_metadata())
        call.set_trailing_metadata((("colour", "blue"), ("shape-bin", bytes(range(256))), ("empty-bin", b"")))
        return b""

    channel = (await serve(Keep=grpc.unary_unary_rpc_method_handler(keep))).channel()
    up: Metadata = (("plain", "a b~"), ("twice", "1"), ("twice", "2"), ("raw-bin", bytes(range(256))), ("nil-bin", b""))
    call = channel.unary_unary(PREFIX + "Keep")(b"", metadata=up)
    await call
    arrived = [entry for entry in seen[0] if entry[0] in dict(up)]
    assert sorted(arrived) == sorted(up)
    assert [value for name, value in arrived if name == "twice"] == ["1", "2"]
    assert "user-agent" in dict(seen[0])
    assert not [name for name, _ in seen[0] if name.startswith((":", "grpc-"))]
    trailing: Any = await call.trailing_metadata()
    assert dict(trailing) == {"colour": "blue", "shape-bin": bytes(range(256)), "empty-bin": b""}


async def test_a_handler_knows_who_calls(serve: Serve) -> None:
    async def who(request: bytes, call: Call) -> bytes:
        return call.peer().encode()

    served = await serve(Who=grpc.unary_unary_rpc_method_handler(who))
    async with Raw(served.port) as peer:
        peer.send(opened(1, PREFIX + "Who"), said(1, b"", END_STREAM))
        (answer,), _ = await peer.answer(1)
        assert answer == b"ipv4:127.0.0.1:%d" % peer.writer.get_extra_info("sockname")[1]


@pytest.mark.parametrize(
    "details",
    ["", "plain", "100 % — naïve «ünïcödé» 🦊", "tabs\tlines\r\nnul\0 end", " spaces around ", "%41%zz%", "x" * 5_000],
)
async def test_details_arrive_as_they_were_given(details: str, serve: Serve) -> None:
    async def refuse(request: bytes, call: Call) -> bytes:
        return await call.abort(grpc.StatusCode.FAILED_PRECONDITION, details, (("why-bin", b"\0\1"),))

    channel = (await serve(Refuse=grpc.unary_unary_rpc_method_handler(refuse))).channel()
    error = await failure(channel.unary_unary(PREFIX + "Refuse")(b""))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == details
    trailing: Any = error.trailing_metadata()
    assert dict(trailing)["why-bin"] == b"\0\1"


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_a_code_that_was_set_is_the_calls_status(code: grpc.StatusCode, serve: Serve) -> None:
    async def refuse(request: bytes, call: Call) -> bytes:
        call.set_code(code)
        call.set_details("no")
        assert call.refused
        return b"not to be sent"

    async def refuse_late(request: bytes, call: Call) -> AsyncIterator[bytes]:
        yield b"first"
        call.set_code(code)
        call.set_details("no more")

    served = await serve(
        Refuse=grpc.unary_unary_rpc_method_handler(refuse),
        RefuseLate=grpc.unary_stream_rpc_method_handler(refuse_late),
    )
    channel = served.channel()
    error = await failure(channel.unary_unary(PREFIX + "Refuse")(b""))
    assert (error.code(), error.details()) == (code, "no")
    late = channel.unary_stream(PREFIX + "RefuseLate")(b"")
    assert await late.read() == b"first"
    assert (await late.code(), await late.details()) == (code, "no more")


@pytest.mark.parametrize("path", ["/test.Shop/Unknown", "/test.Unknown/Echo", "/", "/" + "x" * 9_000, "/%0a%zz/é"])
async def test_a_method_that_does_not_exist_is_unimplemented(path: str, shop: Served) -> None:
    async with Raw(shop.port) as peer:
        peer.send(opened(1, path), said(1, b"", END_STREAM))
        trailers = await peer.headers(1)
        assert trailers["grpc-status"] == "12"
        assert len(trailers["grpc-message"]) <= 9_000
        peer.send(opened(3, SAME), said(3, b"next", END_STREAM))
        assert (await peer.answer(3))[0] == [b"next"]


async def test_a_handler_that_fails_is_logged_and_disturbs_nobody(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: bytes, call: Call) -> bytes:
        raise LookupError("a secret of the server")

    async def fail_late(request: bytes, call: Call) -> AsyncIterator[bytes]:
        yield b"first"
        raise LookupError("a secret of the server")

    served = await serve(
        Fail=grpc.unary_unary_rpc_method_handler(fail),
        FailLate=grpc.unary_stream_rpc_method_handler(fail_late),
    )
    channel = served.channel()
    beside = channel.stream_stream(ECHO)()
    await beside.write(b"before")
    assert await beside.read() == b"before"
    for call in (channel.unary_unary(PREFIX + "Fail")(b""), channel.unary_stream(PREFIX + "FailLate")(b"")):
        error = await failure(call)
        assert error.code() is grpc.StatusCode.UNKNOWN
        assert "secret" not in str(error.details())
    await beside.write(b"after")
    assert await beside.read() == b"after"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        f"{PREFIX}Fail failed",
        f"{PREFIX}FailLate failed",
    ]
    caplog.clear()


@pytest.mark.parametrize(
    "metadata", [(("schlüssel", "1"),), (("key", "\udcff"),), (("key", 5),)], ids=["name", "surrogate", "number"]
)
@pytest.mark.parametrize("way", ["set", "abort"])
async def test_metadata_that_cannot_be_sent_fails_its_call_alone(
    metadata: Any, way: str, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def careless(request: bytes, call: Call) -> bytes:
        if way == "abort":
            await call.abort(grpc.StatusCode.NOT_FOUND, "", metadata)
        call.set_trailing_metadata(metadata)
        return b""

    served = await serve(Careless=grpc.unary_unary_rpc_method_handler(careless))
    error = await failure(served.channel().unary_unary(PREFIX + "Careless")(b"", timeout=10))
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "Careless failed" in caplog.text
    caplog.clear()


async def test_more_metadata_than_clients_take_leaves_the_status(serve: Serve) -> None:
    async def lavish(request: bytes, call: Call) -> bytes:
        return await call.abort(grpc.StatusCode.NOT_FOUND, "ü" * 20_000, (("much-bin", bytes(9_000)),))

    channel = (await serve(Lavish=grpc.unary_unary_rpc_method_handler(lavish))).channel()
    error = await failure(channel.unary_unary(PREFIX + "Lavish")(b""))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert str(error.details()).startswith("üüü")
    assert await channel.unary_unary(SAME)(b"the connection is whole") == b"the connection is whole"


async def test_details_of_undecodable_bytes_still_arrive(serve: Serve) -> None:
    async def refuse(request: bytes, call: Call) -> bytes:
        return await call.abort(grpc.StatusCode.NOT_FOUND, "file \udcff is missing")

    channel = (await serve(Refuse=grpc.unary_unary_rpc_method_handler(refuse))).channel()
    error = await failure(channel.unary_unary(PREFIX + "Refuse")(b""))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "file ? is missing")


async def test_a_request_that_cannot_be_decoded_is_refused(serve: Serve) -> None:
    channel = (await serve(**NUMBERS)).channel()
    for call in (
        channel.unary_unary(PREFIX + "Double")(b"short"),
        channel.unary_stream(PREFIX + "Count")(b""),
        channel.stream_unary(PREFIX + "Add")(iter((raw(1), b"short"))),
    ):
        error = await failure(call)
        assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "the request cannot be decoded")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"", "no request"), (message(b"whole")[:-1], "not whole"), (b"\0\0", "not whole")],
    ids=["nothing", "most of it", "half a length"],
)
async def test_a_request_that_does_not_come_is_missed(sent: bytes, reason: str, shop: Served) -> None:
    async with Raw(shop.port) as peer:
        peer.send(opened(1, SAME), frame(DATA, END_STREAM, 1, sent))
        _, trailers = await peer.answer(1)
    assert trailers["grpc-status"] == "13"
    assert reason in trailers["grpc-message"]


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_what_clients_compress_is_understood(algorithm: grpc.Compression, shop: Served) -> None:
    channel: Any = grpc.aio.insecure_channel(shop.address, ALONE, compression=algorithm)
    async with channel:
        for text in (b"", b"a", b"abc" * 50_000, bytes(MAX_MESSAGE)):
            assert await channel.unary_unary(SAME)(text) == text
        call = channel.stream_stream(ECHO)()
        for text in (b"abc" * 1_000, b"", b"def" * 1_000):
            await call.write(text)
            assert await call.read() == text
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK


async def test_a_guard_sees_every_call_first(serve: Serve) -> None:
    def nobody_twice(call: Call) -> None:
        if "again" in dict(call.invocation_metadata()):
            raise Aborted(grpc.StatusCode.UNAUTHENTICATED, "once is enough", ())

    channel = (await serve(guard=nobody_twice)).channel()
    assert await channel.unary_unary(SAME)(b"first") == b"first"
    for path in (SAME, PREFIX + "Unknown"):
        error = await failure(channel.unary_unary(path)(b"", metadata=(("again", "1"),)))
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "once is enough")


async def test_many_calls_share_a_connection(shop: Served) -> None:
    channel = shop.channel()

    async def talk(who: int) -> None:
        call = channel.stream_stream(ECHO)()
        for turn in range(5):
            word = b"%d says %d" % (who, turn)
            await call.write(word)
            assert await call.read() == word
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK

    await asyncio.gather(*(talk(who) for who in range(300)))
    assert len(shop.connections) == 1
    await until(lambda: not shop.running)
