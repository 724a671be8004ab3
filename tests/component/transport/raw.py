"""A peer that writes what no library would: frames by hand over a plain socket, and what came back."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self

from hpack import Decoder, Encoder

TIMEOUT = 10.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20

Fields = list[tuple[str, str]]


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def number(self) -> int:
        """The payload of RST_STREAM and WINDOW_UPDATE."""
        return int.from_bytes(self.payload, "big")


class Farewell(NamedTuple):
    """A GOAWAY after which the connection ended."""

    last: int
    fault: int
    reason: str


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *value) for value in values))


def window_update(stream: int, credit: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", credit))


def reset(stream: int, fault: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", fault))


def opening(path: str, **more: str) -> Fields:
    """The fields of a gRPC call; ``more`` replaces or adds, with ``_`` for ``-``."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "test",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    fields |= {(":method" if name == "verb" else name.replace("_", "-")): value for name, value in more.items()}
    return list(fields.items())


def block(fields: Iterable[tuple[str, str]]) -> bytes:
    """A header block that needs no table: it may be sent at any time."""
    return Encoder().encode([(name, value, True) for name, value in fields])


def opened(stream: int, path: str, flags: int = END_HEADERS, **more: str) -> bytes:
    return frame(HEADERS, flags, stream, block(opening(path, **more)))


def message(payload: bytes, *, compressed: bool = False) -> bytes:
    return struct.pack(">BI", compressed, len(payload)) + payload


def said(stream: int, payload: bytes, flags: int = 0) -> bytes:
    """A whole message in one DATA frame."""
    return frame(DATA, flags, stream, message(payload))


class Raw:
    """``async with Raw(port) as raw: …``; greets with the preface and settings unless told not to."""

    def __init__(self, port: int, *, greet: bool = True) -> None:
        self._port = port
        self._greet = greet
        self._decoder = Decoder()

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        if self._greet:
            self.send(PREFACE, settings())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def frame(self) -> Frame:
        """The next frame. Raises IncompleteReadError at the end of the connection."""
        async with asyncio.timeout(TIMEOUT):
            head = await self.reader.readexactly(9)
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            return Frame(kind, flags, stream, await self.reader.readexactly(int.from_bytes(head[:3], "big")))

    async def next(self, kind: int, stream: int | None = None) -> Frame:
        """The next frame of a kind (and stream), whatever comes before."""
        while True:
            frame = await self.frame()
            if frame.kind == kind and stream in (None, frame.stream):
                return frame

    def fields(self, frame: Frame) -> dict[str, str]:
        return {str(name): str(value) for name, value in self._decoder.decode(frame.payload)}

    async def headers(self, stream: int) -> dict[str, str]:
        return self.fields(await self.next(HEADERS, stream))

    async def answer(self, stream: int) -> tuple[list[bytes], dict[str, str]]:
        """What is still to come of a stream: its messages and its trailers. No other stream's headers come meanwhile."""
        data, fields = bytearray(), {}
        while "grpc-status" not in fields:
            frame = await self.frame()
            if frame.kind == HEADERS:
                assert frame.stream == stream
                fields = self.fields(frame)
            elif frame.kind == DATA and frame.stream == stream:
                data += frame.payload
        messages = []
        while data:
            size = int.from_bytes(data[1:5], "big")
            messages.append(bytes(data[5 : 5 + size]))
            del data[: 5 + size]
        return messages, fields

    async def answers_pings(self) -> None:
        """The connection lives: it answers."""
        self.send(frame(PING, 0, 0, b"are you?"))
        while (await self.next(PING)) != (PING, ACK, 0, b"are you?"):
            pass

    async def farewell(self) -> Farewell:
        """Read up to GOAWAY and the end of the connection."""
        away = await self.next(GOAWAY)
        async with asyncio.timeout(TIMEOUT):
            await self.ended()
        last, fault = struct.unpack(">II", away.payload[:8])
        return Farewell(last, fault, away.payload[8:].decode())

    async def ended(self) -> bytes:
        """Read to the end of the connection, be it a clean one or a reset, and close our side of it; what came."""
        rest = bytearray()
        async with asyncio.timeout(TIMEOUT):
            try:
                while data := await self.reader.read(65_536):
                    rest += data
            except ConnectionResetError:
                return bytes(rest)
        self.writer.close()
        return bytes(rest)
