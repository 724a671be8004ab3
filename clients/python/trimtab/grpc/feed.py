"""The requests of a client stream, which more than one attempt may draw from.

gRPC takes up the first request before it has a connection. When the connection cannot be made, that one is all that was taken,
and nothing of it was sent: the next attempt must get it first, and then the rest.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple


class Drawn(NamedTuple):
    """What an attempt took: ``touched``, anything; ``replayable``: so little that the next one can begin from the beginning.

    ``broke``: there was no next request, but an error of whoever makes them.
    """

    touched: bool
    replayable: bool
    broke: bool = False


class _Shares:
    """Who gets which request. Times of one attempt: ``open``, ``hand`` as often as it asks, ``stop``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[Any] = []
        self._position = 0
        self._spent = False
        self.current = 0
        self.broke = False

    def open(self) -> int:
        """A further attempt begins. Returns its number."""
        with self._lock:
            self._position = 0
            return self.current

    def stop(self) -> Drawn:
        """The attempt is over: whatever is still on its way to it is kept for the next."""
        with self._lock:
            self.current += 1
            return Drawn(self._position > 0, not self._spent, self.broke)

    def kept(self, number: int) -> list[Any] | None:
        """The request that an attempt gets of those that are kept, [] when it needs a new one; None: it is over."""
        with self._lock:
            if number != self.current:
                return None
            if self._position >= len(self._kept):
                return []
            request = self._kept[self._position]
            self._advance()
            return [request]

    def fresh(self, number: int, request: Any) -> bool:
        """A new request has come for an attempt. False: too late, it is kept for the next one."""
        with self._lock:
            if number != self.current or not self._spent:
                self._kept.append(request)
            if number != self.current:
                return False
            self._advance()
            return True

    def _advance(self) -> None:
        self._position += 1
        if self._position > 1:
            self._spent = True
            if self._position >= len(self._kept):
                self._kept.clear()


class Feed:
    """The requests of a call as an iterable. Thread-safe: gRPC draws on a thread of its own for each attempt."""

    def __init__(self, requests: Iterable[Any]) -> None:
        self._requests = iter(requests)
        self._shares = _Shares()
        self._drawing = threading.Lock()

    def view(self) -> Iterator[Any]:
        """The requests for one more attempt, from their beginning."""
        return self._draw(self._shares.open())

    def stop(self) -> Drawn:
        """The attempt is over."""
        return self._shares.stop()

    def _draw(self, number: int) -> Iterator[Any]:
        shares = self._shares
        while True:
            # An attempt that is over may still be waiting for a request; the next one waits for it here.
            with self._drawing:
                found = shares.kept(number)
                if found is None:
                    return
                if found:
                    request = found[0]
                else:
                    try:
                        request = next(self._requests)
                    except StopIteration:
                        return
                    except BaseException:
                        shares.broke = True
                        raise
                    if not shares.fresh(number, request):
                        return
            yield request


class AsyncFeed:
    """The same for an asynchronous iterable."""

    def __init__(self, requests: AsyncIterable[Any]) -> None:
        self._requests = aiter(requests)
        self._shares = _Shares()
        self._drawing = asyncio.Lock()

    def view(self) -> AsyncIterator[Any]:
        """The requests for one more attempt, from their beginning."""
        return self._draw(self._shares.open())

    def stop(self) -> Drawn:
        """The attempt is over."""
        return self._shares.stop()

    async def _draw(self, number: int) -> AsyncIterator[Any]:
        shares = self._shares
        while True:
            async with self._drawing:
                found = shares.kept(number)
                if found is None:
                    return
                if found:
                    request = found[0]
                else:
                    try:
                        request = await anext(self._requests)
                    except StopAsyncIteration:
                        return
                    except BaseException:
                        shares.broke = True
                        raise
                    if not shares.fresh(number, request):
                        return
            yield request


def feed(requests: AsyncIterable[Any] | Iterable[Any] | None) -> AsyncFeed | Feed | None:
    """The feed of whatever a caller gives; None when there is nothing, and the requests are to be written."""
    if requests is None:
        return None
    return AsyncFeed(requests) if isinstance(requests, AsyncIterable) else Feed(requests)
