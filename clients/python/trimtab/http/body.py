"""The bodies of responses, which tell when a call is over: not with its status, but when its body was closed or broke."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from trimtab.core.calling.call import Call
from trimtab.http.meaning import name_endpoint


class Reading:
    """A call whose answer is being read: it ends when its body is closed or breaks, or nobody holds it any more."""

    keeps = False
    _over = False
    _keep: Callable[[bytes], None] | None = None

    def __init__(self, call: Call) -> None:
        self._call = call

    def __del__(self) -> None:
        # Dropped unread: its place in a bulkhead must not be lost with it.
        if not self._over:
            self.end()

    def keep(self, keep: Callable[[bytes], None], largest: int) -> None:
        """Have ``keep`` called with all of the body at its end, unless it is larger than ``largest`` bytes."""
        self.keeps, self._keep, self._largest = True, keep, largest
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

    def broke(self, error: Exception) -> None:
        """The answer broke while it was read: the call failed, and its error says where."""
        name_endpoint(error, self._call)
        self.end(broke=True)

    def end(self, *, broke: bool = False) -> None:
        """Nobody reads any more. Saying it twice is saying it once."""
        if self._over:
            return
        self._over = True
        call = self._call
        pipeline = call.pipeline
        pipeline.over(call, pipeline.now(), broke=broke)


class Body(Reading):
    """A response body that ends its call when it is closed. An answer can break after its status 200 was seen."""

    def __init__(self, body: Any, call: Call) -> None:
        self._body = body
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        keeps = self.keeps
        try:
            for chunk in self._body:
                if keeps:
                    self.read(chunk)
                yield chunk
        except Exception as error:
            self.broke(error)
            raise
        if keeps:
            self.finished()

    def close(self) -> None:
        """Close the library's stream and end the call."""
        try:
            self._body.close()
        finally:
            self.end()


class AsyncBody(Reading):
    """The asynchronous twin of Body."""

    def __init__(self, body: Any, call: Call) -> None:
        self._body = body
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        keeps = self.keeps
        try:
            async for chunk in self._body:
                if keeps:
                    self.read(chunk)
                yield chunk
        except Exception as error:
            self.broke(error)
            raise
        if keeps:
            self.finished()

    async def aclose(self) -> None:
        """Close the library's stream and end the call."""
        try:
            await self._body.aclose()
        finally:
            self.end()
