"""One RPC: messages each way, its status, and the context that its handler sees.

The context is the part of ``grpc.aio.ServicerContext`` that is used here and by gRPC's own health and reflection
services, so handlers and generated code need not know what carries them.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from controlplane.transport import headers
from controlplane.transport.frames import (
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEAD,
    ConnectionFault,
    Fault,
    Kind,
    frame,
    reset,
    window_update,
)

if TYPE_CHECKING:
    from controlplane.transport.connection import Connection

MAX_MESSAGE = 1024 * 1024
ENCODINGS = "identity,deflate,gzip"
_WINDOW = DEFAULT_WINDOW
_DATA = int(Kind.DATA)
_MESSAGE = struct.Struct(HEAD.format + "BI")  # the head of a frame with one message, and the prefix of that
_PREFIX = 5  # of a message: a flag and four bytes of length
_SPLIT = struct.Struct(">BI").unpack_from
_MAX_TRAILERS = 8_000  # clients refuse more metadata; better a status without it than no status
_MAX_DETAILS = 600  # characters, when even these are too long: each is up to 12 bytes on the wire
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_OPENING = headers.response(ENCODINGS)


class CallEnded(Exception):
    """The call is over: cancelled, out of time, or its connection is lost."""


class Aborted(Exception):
    """A handler ends its call with a status."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details
        self.metadata = metadata


class _Compressed(bytes):
    """A message that stays as small as it came until somebody takes it."""

    __slots__ = ()


class Call:
    """One RPC on one stream of a connection. Not thread-safe: it belongs to its loop."""

    __slots__ = (
        "_code",
        "_connection",
        "_deliver",
        "_details",
        "_drained",
        "_ended",
        "_ending",
        "_expiry",
        "_gone",
        "_held",
        "_inbox",
        "_loop",
        "_opened",
        "_out",
        "_partial",
        "_reader",
        "_trailing",
        "_unread",
        "_unspent",
        "_window",
        "_writer",
        "deserialize",
        "id",
        "over",
        "request",
        "serialize",
        "task",
    )

    def __init__(self, connection: Connection, id_: int, window: int, request: headers.Request) -> None:
        self._connection = connection
        self._loop = connection.loop
        self.id = id_
        self.request = request
        self.task: asyncio.Task[None] | None = None
        self.serialize: Callable[[Any], bytes] | None = None
        self.deserialize: Callable[[bytes], Any] | None = None
        self._inbox: deque[bytes] = deque()
        self._partial = bytearray()
        self._unspent = _WINDOW  # what the peer may still send
        self._unread = 0  # bytes in the inbox: they hold the window back
        self._ended = False  # the client has sent its last message
        self._reader: asyncio.Future[None] | None = None
        self._window = window  # what we may still send
        self._out = bytearray()  # messages that wait for a window or the socket
        self._opened = False
        self._ending: bytes | None = None
        self.over = False  # nothing can be sent any more
        self._writer: asyncio.Future[None] | None = None
        self._deliver: Callable[[bytes | None], None] | None = None
        self._held = False
        self._drained: Callable[[], None] | None = None
        self._gone: Callable[[], None] | None = None
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: Sequence[tuple[str, str | bytes]] = ()
        self._expiry: asyncio.TimerHandle | None = None
        if request.timeout is not None:
            self._expiry = self._loop.call_later(request.timeout, self._expire)

    # -- what handlers see ------------------------------------------------------------------------------------------

    async def read(self) -> Any:
        """The next message; None when the client has sent its last. One reader at a time."""
        while not self._inbox:
            if self._ended or self.over:
                return None
            self._reader = self._loop.create_future()
            await self._reader
        message = self._next()
        self._grant()
        return message if self.deserialize is None else self._decoded(message)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._messages()

    async def write(self, message: Any) -> None:
        """Send one message; returns when the socket has all of it. One writer at a time. Raises CallEnded."""
        if self.over:
            raise CallEnded(self.request.method)
        if not self.send(message if self.serialize is None else self.serialize(message)):
            self._writer = self._loop.create_future()
            await self._writer

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        """End the call with a status."""
        raise Aborted(code, details, trailing_metadata)

    def set_code(self, code: grpc.StatusCode) -> None:
        """The status with which the call ends when its handler returns."""
        self._code = code

    def set_details(self, details: str) -> None:
        """… and its message for people."""
        self._details = details

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """… and its metadata."""
        self._trailing = metadata

    def invocation_metadata(self) -> headers.Metadata:
        """What the client sent along; values of names ending in ``-bin`` are bytes."""
        return self.request.metadata

    def peer(self) -> str:
        """The client's address, as gRPC writes it: ``ipv4:127.0.0.1:50000``."""
        return self._connection.peer

    @property
    def refused(self) -> bool:
        """Whether its handler set a status other than OK."""
        return self._code not in (None, grpc.StatusCode.OK)

    # -- what handlers of thousands of calls use: no task is woken for a message -------------------------------------

    def send(self, message: bytes) -> bool:
        """Send one message at once; False when a part of it has to wait for the client. Of a call that is over: nothing."""
        if self.over:
            return True
        connection = self._connection
        if not self._opened:
            self._opened = True
            connection.send(frame(Kind.HEADERS, END_HEADERS, self.id, _OPENING))
        length = len(message)
        size = length + _PREFIX
        if (
            not self._out
            and connection.writable
            and size <= self._window
            and size <= connection.window
            and size <= connection.max_frame
        ):
            self._window -= size
            connection.window -= size
            connection.send(_MESSAGE.pack(size >> 8, size & 0xFF, _DATA, 0, self.id, 0, length) + message)
            return True
        self._out += b"\0" + length.to_bytes(4, "big") + message
        return self._push()

    def receive(
        self,
        deliver: Callable[[bytes | None], None],
        drained: Callable[[], None],
        gone: Callable[[], None] | None = None,
    ) -> None:
        """From now on ``deliver`` gets every message as it comes, and None after the last; ``drained`` is called when
        the socket has taken what ``send`` could not; ``gone`` when a call without a task ended, but not by its handler:
        its client is lost, or late, or sent what cannot be taken. None of them may raise.
        """
        self._deliver, self._drained, self._gone = deliver, drained, gone
        self._distribute()
        self._grant()

    def hold(self) -> None:
        """Deliver nothing until ``resume``; the window makes the client wait."""
        self._held = True

    def resume(self) -> None:
        """Deliver again."""
        if self._held:
            self._held = False
            self._distribute()
            self._grant()

    # -- what the server does ---------------------------------------------------------------------------------------

    def complete(self) -> None:
        """The handler returned: end with what it set, OK if nothing."""
        self.finish(self._code or grpc.StatusCode.OK, self._details, self._trailing)

    def finish(
        self, code: grpc.StatusCode, details: str = "", metadata: Sequence[tuple[str, str | bytes]] = ()
    ) -> None:
        """End the call; what was written goes first. A call that is over stays as it is."""
        if self.over:
            return
        block = headers.trailers(code, details, metadata)
        if len(block) > _MAX_TRAILERS:
            block = headers.trailers(code, details, ())
        if len(block) > _MAX_TRAILERS:
            block = headers.trailers(code, details[:_MAX_DETAILS], ())
        self._stop()
        if not self._opened:
            block = _OPENING + block
        self._ending = frame(Kind.HEADERS, END_STREAM | END_HEADERS, self.id, block)
        if not self._ended:
            self._ending += reset(self.id, Fault.NO_ERROR)  # nothing more is wanted of the client
        self.flush()

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        """End the call over its handler's head."""
        self.finish(code, details)
        self._cancel()

    # -- what the connection does -----------------------------------------------------------------------------------

    def received(self, payload: bytes, size: int, ended: bool) -> None:
        """A DATA frame, of which ``size`` bytes count for the window; ``ended``: the client's last."""
        self._unspent -= size
        if self._unspent < 0:
            raise ConnectionFault(Fault.FLOW_CONTROL_ERROR, "more than the stream's window")
        if self._ended:
            raise ConnectionFault(Fault.STREAM_CLOSED, "more after the last message")
        if self.over:
            return
        if (
            self._deliver is not None
            and not (ended or self._partial or self._inbox or self._held)
            and len(payload) >= _PREFIX
            and _SPLIT(payload) == (0, len(payload) - _PREFIX)
        ):  # one message, whole and plain, and nothing is before it: nearly all are
            self._deliver(payload[_PREFIX:])
            if self._unspent < _WINDOW // 2:
                self._grant()
            return
        if payload:
            self._take(payload)
        if ended:
            self._ended = True
            if self._partial:
                self.fail(grpc.StatusCode.INTERNAL, "the last message is not whole")
        self._wake()
        self._grant()

    def lost(self) -> None:
        """The client cancelled, or its connection is gone: nothing can be sent any more."""
        self._stop()
        self._ending = None
        self._out.clear()
        self._cancel()

    def widen(self, credit: int) -> bool:
        """The client lets us send ``credit`` bytes more (or less); False when that is more than there can be."""
        self._window += credit
        return self._window <= 2**31 - 1

    def flush(self) -> None:
        """Send what waits, and tell who waits for that."""
        if not self._push():
            return
        if self._ending is not None:
            self._connection.send(self._ending)
            self._connection.forget(self)
        elif self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
        elif self._drained is not None:
            self._drained()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _messages(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not None:
            yield message

    def _push(self) -> bool:
        """Send what waits, as far as windows and socket allow; whether that was all."""
        connection, out = self._connection, self._out
        while out and connection.writable:
            room = min(self._window, connection.window, connection.max_frame, len(out))
            if room <= 0:
                break
            connection.send(frame(Kind.DATA, 0, self.id, bytes(out[:room])))
            del out[:room]
            self._window -= room
            connection.window -= room
        if out:
            connection.blocked[self] = None
            return False
        connection.blocked.pop(self, None)
        return True

    def _take(self, payload: bytes) -> None:
        """Cut messages out of the stream of bytes."""
        data: bytes | bytearray = payload
        if self._partial:
            self._partial += payload
            data = self._partial
        at, end = 0, len(data)
        while end - at >= _PREFIX:
            start = at + _PREFIX
            length = int.from_bytes(data[at + 1 : start], "big")
            if length > MAX_MESSAGE:
                self.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, f"a message of {length} bytes: {MAX_MESSAGE} at most")
                return
            if start + length > end:
                break
            message = bytes(data[start : start + length])
            self._inbox.append(_Compressed(message) if data[at] else message)
            self._unread += len(message) + _PREFIX
            at = start + length
        if data is self._partial:
            del self._partial[:at]
        elif at < end:
            self._partial += data[at:]

    def _next(self) -> bytes:
        """Take a message out of the inbox. Raises Aborted when it cannot be decompressed."""
        message = self._inbox.popleft()
        self._unread -= len(message) + _PREFIX
        return self._decompressed(message) if type(message) is _Compressed else message

    def _decompressed(self, message: bytes) -> bytes:
        encoding = self.request.encoding
        if encoding == "identity":
            raise Aborted(grpc.StatusCode.INTERNAL, "a compressed message in a call that names no grpc-encoding", ())
        if encoding not in ("deflate", "gzip"):
            raise Aborted(grpc.StatusCode.UNIMPLEMENTED, f"grpc-encoding {encoding!r} is not among {ENCODINGS}", ())
        worker = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            plain = worker.decompress(message, MAX_MESSAGE + 1)
            if len(plain) > MAX_MESSAGE:
                details = f"a message of more than {MAX_MESSAGE} bytes once decompressed"
                raise Aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, details, ())
            if not worker.eof:
                raise zlib.error("cut short")
        except zlib.error as error:
            raise Aborted(grpc.StatusCode.INTERNAL, f"a message that cannot be decompressed: {error}", ()) from None
        return plain

    def _decoded(self, message: bytes) -> Any:
        assert self.deserialize is not None
        try:
            return self.deserialize(message)
        except Exception as error:  # whatever generated or foreign code raises
            raise Aborted(grpc.StatusCode.INTERNAL, "the request cannot be decoded", ()) from error

    def _grant(self) -> None:
        """Open the window again, in large steps, by what is no longer held."""
        credit = _WINDOW - self._unspent - self._unread
        if credit >= _WINDOW // 2 and not self._ended and not self.over:
            self._unspent += credit
            self._connection.send(window_update(self.id, credit))

    def _wake(self) -> None:
        if self._deliver is not None:
            self._distribute()
        elif self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _distribute(self) -> None:
        deliver = self._deliver
        if deliver is None:
            return
        while self._inbox and not self._held:
            try:
                message = self._next()
            except Aborted as end:
                self.fail(end.code, end.details)
                return
            deliver(message)
        if self._ended and not self._inbox and not self._held and self._deliver is not None:
            self._deliver = None  # the last of all: what it does may lead back here
            deliver(None)

    def _expire(self) -> None:
        self.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "the call's deadline passed")

    def _stop(self) -> None:
        """From here on nobody reads or writes."""
        self.over = True
        self._connection.ended(self)
        self._inbox.clear()
        if self._expiry is not None:
            self._expiry.cancel()
        self._wake()
        if self._writer is not None and not self._writer.done():
            self._writer.set_exception(CallEnded(self.request.method))

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
        elif self._gone is not None:
            self._gone()
