"""The bodies of responses, which tell when a call is over: not with its status, but when its body was closed or broke."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from trimtab.http.exchange import PickView, Trace, name_endpoint


class Call:
    """A call in flight: it ends exactly once, when its response is closed or breaks."""

    def __init__(self, pick: PickView, release: Callable[[], None], trace: Trace, ok: bool) -> None:
        self._pick = pick
        self._release = release
        self._trace = trace
        self._ok = ok
        self._lock = threading.Lock()
        self._over = False

    def broke(self, error: Exception) -> None:
        """The answer broke while it was read: the call failed, and its error says where."""
        name_endpoint(error, self._trace)
        self._ok = False
        self.end()

    def end(self) -> None:
        """Nobody reads any more. Saying it twice is saying it once."""
        with self._lock:
            if self._over:
                return
            self._over = True
        self._release()
        self._pick.done(self._ok)


class Body:
    """A response body that ends its call when it is closed. An answer can break after its status 200 was seen."""

    def __init__(self, body: Any, call: Call) -> None:
        self._body = body
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except Exception as error:
            self._call.broke(error)
            raise

    def close(self) -> None:
        """Close the library's stream and end the call."""
        try:
            self._body.close()
        finally:
            self._call.end()


class AsyncBody:
    """The asynchronous twin of Body."""

    def __init__(self, body: Any, call: Call) -> None:
        self._body = body
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._body:
                yield chunk
        except Exception as error:
            self._call.broke(error)
            raise

    async def aclose(self) -> None:
        """Close the library's stream and end the call."""
        try:
            await self._body.aclose()
        finally:
            self._call.end()
