"""An open-loop caller: the next call is made when it is due, whether earlier ones were answered or not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple, Protocol

# Calls that may wait for their answer at the same time.
AT_ONCE = 100


class Call(NamedTuple):
    """One call, by the clock that all processes share. ``tried``: instances picked. ``error``: empty when all was well."""

    began: float
    ended: float
    tried: tuple[str, ...]
    error: str


class Caller(Protocol):
    """Something that calls until it is stopped."""

    calls: list[Call]

    def stop(self) -> None: ...


def seen(began: float, answer: Any) -> Call:
    """What became of a call: its answer, or why there is none."""
    if isinstance(answer, Exception):
        trace = getattr(answer, "trimtab", None)
        error = f"{type(answer).__name__}: {answer}"
    else:
        trace = answer.extensions["trimtab"]
        error = "" if answer.is_success else f"HTTP {answer.status_code}"
    tried = tuple(attempt.endpoint.id for attempt in trace.attempts) if trace else ()
    return Call(began, time.monotonic(), tried, error)


class ThreadCaller:
    """Calls ``url`` at ``rate`` a second through a blocking client."""

    def __init__(self, http: Any, url: str, rate: float) -> None:
        self.calls: list[Call] = []
        self._http, self._url, self._pace = http, url, 1 / rate
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"call {url}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        start = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for number in count():
                if self._stopping.wait(max(0.0, start + number * self._pace - time.monotonic())):
                    return
                pool.submit(self._call)

    def _call(self) -> None:
        began = time.monotonic()
        try:
            answer = self._http.get(self._url)
        except Exception as error:  # whatever it is, it is a failed call and told as such
            self.calls.append(seen(began, error))
        else:
            self.calls.append(seen(began, answer))

    def stop(self) -> None:
        """Begin no more calls, and wait for those that were begun."""
        self._stopping.set()
        self._thread.join(30)


class LoopCaller:
    """The same on an event loop."""

    def __init__(self, http: Any, url: str, rate: float, loop: asyncio.AbstractEventLoop) -> None:
        self.calls: list[Call] = []
        self._http, self._url, self._pace = http, url, 1 / rate
        self._stopping = asyncio.Event()
        self._loop = loop
        self._done = asyncio.run_coroutine_threadsafe(self._run(), loop)

    async def _run(self) -> None:
        start, due = self._loop.time(), 0.0
        async with asyncio.TaskGroup() as group:
            while not self._stopping.is_set():
                group.create_task(self._call(lambda: self._http.get(self._url)))
                due += self._pace
                await asyncio.sleep(start + due - self._loop.time())

    async def _call(self, get: Callable[[], Awaitable[Any]]) -> None:
        began = time.monotonic()
        try:
            answer = await get()
        except Exception as error:  # whatever it is, it is a failed call and told as such
            self.calls.append(seen(began, error))
        else:
            self.calls.append(seen(began, answer))

    def stop(self) -> None:
        """Begin no more calls, and wait for those that were begun."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._done.result(30)
