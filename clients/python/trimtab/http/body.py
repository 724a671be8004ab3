"""The bodies of responses, which tell when a call is over: not with its status, but when its body was closed or broke."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from trimtab.core.calling.call import Call
from trimtab.http.meaning import name_endpoint


def nothing(call: Call) -> None:
    """What is to be given back where a library does so by itself."""


class Reading:
    """A call whose answer is being read: it ends exactly once, when its body is closed or breaks, or nobody holds it any more.

    ``release`` is called with the call then, to give back what it held.
    """

    keeps = False

    def __init__(self, call: Call, release: Callable[[Call], None] = nothing) -> None:
        self._call = call
        self._ends = [release]  # taken out by whoever ends the call: popping is done by one only

    def __del__(self) -> None:
        # Dropped unread: its place in a bulkhead must not be lost with it.
        if self._ends:
            self.end()

    def read(self, chunk: bytes) -> None:
        """A part of the body."""

    def finished(self) -> None:
        """The body came to its end."""

    def broke(self, error: Exception) -> None:
        """The answer broke while it was read: the call failed, and its error says where."""
        name_endpoint(error, self._call)
        self.end(broke=True)

    def end(self, *, broke: bool = False) -> None:
        """Nobody reads any more. Saying it twice is saying it once."""
        try:
            release = self._ends.pop()
        except IndexError:
            return
        call = self._call
        release(call)
        pipeline = call.pipeline
        pipeline.over(call, pipeline.now(), broke=broke)


class Keeping(Reading):
    """One whose body is kept: ``keep`` is given all of it at its end, unless it is larger than ``largest`` bytes."""

    keeps = True

    def __init__(
        self, call: Call, release: Callable[[Call], None], keep: Callable[[bytes], None], largest: int
    ) -> None:
        super().__init__(call, release)
        self._keep: Callable[[bytes], None] | None = keep
        self._largest = largest
        self._chunks: list[bytes] = []
        self._size = 0

    def read(self, chunk: bytes) -> None:
        """A part of the body."""
        if self._keep is not None:
            self._size += len(chunk)
            if self._size > self._largest:
                self._keep = None
                self._chunks.clear()
            else:
                self._chunks.append(chunk)

    def finished(self) -> None:
        """The body came to its end."""
        if self._keep is not None:
            self._keep(b"".join(self._chunks))
            self._keep = None


class Body:
    """A response body that ends its call when it is closed. An answer can break after its status 200 was seen."""

    def __init__(self, body: Any, reading: Reading) -> None:
        self._body = body
        self._reading = reading

    def __iter__(self) -> Iterator[bytes]:
        reading = self._reading
        keeps = reading.keeps
        try:
            for chunk in self._body:
                if keeps:
                    reading.read(chunk)
                yield chunk
        except Exception as error:
            reading.broke(error)
            raise
        if keeps:
            reading.finished()

    def close(self) -> None:
        """Close the library's stream and end the call."""
        try:
            self._body.close()
        finally:
            self._reading.end()


class AsyncBody:
    """The asynchronous twin of Body."""

    def __init__(self, body: Any, reading: Reading) -> None:
        self._body = body
        self._reading = reading

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reading = self._reading
        keeps = reading.keeps
        try:
            async for chunk in self._body:
                if keeps:
                    reading.read(chunk)
                yield chunk
        except Exception as error:
            reading.broke(error)
            raise
        if keeps:
            reading.finished()

    async def aclose(self) -> None:
        """Close the library's stream and end the call."""
        try:
            await self._body.aclose()
        finally:
            self._reading.end()
