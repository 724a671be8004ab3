"""What breaks HTTP/2 ends its own connection, with the code that says why, and touches nobody else."""

from __future__ import annotations

import struct

import pytest

from controlplane.transport import connection
from controlplane.transport.frames import Fault
from tests.component.transport import raw
from tests.component.transport.conftest import PREFIX, Neighbour, Served, until
from tests.component.transport.raw import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Raw,
    block,
    frame,
    opened,
    opening,
    reset,
    said,
    settings,
    window_update,
)

ECHO, SAME = PREFIX + "Echo", PREFIX + "Same"
CALL = opened(1, ECHO)
FIELDS = block(opening(ECHO))
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5

BREACHES: dict[str, tuple[bytes, Fault]] = {
    "a frame of 16,385 bytes": (frame(DATA, 0, 1, bytes(16_385)), Fault.FRAME_SIZE_ERROR),
    "the announcement of a frame of 16 MiB": (b"\xff\xff\xff" + bytes(6), Fault.FRAME_SIZE_ERROR),
    "data on an idle stream": (said(1, b""), Fault.PROTOCOL_ERROR),
    "data on stream 0": (said(0, b""), Fault.PROTOCOL_ERROR),
    "data on an even stream": (CALL + said(2, b""), Fault.PROTOCOL_ERROR),
    "data after the last data": (CALL + said(1, b"", END_STREAM) + said(1, b""), Fault.STREAM_CLOSED),
    "headers on stream 0": (opened(0, ECHO), Fault.PROTOCOL_ERROR),
    "headers on an even stream": (opened(2, ECHO), Fault.PROTOCOL_ERROR),
    "headers in the middle of a call": (CALL + CALL, Fault.PROTOCOL_ERROR),
    "headers that are not continued": (
        frame(HEADERS, 0, 1, FIELDS) + frame(PING, 0, 0, bytes(8)),
        Fault.PROTOCOL_ERROR,
    ),
    "data between headers and their continuation": (frame(HEADERS, 0, 1, FIELDS) + said(1, b""), Fault.PROTOCOL_ERROR),
    "headers continued on another stream": (
        frame(HEADERS, 0, 1, FIELDS) + frame(CONTINUATION, END_HEADERS, 3),
        Fault.PROTOCOL_ERROR,
    ),
    "a continuation of nothing": (frame(CONTINUATION, END_HEADERS, 1, FIELDS), Fault.PROTOCOL_ERROR),
    "headers of more than 32 KiB": (
        frame(HEADERS, 0, 1, bytes(16_384)) + frame(CONTINUATION, 0, 1, bytes(16_384)) * 2,
        Fault.ENHANCE_YOUR_CALM,
    ),
    "headers that grow beyond 32 KiB": (  # one entry of 3 KB in the table, named over and over by a byte each
        frame(HEADERS, END_HEADERS, 1, b"\x40\x01a\x7f\xb9\x16" + bytes(3_000) + b"\xbe" * 100),
        Fault.COMPRESSION_ERROR,
    ),
    "an index outside HPACK's table": (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\x03"), Fault.COMPRESSION_ERROR),
    "an HPACK string cut short": (frame(HEADERS, END_HEADERS, 1, b"\x40\x0aabc"), Fault.COMPRESSION_ERROR),
    "an HPACK table that is too large": (frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x03"), Fault.COMPRESSION_ERROR),
    "a window opened by nothing": (window_update(0, 0), Fault.PROTOCOL_ERROR),
    "a call's window opened by nothing": (CALL + window_update(1, 0), Fault.PROTOCOL_ERROR),
    "a window of more than 2^31-1": (window_update(0, 2**31 - 1), Fault.FLOW_CONTROL_ERROR),
    "a call's window of more than 2^31-1": (CALL + window_update(1, 2**31 - 1), Fault.FLOW_CONTROL_ERROR),
    "a window of an idle stream": (window_update(7, 1), Fault.PROTOCOL_ERROR),
    "a window of three bytes": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), Fault.FRAME_SIZE_ERROR),
    "more data than the call's window": (CALL + frame(DATA, 0, 1, bytes(16_384)) * 4, Fault.FLOW_CONTROL_ERROR),
    "more padding than frame": (CALL + frame(DATA, PADDED, 1, b"\x05abc"), Fault.PROTOCOL_ERROR),
    "padding in an empty frame": (CALL + frame(DATA, PADDED, 1), Fault.PROTOCOL_ERROR),
    "padding around headers": (frame(HEADERS, PADDED | END_HEADERS, 1, b"\xff" + FIELDS[:9]), Fault.PROTOCOL_ERROR),
    "a priority of two bytes": (frame(HEADERS, PRIORITISED | END_HEADERS, 1, b"ab"), Fault.FRAME_SIZE_ERROR),
    "settings of five bytes": (frame(SETTINGS, 0, 0, bytes(5)), Fault.FRAME_SIZE_ERROR),
    "an acknowledgement with settings": (frame(SETTINGS, ACK, 0, bytes(6)), Fault.FRAME_SIZE_ERROR),
    "settings of a stream": (frame(SETTINGS, 0, 1), Fault.PROTOCOL_ERROR),
    "an initial window of 2^31": (settings((INITIAL_WINDOW_SIZE, 2**31)), Fault.FLOW_CONTROL_ERROR),
    "an initial window that overflows a call's": (
        CALL + window_update(1, 2**30) + settings((INITIAL_WINDOW_SIZE, 2**30 + 1)),
        Fault.FLOW_CONTROL_ERROR,
    ),
    "frames of at most 16,383 bytes": (settings((MAX_FRAME_SIZE, 16_383)), Fault.PROTOCOL_ERROR),
    "frames of 16 MiB": (settings((MAX_FRAME_SIZE, 2**24)), Fault.PROTOCOL_ERROR),
    "a ping of seven bytes": (frame(PING, 0, 0, bytes(7)), Fault.FRAME_SIZE_ERROR),
    "a ping on a stream": (frame(PING, 0, 1, bytes(8)), Fault.PROTOCOL_ERROR),
    "a reset of an idle stream": (reset(1), Fault.PROTOCOL_ERROR),
    "a reset of stream 0": (reset(0), Fault.PROTOCOL_ERROR),
    "a reset of three bytes": (CALL + frame(RST_STREAM, 0, 1, bytes(3)), Fault.FRAME_SIZE_ERROR),
    "a promise from a client": (CALL + frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), Fault.PROTOCOL_ERROR),
}

FLOODS: dict[str, bytes] = {
    "pings": frame(PING, 0, 0, bytes(8)) * 20_000,
    "settings": settings((INITIAL_WINDOW_SIZE, 65_535)) * 20_000,
    "windows": window_update(0, 1) * 20_000,
    "empty data": CALL + frame(DATA, 0, 1) * 20_000,
    "continuations": frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 20_000,
    "unknown frames": frame(99, 0, 0) * 20_000,
    "calls that are opened and reset": b"".join(opened(stream, ECHO) + reset(stream) for stream in range(1, 16_001, 2)),
}


@pytest.mark.parametrize("what", BREACHES)
async def test_a_breach_ends_its_own_connection_and_says_why(what: str, shop: Served, neighbour: Neighbour) -> None:
    frames, fault = BREACHES[what]
    async with Raw(shop.port) as peer:
        peer.send(frames)
        farewell = await peer.farewell()
    assert farewell.fault == fault, farewell
    assert farewell.reason
    await neighbour.talks()
    await until(lambda: len(shop.connections) == len(shop.running) == 1)  # the neighbour's


@pytest.mark.parametrize("what", FLOODS)
async def test_a_flood_of_frames_without_messages_ends_its_own_connection(
    what: str, shop: Served, neighbour: Neighbour, caplog: pytest.LogCaptureFixture
) -> None:
    async with Raw(shop.port) as peer:
        peer.send(FLOODS[what])
        await peer.ended()
    assert "frames a second without a message" in caplog.text
    await until(lambda: len(shop.connections) == len(shop.running) == 1)


async def test_headers_on_the_end_of_a_call_that_has_ended_are_ignored(shop: Served, neighbour: Neighbour) -> None:
    async with Raw(shop.port) as peer:
        peer.send(opened(1, PREFIX + "Unknown"))
        assert (await peer.headers(1))["grpc-status"] == "12"
        peer.send(said(1, b"late"), window_update(1, 9), reset(1), opened(1, ECHO, END_HEADERS | END_STREAM))
        await peer.answers_pings()


HARMLESS: dict[str, bytes] = {
    "an unknown type": frame(99, 0xFF, 1, b"whatever"),
    "a priority": frame(PRIORITY, 0, 1, bytes(5)),
    "a priority of an idle stream": frame(PRIORITY, 0, 77, bytes(5)),
    "unknown settings": settings((0xABCD, 5), (1, 0), (2, 0), (3, 0), (6, 1)),
    "an answer to a ping that was not sent": frame(PING, ACK, 0, bytes(8)),
    "the reserved bit": window_update(2**31, 1),
    "a larger frame size": settings((MAX_FRAME_SIZE, 2**24 - 1)),
}


@pytest.mark.parametrize("what", HARMLESS)
async def test_what_means_nothing_is_ignored(what: str, shop: Served) -> None:
    async with Raw(shop.port) as peer:
        peer.send(CALL, said(1, b"one"), HARMLESS[what], said(1, b"two", END_STREAM))
        assert (await peer.answer(1))[0] == [b"one", b"two"]
        await peer.answers_pings()


async def test_padding_priority_and_trailers_are_taken_off(shop: Served) -> None:
    headers = b"\x04" + bytes(5) + FIELDS + bytes(4)
    data = b"\x03" + raw.message(b"padded") + bytes(3)
    async with Raw(shop.port) as peer:
        peer.send(
            frame(HEADERS, PADDED | PRIORITISED | END_HEADERS, 1, headers),
            frame(DATA, PADDED, 1, data),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, block([("x-checksum", "1")])),
        )
        messages, trailers = await peer.answer(1)
    assert (messages, trailers["grpc-status"]) == ([b"padded"], "0")


async def test_headers_may_come_in_pieces(shop: Served) -> None:
    pieces = [frame(CONTINUATION, 0, 1, FIELDS[at : at + 1]) for at in range(len(FIELDS))]
    async with Raw(shop.port) as peer:
        peer.send(frame(HEADERS, 0, 1), *pieces, frame(CONTINUATION, END_HEADERS, 1), said(1, b"whole", END_STREAM))
        assert (await peer.answer(1))[0] == [b"whole"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"verb": "GET"}, "405"),
        ({"content_type": "application/json"}, "415"),
        ({"content_type": "application/grpc-web+proto"}, "415"),
        ({"content_type": ""}, "415"),
        ({"grpc_timeout": "soon"}, "400"),
        ({"trace_bin": "?"}, "400"),
    ],
)
async def test_requests_that_are_no_calls_get_an_http_status(fields: dict[str, str], status: str, shop: Served) -> None:
    async with Raw(shop.port) as peer:
        peer.send(opened(1, SAME, END_HEADERS, **fields))
        answer = await peer.next(HEADERS, 1)
        assert answer.flags & END_STREAM
        assert peer.fields(answer) == {":status": status}
        peer.send(opened(3, SAME), said(3, b"a call", END_STREAM))
        assert (await peer.answer(3))[0] == [b"a call"]
    assert not shop.running


@pytest.mark.parametrize(
    "content_type", ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"]
)
async def test_every_content_type_of_grpc_is_welcome(content_type: str, shop: Served) -> None:
    async with Raw(shop.port) as peer:
        peer.send(opened(1, SAME, content_type=content_type), said(1, b"hello", END_STREAM))
        assert (await peer.answer(1))[0] == [b"hello"]


@pytest.mark.parametrize("verb", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_http_1_is_told_where_it_is(verb: str, shop: Served, neighbour: Neighbour) -> None:
    async with Raw(shop.port, greet=False) as peer:
        peer.send(f"{verb} /v1/services HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        answer = await peer.ended()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"This port speaks gRPC" in answer


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"\x16\x03\x01\x02\0\x01\0", b"PRI * HTTP/1.0\r\n\r\n", b"\xff"])
async def test_garbage_is_answered_with_nothing(garbage: bytes, shop: Served, neighbour: Neighbour) -> None:
    async with Raw(shop.port, greet=False) as peer:
        peer.send(garbage)
        assert await peer.ended() == b""


async def test_everything_may_come_a_byte_at_a_time(shop: Served) -> None:
    spoken = PREFACE + settings() + CALL + said(1, b"slowly") + said(1, b"", END_STREAM)
    async with Raw(shop.port, greet=False) as peer:
        for at in range(len(spoken)):
            peer.send(spoken[at : at + 1])
            await peer.writer.drain()
        messages, trailers = await peer.answer(1)
    assert (messages, trailers["grpc-status"]) == ([b"slowly", b""], "0")


async def test_a_client_may_open_as_many_calls_as_it_was_promised_and_no_more(
    shop: Served, neighbour: Neighbour
) -> None:
    async with Raw(shop.port) as peer:
        promised = dict(struct.iter_unpack(">HI", (await peer.next(SETTINGS)).payload))[3]
        assert promised == connection.MAX_CALLS
        streams = range(1, 2 * promised, 2)
        peer.send(*(opened(stream, ECHO) for stream in streams))
        await until(lambda: len(shop.running) == promised + 1)
        beyond = streams[-1] + 2
        peer.send(opened(beyond, ECHO))
        refused = await peer.next(RST_STREAM)
        assert (refused.stream, refused.number) == (beyond, Fault.REFUSED_STREAM)
        peer.send(said(1, b"still served", END_STREAM))
        assert (await peer.answer(1))[0] == [b"still served"]
        peer.send(opened(beyond + 2, ECHO), said(beyond + 2, b"room again", END_STREAM))
        assert (await peer.answer(beyond + 2))[0] == [b"room again"]


async def test_a_client_that_says_goodbye_is_served_to_the_end(shop: Served) -> None:
    async with Raw(shop.port) as peer:
        peer.send(CALL, frame(GOAWAY, 0, 0, bytes(8)), said(1, b"one more", END_STREAM))
        assert (await peer.answer(1))[0] == [b"one more"]
        await peer.ended()
    await until(shop.idle)
