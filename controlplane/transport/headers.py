"""gRPC's words in HTTP/2 header blocks (gRPC over HTTP/2, PROTOCOL-HTTP2.md; HPACK, RFC 7541).

What we send is literal and never indexed: no state, no table per connection, and the same bytes for everybody.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

import grpc

Metadata = tuple[tuple[str, str | bytes], ...]

_CONTENT_TYPE = re.compile(rb"application/grpc(?:[+;]|$)")  # not grpc-web, which is another protocol
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_BINARY = "-bin"
# Printable ASCII goes as it is; what is not, and "%", is escaped.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_STATUS_200 = b"\x88"  # :status 200 in HPACK's static table


class BadRequest(Exception):
    """Headers that open no gRPC call; ``status`` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """What a call opens with. ``timeout`` in seconds."""

    method: str
    timeout: float | None
    encoding: str
    metadata: Metadata


def request(fields: Iterable[tuple[bytes, bytes]]) -> Request:
    """Read a call's opening. Raises BadRequest."""
    path, verb, content_type, encoding = b"", b"", b"", "identity"
    timeout: float | None = None
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        match name:
            case b":path":
                path = value
            case b":method":
                verb = value
            case b"content-type":
                content_type = value
            case b"grpc-encoding":
                encoding = value.decode("latin-1")
            case b"grpc-timeout":
                timeout = _seconds(value)
            case _ if not name.startswith((b":", b"grpc-")) and name != b"te":
                metadata += _entries(name.decode("latin-1"), value)
    if verb != b"POST":
        raise BadRequest(405, "gRPC calls are POST requests")
    if _CONTENT_TYPE.match(content_type) is None:
        raise BadRequest(415, "this port speaks gRPC: content-type application/grpc is due")
    return Request(path.decode("latin-1"), timeout, encoding, tuple(metadata))


def response(encodings: str) -> bytes:
    """The header block that opens every answer."""
    return (
        _STATUS_200 + _field("content-type", b"application/grpc") + _field("grpc-accept-encoding", encodings.encode())
    )


def trailers(status: grpc.StatusCode, details: str, metadata: Sequence[tuple[str, str | bytes]]) -> bytes:
    """The header block that ends a call."""
    block = [_field("grpc-status", b"%d" % status.value[0])]
    if details:
        block.append(_field("grpc-message", quote_from_bytes(details.encode(errors="replace"), safe=_PLAIN).encode()))
    block += [_field(name, _encoded(name, value)) for name, value in metadata]
    return b"".join(block)


def plain_answer(status: int) -> bytes:
    """A header block for those who speak HTTP/2 but not gRPC."""
    return _field(":status", b"%d" % status)


def _seconds(value: bytes) -> float:
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise BadRequest(400, "grpc-timeout cannot be read")
    return int(found[1]) * _UNITS[found[2]]


def _entries(name: str, value: bytes) -> list[tuple[str, str | bytes]]:
    if not name.endswith(_BINARY):
        return [(name, value.decode("latin-1"))]
    try:  # several values of one name may have been joined on their way
        return [(name, base64.b64decode(one + b"=" * (-len(one) % 4), validate=True)) for one in value.split(b",")]
    except binascii.Error:
        raise BadRequest(400, f"{name} is not base64") from None


def _encoded(name: str, value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return base64.b64encode(raw).rstrip(b"=") if name.endswith(_BINARY) else raw


def _field(name: str, value: bytes) -> bytes:
    """A literal header field without indexing (RFC 7541, 6.2.2), not Huffman-coded."""
    return b"".join((b"\x00", _length(len(name)), name.encode("ascii"), _length(len(value)), value))


def _length(value: int) -> bytes:
    """An integer with a prefix of seven bits (RFC 7541, 5.1)."""
    if value < 127:
        return bytes((value,))
    out = bytearray((127,))
    value -= 127
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
