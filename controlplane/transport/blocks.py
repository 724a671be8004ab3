"""Header blocks: put together from their frames and decoded (RFC 9113, section 4.3; HPACK, RFC 7541)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import cast

from hpack import Decoder
from hpack.exceptions import HPACKError

from controlplane.transport import headers
from controlplane.transport.frames import ConnectionFault, Fault

MAX_HEADERS = 32 * 1024
_COMMON = 1024  # bytes of a block that may be one of many alike

Fields = list[tuple[bytes, bytes]]
Opening = Callable[[], headers.Request]


class Blocks:
    """The header blocks of one connection, one after the other."""

    __slots__ = ("_decoder", "_ended", "_first", "_parts", "stream")

    def __init__(self) -> None:
        self.stream = 0  # whose block is not whole yet
        self._parts = b""
        self._ended = False
        self._first: bytes | None = None
        self._decoder: Decoder | None = None

    def begin(self, stream: int, ended: bool) -> None:
        """A block begins on ``stream``; ``ended``: nothing comes behind it."""
        self.stream, self._parts, self._ended = stream, b"", ended

    def add(self, fragment: bytes, last: bool) -> tuple[int, Opening, bool] | None:
        """The next fragment. After the last: the stream, how to read the block as a call's opening, whether the stream ended.

        Raises ConnectionFault. Reading raises BadRequest; a block that opens no call need not be read.
        """
        self._parts += fragment
        if len(self._parts) > MAX_HEADERS:
            raise ConnectionFault(Fault.ENHANCE_YOUR_CALM, f"headers of more than {MAX_HEADERS} bytes")
        if not last:
            return None
        stream, block, self.stream, self._parts = self.stream, self._parts, 0, b""
        try:
            return stream, self._decode(block), self._ended
        except HPACKError as error:
            raise ConnectionFault(Fault.COMPRESSION_ERROR, f"headers that cannot be decoded: {error}") from None

    def _decode(self, block: bytes) -> Opening:
        """Most connections carry one call, opened by the same bytes as thousands of others: they need no decoder."""
        if self._first is None:
            self._first = block
            if len(block) <= _COMMON:
                return _common(block)
            return partial(headers.request, _fields(Decoder(MAX_HEADERS), block))
        if self._decoder is None:
            self._decoder = Decoder(MAX_HEADERS)
            self._decoder.decode(self._first)
        return partial(headers.request, _fields(self._decoder, block))


def _fields(decoder: Decoder, block: bytes) -> Fields:
    return cast("Fields", decoder.decode(block, raw=True))


@lru_cache(256)
def _common(block: bytes) -> Opening:
    return lru_cache(partial(headers.request, _fields(Decoder(MAX_HEADERS), block)))
