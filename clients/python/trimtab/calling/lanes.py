"""Where the copies of a call run beside each other: as tasks of one loop, or on threads."""

from __future__ import annotations

import asyncio
import contextvars
import queue
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from trimtab.calling.drive import block
from trimtab.core.calling.call import Call
from trimtab.core.clock import Clock
from trimtab.core.crew import Crew

Ride = Coroutine[Any, Any, None]


class Lanes(Protocol):
    """The lanes of one race. ``free``: there is one for another copy, so that nobody has to wait for it."""

    @property
    def free(self) -> bool:
        """A copy can be sent beside those under way."""
        ...

    def start(self, copy: Call, ride: Callable[[Call], Ride], over: Callable[[Call], None]) -> bool:
        """Send a copy. ``over`` is called at the end of its ride, also if it never began. False: there is no lane for it."""
        ...

    async def wait(self, clock: Clock, until: float | None) -> None:
        """Wait for the next ``arrived``, until a time at most."""
        ...

    def arrived(self) -> None:
        """Some copy has come to its end."""
        ...

    def stop(self, copies: Iterable[Call]) -> None:
        """End these as soon as can be."""
        ...

    async def join(self) -> None:
        """Wait for those that were stopped, as far as they can be."""
        ...


class Tasks:
    """Lanes in one loop: what is stopped is cancelled."""

    free = True

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._tasks: dict[Call, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    def start(self, copy: Call, ride: Callable[[Call], Ride], over: Callable[[Call], None]) -> bool:
        """Send a copy."""
        self._tasks[copy] = self._crew.spawn(ride(copy), lambda: over(copy))
        return True

    async def wait(self, clock: Clock, until: float | None) -> None:
        """Wait for news, until a time at most."""
        alarm = None if until is None else self._crew.spawn(self._ring(clock, until))
        try:
            await self._news.wait()
        finally:
            if alarm is not None:
                alarm.cancel()
        self._news.clear()

    async def _ring(self, clock: Clock, until: float) -> None:
        await clock.pause(max(0.0, until - clock.now()))
        self._news.set()

    def arrived(self) -> None:
        """Some copy has come to its end."""
        self._news.set()

    def stop(self, copies: Iterable[Call]) -> None:
        """Cancel them."""
        for copy in copies:
            self._tasks[copy].cancel()

    async def join(self) -> None:
        """Wait for all."""
        running = [task for task in self._tasks.values() if not task.done()]
        if running:
            await asyncio.wait(running)


class Threads:
    """Lanes on the threads of the crew. ``abandon`` is told of each copy that nobody waits for any more."""

    def __init__(self, crew: Crew, abandon: Callable[[Call], None]) -> None:
        self._crew = crew
        self._abandon = abandon
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def free(self) -> bool:
        """A thread is."""
        return self._crew.free

    def start(self, copy: Call, ride: Callable[[Call], Ride], over: Callable[[Call], None]) -> bool:
        """Send a copy, in the context of its caller."""
        context = contextvars.copy_context()

        def work() -> None:
            try:
                context.run(block, ride(copy))
            finally:
                over(copy)

        return self._crew.free and self._crew.start(work)

    async def wait(self, clock: Clock, until: float | None) -> None:
        """Hold the thread up until there is news, until a time at most."""
        try:
            self._news.get(timeout=None if until is None else max(0.0, until - clock.now()))
        except queue.Empty:
            return

    def arrived(self) -> None:
        """Some copy has come to its end."""
        self._news.put(None)

    def stop(self, copies: Iterable[Call]) -> None:
        """Say that nobody waits for them."""
        for copy in copies:
            self._abandon(copy)

    async def join(self) -> None:
        """A thread is not waited for: it may be held up for long."""
