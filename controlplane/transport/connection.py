"""One socket: frames in and out, flow control, and the calls that share it (RFC 9113).

The hot path, a small DATA frame either way, is kept short; everything else is kept plain. A peer that breaks the
protocol, or wears us down with frames that carry nothing, gets a GOAWAY that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Callable
from typing import ClassVar, Protocol, cast

from controlplane.transport import headers
from controlplane.transport.blocks import MAX_HEADERS, Blocks, Opening
from controlplane.transport.call import Call
from controlplane.transport.frames import (
    ACK,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEAD_SIZE,
    MAX_FRAME,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    PRIORITISED,
    STREAM_BITS,
    ConnectionFault,
    Fault,
    Kind,
    Setting,
    frame,
    go_away,
    reset,
    settings,
    unpadded,
    window_update,
)

log = logging.getLogger(__name__)

MAX_CALLS = 1_000
_WINDOW = 1024 * 1024
_PATIENCE = 4_000  # frames a second that carry no message: more than it takes to open all MAX_CALLS at once …
_RELIEF = 8  # … beside those that a message needs: headers, windows, pings, the end of its stream
_LINGER = 5.0
KEEPALIVE_TIME = 10.0
KEEPALIVE_TIMEOUT = 5.0

_GREETING = settings({Setting.MAX_CONCURRENT_STREAMS: MAX_CALLS, Setting.MAX_HEADER_LIST_SIZE: MAX_HEADERS})
_GREETING += window_update(0, _WINDOW - DEFAULT_WINDOW)
_HTTP1 = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    b"This port speaks gRPC (HTTP/2). The HTTP API has a port of its own.\n"
)
_HTTP1_VERBS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ")

_DATA, _CONTINUATION = int(Kind.DATA), int(Kind.CONTINUATION)  # to look an enum's member up takes longer than the test


class Host(Protocol):
    """Who accepts connections and serves their calls."""

    def opened(self, connection: Connection) -> None:
        """A client connected."""
        ...

    def closed(self, connection: Connection) -> None:
        """… and is gone."""
        ...

    def accept(self, call: Call) -> None:
        """Serve a call."""
        ...

    def ended(self, call: Call) -> None:
        """It needs to be served no longer."""
        ...


class Connection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_answers",
        "_blocks",
        "_calls",
        "_closing_since",
        "_greeted",
        "_heard",
        "_host",
        "_initial_window",
        "_last",
        "_leaving",
        "_patience",
        "_pinged",
        "_rest",
        "_transport",
        "_unspent",
        "blocked",
        "loop",
        "max_frame",
        "peer",
        "send",
        "window",
        "writable",
    )

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self.loop = loop
        self.peer = "unknown"
        self.window = DEFAULT_WINDOW  # what we may still send on all streams together
        self.max_frame = MAX_FRAME
        self.writable = True
        self.blocked: dict[Call, None] = {}  # calls with something to send, in the order in which they came
        self._calls: dict[int, Call] = {}
        self._initial_window = DEFAULT_WINDOW
        self._unspent = _WINDOW
        self._rest = b""
        self._answers: list[bytes] = []
        self._greeted = False
        self._last = 0
        self._leaving = False
        self._blocks = Blocks()
        self._patience = _PATIENCE
        self._heard = loop.time()
        self._pinged: float | None = None
        self._closing_since: float | None = None

    # -- asyncio's side ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember who it is; nothing is said before the client's preface came."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self.send: Callable[[bytes], None] = self._transport.write
        self.peer = _peer(transport)
        self._host.opened(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._close()

    def data_received(self, data: bytes) -> None:
        """Take frames apart."""
        if self._closing_since is not None:
            return
        if self._greeted:  # who only drips a greeting is as good as silent
            self._heard, self._pinged = self.loop.time(), None
        if self._rest:
            data = self._rest + data
        self.send = self._answers.append
        try:
            self._rest = self._take(data)
        except ConnectionFault as fault:
            self._fail(fault)
        finally:
            self._answer()

    def _take(self, data: bytes) -> bytes:
        """Handle whole frames; what is left."""
        at, end = 0, len(data)
        if not self._greeted:
            if not self._greet(data):
                return b"" if self._closing_since is not None else data
            at = len(PREFACE)
        while end - at >= HEAD_SIZE and self._closing_since is None:
            high, low, kind, flags, stream = HEAD.unpack_from(data, at)
            start = at + HEAD_SIZE
            at = start + (high << 8 | low)
            if at - start > MAX_FRAME:
                raise ConnectionFault(Fault.FRAME_SIZE_ERROR, "a frame of more than 16,384 bytes")
            if at > end:
                at = start - HEAD_SIZE
                break
            if kind == _DATA and not self._blocks.stream:
                self._data(flags, stream & STREAM_BITS, data[start:at])
            else:
                self._other(kind, flags, stream & STREAM_BITS, data[start:at])
        return data[at:]

    def _answer(self) -> None:
        """Send what was said while frames were taken, in one write, and say again at once what is to be sent."""
        self.send = self._transport.write if self._closing_since is None else _unsaid
        if self._answers:
            self._transport.write(b"".join(self._answers))
            self._answers.clear()

    def pause_writing(self) -> None:
        """The socket is full."""
        self.writable = False

    def resume_writing(self) -> None:
        """… and takes more."""
        self.writable = True
        self._patience = _PATIENCE
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._end_calls()
        self._host.closed(self)

    # -- the server's side ------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Once a second: ping who is silent, drop who does not answer, does not greet or does not go."""
        if self.writable:  # who takes no answers wears patience out for good: they would pile up
            self._patience = _PATIENCE
        if self._closing_since is not None:
            if now - self._closing_since > _LINGER:
                self._transport.abort()
        elif self._pinged is not None:
            if now - self._pinged > KEEPALIVE_TIMEOUT:
                log.info("%s does not answer pings: dropped", self.peer)
                self._transport.abort()
        elif now - self._heard > KEEPALIVE_TIME:
            if not self._greeted:
                self._close()
            else:
                self.send(frame(Kind.PING, 0, 0, bytes(8)))
                self._pinged = now

    def forgive(self, now: float) -> None:
        """This process stood still: nobody is called silent for that."""
        self._heard = now
        if self._pinged is not None:
            self._pinged = now

    def leave(self) -> None:
        """Take no more calls; those that run go on. Close when there is none."""
        if self._leaving or self._closing_since is not None:
            return
        self._leaving = True
        if self._greeted:
            self.send(go_away(self._last, Fault.NO_ERROR))
        if not self._calls:
            self._close()

    def abort(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    # -- the calls' side --------------------------------------------------------------------------------------------

    def ended(self, call: Call) -> None:
        """Nobody reads or writes a call any more; its last words may still wait for the client."""
        self._host.ended(call)

    def forget(self, call: Call) -> None:
        """A call is over, and all of it was said."""
        self._calls.pop(call.id, None)
        self.blocked.pop(call, None)
        if self._leaving and not self._calls:
            self._close()

    # -- frames -----------------------------------------------------------------------------------------------------

    def _greet(self, data: bytes) -> bool:
        """Whether the client's preface is there."""
        if data.startswith(PREFACE):
            self._greeted = True
            self.send(_GREETING)
            return True
        if PREFACE.startswith(data):
            return False
        if data.startswith(_HTTP1_VERBS):
            self.send(_HTTP1)
        log.debug("%s does not speak HTTP/2", self.peer)
        self._close()
        return False

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        size = len(payload)
        self._unspent -= size
        if self._unspent < 0:
            raise ConnectionFault(Fault.FLOW_CONTROL_ERROR, "more than the connection's window")
        if self._unspent < _WINDOW // 2:
            self.send(window_update(0, _WINDOW - self._unspent))
            self._unspent = _WINDOW
        if flags & PADDED:
            payload = unpadded(flags, payload)
        if not payload:
            self._bother()
        elif self._patience != _PATIENCE and self.writable:
            self._patience = min(self._patience + _RELIEF, _PATIENCE)
        call = self._calls.get(stream)
        if call is not None:
            call.received(payload, size, bool(flags & END_STREAM))
        else:
            self._check_opened(stream)  # one that is over: what was on its way counts for the connection alone

    def _other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._blocks.stream and (kind != _CONTINUATION or stream != self._blocks.stream):
            raise ConnectionFault(Fault.PROTOCOL_ERROR, "a header block was not continued")
        self._bother()
        handle = self._HANDLERS.get(kind)
        if handle is not None:
            handle(self, flags, stream, payload)
        else:  # PRIORITY is deprecated, and what we do not know is to be ignored
            log.debug("%s sent a frame of type %d", self.peer, kind)

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream % 2:
            raise ConnectionFault(Fault.PROTOCOL_ERROR, f"a client does not open stream {stream}")
        fragment = unpadded(flags, payload)
        if flags & PRIORITISED:
            if len(fragment) < 5:
                raise ConnectionFault(Fault.FRAME_SIZE_ERROR, "a priority cut short")
            fragment = fragment[5:]
        self._blocks.begin(stream, bool(flags & END_STREAM))
        self._fragment(flags, fragment)

    def _continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if not self._blocks.stream:
            raise ConnectionFault(Fault.PROTOCOL_ERROR, "nothing to continue")
        self._fragment(flags, payload)

    def _fragment(self, flags: int, fragment: bytes) -> None:
        block = self._blocks.add(fragment, bool(flags & END_HEADERS))
        if block is not None:
            self._open(*block)

    def _reset(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_size(payload, 4)
        self._check_opened(stream)
        if (call := self._calls.get(stream)) is not None:
            self.forget(call)
            call.lost()

    def _ping(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_size(payload, 8)
        if stream:
            raise ConnectionFault(Fault.PROTOCOL_ERROR, "a ping on a stream")
        if not flags & ACK:
            self.send(frame(Kind.PING, ACK, 0, payload))

    def _go_away(self, flags: int, stream: int, payload: bytes) -> None:
        self.leave()

    def _promise(self, flags: int, stream: int, payload: bytes) -> None:
        raise ConnectionFault(Fault.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _open(self, stream: int, opening: Opening, ended: bool) -> None:
        if (call := self._calls.get(stream)) is not None:
            if not ended:
                raise ConnectionFault(Fault.PROTOCOL_ERROR, "headers in the middle of a call")
            call.received(b"", 0, ended=True)
            return
        if stream <= self._last:
            return  # the last headers of a call that is over
        self._last = stream
        if self._leaving or len(self._calls) >= MAX_CALLS:
            self.send(reset(stream, Fault.REFUSED_STREAM))
            return
        try:
            request = opening()
        except headers.BadRequest as error:
            log.debug("%s: %s", self.peer, error)
            answer = frame(Kind.HEADERS, END_STREAM | END_HEADERS, stream, headers.plain_answer(error.status))
            self.send(answer + reset(stream, Fault.NO_ERROR))
            return
        call = self._calls[stream] = Call(self, stream, self._initial_window, request)
        if ended:
            call.received(b"", 0, ended=True)
        self._host.accept(call)

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(Fault.PROTOCOL_ERROR, "settings of a stream")
        if flags & ACK:
            self._check_size(payload, 0)
            return
        if len(payload) % 6:
            raise ConnectionFault(Fault.FRAME_SIZE_ERROR, "settings that are none")
        for name, value in struct.iter_unpack(">HI", payload):
            if name == Setting.INITIAL_WINDOW_SIZE:
                grown, self._initial_window = value - self._initial_window, value
                if value > MAX_WINDOW or not self._widen_all(grown):
                    raise ConnectionFault(Fault.FLOW_CONTROL_ERROR, "a window that is too large")
            elif name == Setting.MAX_FRAME_SIZE:
                if not MAX_FRAME <= value < 2**24:
                    raise ConnectionFault(Fault.PROTOCOL_ERROR, f"a frame size of {value}")
                self.max_frame = value
        self.send(frame(Kind.SETTINGS, ACK, 0))
        self._flush()

    def _window(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_size(payload, 4)
        self._widen(stream, int.from_bytes(payload, "big") & MAX_WINDOW)

    _HANDLERS: ClassVar[dict[int, Callable[[Connection, int, int, bytes], None]]] = {
        Kind.HEADERS: _headers,
        Kind.CONTINUATION: _continuation,
        Kind.RST_STREAM: _reset,
        Kind.SETTINGS: _settings,
        Kind.PING: _ping,
        Kind.GOAWAY: _go_away,
        Kind.WINDOW_UPDATE: _window,
        Kind.PUSH_PROMISE: _promise,
    }

    def _widen_all(self, credit: int) -> bool:
        fits = [call.widen(credit) for call in self._calls.values()]
        return all(fits)

    def _widen(self, stream: int, credit: int) -> None:
        if not credit:
            raise ConnectionFault(Fault.PROTOCOL_ERROR, "a window that is opened by nothing")
        if not stream:
            if self.window + credit > MAX_WINDOW:
                raise ConnectionFault(Fault.FLOW_CONTROL_ERROR, "a window that is too large")
            self.window += credit
            self._flush()
        elif (call := self._calls.get(stream)) is not None:
            if not call.widen(credit):
                raise ConnectionFault(Fault.FLOW_CONTROL_ERROR, "a window that is too large")
            if call in self.blocked:
                call.flush()
        else:
            self._check_opened(stream)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        for call in tuple(self.blocked):
            if self.window <= 0 or not self.writable:
                break
            if call in self.blocked:  # what one call's flush set off may have ended another
                call.flush()

    def _bother(self) -> None:
        """A frame that carries no message: some are needed, floods of them are an attack."""
        self._patience -= 1
        if self._patience < 0:
            raise ConnectionFault(Fault.ENHANCE_YOUR_CALM, f"more than {_PATIENCE} frames a second without a message")

    def _check_opened(self, stream: int) -> None:
        if not stream % 2 or stream > self._last:
            raise ConnectionFault(Fault.PROTOCOL_ERROR, f"stream {stream} was never opened")

    @staticmethod
    def _check_size(payload: bytes, size: int) -> None:
        if len(payload) != size:
            raise ConnectionFault(Fault.FRAME_SIZE_ERROR, f"a frame of {len(payload)} bytes where {size} are due")

    def _fail(self, fault: ConnectionFault) -> None:
        log.info("%s broke the protocol: %s", self.peer, fault)
        self.send(go_away(self._last, fault.fault, str(fault)))
        self._end_calls()
        self._close()

    def _end_calls(self) -> None:
        calls = tuple(self._calls.values())
        self._calls.clear()
        self.blocked.clear()
        for call in calls:
            call.lost()

    def _close(self) -> None:
        """Say no more, and let the peer close: what it sent meanwhile would turn our close into a reset, which destroys
        the last of what we said before the peer has read it.
        """
        self._closing_since = self.loop.time()
        self._answer()
        if self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # the peer is gone already
                self._transport.write_eof()
        else:
            self._transport.close()  # TLS has a farewell of its own


def _unsaid(data: bytes) -> None:
    """Where goes what is said after the end."""


def _peer(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "unix:"
    host, port = name[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
