"""A connection without a socket: what waits stays small, and no sequence of frames brings it out of order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controlplane.transport.call import Call
from controlplane.transport.connection import Connection
from tests.component.transport.raw import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    block,
    frame,
    message,
    opened,
    opening,
    reset,
    said,
    window_update,
)
from tests.component.transport.raw import settings as given_settings

HIGH, LOW = 65_536, 16_384


class Socket:
    """A transport that takes what it is told to take, with asyncio's watermarks."""

    def __init__(self) -> None:
        self.waiting = 0
        self.largest = 0
        self.said = bytearray()
        self.stuck = False
        self.closed = self.aborted = False
        self.connection: Connection

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 5) if name == "peername" else None

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        assert not self.closed, "said after the end"
        self.said += data
        if self.stuck:
            self.waiting += len(data)
            self.largest = max(self.largest, self.waiting)
            if self.waiting > HIGH and self.connection.writable:
                self.connection.pause_writing()

    def take(self) -> None:
        """The peer reads everything."""
        self.waiting = 0
        if not self.connection.writable:
            self.connection.resume_writing()

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


class House:
    """Takes every call and answers it, at once or never; stands for the server."""

    def __init__(self, *, greet: bool = True) -> None:
        self.loop = asyncio.new_event_loop()
        self.calls: list[Call] = []
        self.known: set[Connection] = set()
        self.over: set[Call] = set()
        self.socket = Socket()
        self.connection = self.socket.connection = Connection(self, self.loop)
        self.connection.connection_made(self.socket)  # type: ignore[arg-type]
        if greet:
            self.hear(PREFACE, given_settings())

    def opened(self, connection: Connection) -> None:
        self.known.add(connection)

    def closed(self, connection: Connection) -> None:
        self.known.discard(connection)

    def accept(self, call: Call) -> None:
        self.calls.append(call)
        call.receive(lambda came: self.echo(call, came), lambda: None)

    def ended(self, call: Call) -> None:
        assert call.over
        self.over.add(call)

    def echo(self, call: Call, came: bytes | None) -> None:
        if came is None:
            call.complete()
        elif not call._out:
            call.send(came)

    def hear(self, *frames: bytes) -> None:
        self.connection.data_received(b"".join(frames))

    def lose(self) -> None:
        self.connection.connection_lost(None)
        assert self.over == set(self.calls)
        self.loop.close()


def test_who_asks_much_and_takes_no_answer_is_not_remembered_without_end() -> None:
    house = House()
    house.socket.stuck = True
    house.hear(opened(1, "/a"), reset(1))
    while not house.socket.closed:
        house.hear(frame(PING, 0, 0, bytes(8)) * 8, frame(DATA, 0, 1, b"x"))
        house.connection.tick(house.loop.time())
        assert house.socket.largest < 4 * HIGH
    assert not house.connection._calls
    house.lose()


def test_who_takes_answers_late_but_takes_them_is_kept() -> None:
    house = House()
    house.socket.stuck = True
    for _ in range(50):
        while house.connection.writable:
            house.hear(*(frame(PING, 0, 0, bytes(8)) * 8 + said(1, b"") if house.calls else opened(1, "/a"),))
        house.hear(frame(PING, 0, 0, bytes(8)) * 1_000)
        house.socket.take()
    assert not house.socket.closed
    house.lose()


def test_a_window_for_one_call_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand stalled calls must not make every window a thousand times as dear."""
    house = House()
    house.hear(window_update(0, 2**30), given_settings((4, 0)))
    streams = range(1, 2_001, 2)
    house.hear(*(opened(stream, "/a") + said(stream, b"hello") for stream in streams))
    assert len(house.connection.blocked) == 1_000
    pushed: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(Call, "flush", lambda call: pushed.append(call.id))
        house.hear(window_update(777, 1))
    assert pushed == [777]
    house.lose()


STREAM_IDS = st.sampled_from([1] * 12 + [3] * 8 + [5, 5, 7, 9] + [0, 2, 2**31 - 1])
CREDITS = st.sampled_from([1, 5, 100, 1_000, 16_384, 65_535, 2**20, 2**29, 0, 2**31 - 1, 2**31])
VALID = st.one_of(
    st.builds(
        lambda stream, flags, more: frame(HEADERS, END_HEADERS | flags, stream, block(opening("/a.B/C", **more))),
        st.sampled_from([1, 3, 5, 7, 9, 11]),
        st.sampled_from([0, 0, END_STREAM]),
        st.sampled_from([{}, {}, {"grpc_timeout": "1S"}, {"verb": "GET"}, {"grpc_encoding": "gzip"}]),
    ),
    st.builds(said, STREAM_IDS, st.binary(max_size=40) | st.just(bytes(16_000)), st.sampled_from([0, 0, END_STREAM])),
    st.builds(lambda stream, part: frame(DATA, 0, stream, part), STREAM_IDS, st.binary(max_size=20)),
    st.builds(
        lambda stream, text: frame(DATA, 0, stream, message(text, compressed=True)), STREAM_IDS, st.binary(max_size=30)
    ),
    st.builds(window_update, STREAM_IDS, CREDITS),
    st.builds(reset, STREAM_IDS),
    st.builds(lambda name, value: given_settings((name, value)), st.sampled_from([1, 3, 4, 4, 4, 5, 6, 9]), CREDITS),
    st.sampled_from(
        [
            frame(SETTINGS, ACK),
            frame(PING, 0, 0, bytes(8)),
            frame(PING, ACK, 0, bytes(8)),
            frame(PRIORITY, 0, 1, bytes(5)),
            frame(HEADERS, 0, 13, block(opening("/a"))[:20]) + frame(CONTINUATION, END_HEADERS, 13),
            frame(RST_STREAM, 0, 1, bytes(4)),
        ]
    ),
    st.just(frame(GOAWAY, 0, 0, bytes(8))),
)
RANDOM = st.builds(
    lambda kind, flags, stream, payload: frame(kind, flags, stream, payload),
    st.integers(0, 11),
    st.integers(0, 255),
    STREAM_IDS,
    st.binary(max_size=40),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(VALID))
    for _ in range(draw(st.integers(1, 3))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw)


def check(house: House) -> None:
    """What holds between any two frames."""
    connection = house.connection
    for call in connection.blocked:
        assert connection._calls.get(call.id) is call
        assert call._out
    for id_, call in connection._calls.items():
        assert call.id == id_
        assert call._unspent >= 0
        assert call._unspent + call._unread <= 65_535 + 2**20
        assert not (call._out and call not in connection.blocked)
    assert 0 <= connection.window < 2**31
    assert 0 < connection._unspent <= 2**20


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(VALID, VALID, VALID, mutated(), RANDOM), max_size=40), st.booleans(), st.integers(0, 2**32))
@example([window_update(0, 2**31 - 1)], False, 0)
def test_no_sequence_of_frames_brings_a_connection_out_of_order(frames: list[bytes], whole: bool, cut: int) -> None:
    house = House()
    spoken = b"".join(frames)
    pieces = frames if whole else [spoken[: cut % (len(spoken) + 1)], spoken[cut % (len(spoken) + 1) :]]
    for piece in pieces:
        house.hear(piece)
        check(house)
        if house.socket.closed:
            assert not house.connection._calls
            break
    house.lose()
    assert not house.known
    assert not house.connection._calls
    assert not house.connection.blocked
    assert all(call.over for call in house.calls)
    assert not [call for call in house.calls if call._expiry is not None and not call._expiry.cancelled()]


@settings(max_examples=100, deadline=None)
@given(st.lists(VALID, max_size=25), st.lists(st.integers(1, 200), min_size=1))
def test_what_we_say_does_not_depend_on_how_it_came(frames: list[bytes], sizes: list[int]) -> None:
    whole, pieces = House(), House()
    spoken = b"".join(frames)
    whole.hear(spoken)
    at = 0
    for number in range(len(spoken) + 1):
        size = sizes[number % len(sizes)]
        pieces.hear(spoken[at : at + size])
        at += size
        if at >= len(spoken):
            break
    assert whole.socket.said == pieces.socket.said
    assert whole.socket.closed == pieces.socket.closed
    whole.lose()
    pieces.lose()
