"""HTTP/2 frames as bytes (RFC 9113, section 6)."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = struct.Struct(">HBBBI")  # length as 16 + 8 bits, type, flags, stream
HEAD_SIZE = 9
MAX_FRAME = 16_384  # the largest payload we take: the protocol's smallest limit, which nobody may exceed unasked
DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
STREAM_BITS = 2**31 - 1

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITISED = 0x20


class Kind(IntEnum):
    """Frame types."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Fault(IntEnum):
    """Error codes (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """Settings (RFC 9113, section 6.5.2)."""

    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ConnectionFault(Exception):
    """The peer broke the protocol: the connection ends with GOAWAY."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


def frame(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame. ``payload`` at most the peer's MAX_FRAME_SIZE."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def window_update(stream: int, credit: int) -> bytes:
    """More room for the peer: on one stream, or on the connection (0)."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, credit.to_bytes(4, "big"))


def reset(stream: int, fault: Fault) -> bytes:
    """The end of one stream."""
    return frame(Kind.RST_STREAM, 0, stream, fault.to_bytes(4, "big"))


def go_away(last_stream: int, fault: Fault, reason: str = "") -> bytes:
    """The end of the connection, as far as new streams are concerned."""
    return frame(Kind.GOAWAY, 0, 0, struct.pack(">II", last_stream, fault) + reason.encode()[:128])


def settings(values: dict[Setting, int]) -> bytes:
    """Our side of the settings."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(struct.pack(">HI", name, value) for name, value in values.items()))


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without its padding and, of HEADERS, without the deprecated priority."""
    if flags & PADDED:
        if not payload or payload[0] >= len(payload):
            raise ConnectionFault(Fault.PROTOCOL_ERROR, "more padding than frame")
        return payload[1 : len(payload) - payload[0]]
    return payload
