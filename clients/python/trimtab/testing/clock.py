"""Time that passes only when somebody waits for it, or says so."""

from __future__ import annotations

import asyncio
from types import TracebackType

from trimtab.calling.wheel import Deadline
from trimtab.core.clock import Event

# Turns of the loop without anybody beginning or ending to wait, after which all are taken to have come to where they wait.
_TURNS = 20


class FakeClock:
    """A clock for tests. Whoever sleeps on it moves it on, so that a wait takes no time.

    Tasks that pause at the same time wait beside each other, not one after the other: when every task has come to where it
    waits, the clock goes to the earliest time that is due. What waits for anything else, for real I/O or by ``asyncio.sleep``,
    is not waited for.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._changes = 0
        self._pauses: list[float] = []
        self._places: dict[float, dict[_FakeDeadline, None]] = {}

    def now(self) -> float:
        """Seconds; the first time has no meaning."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass. Raises ValueError: time does not go back."""
        if not seconds >= 0:
            raise ValueError(f"time does not go back, as by {seconds!r} s")
        self._reach(self._now + seconds)

    def sleep(self, seconds: float) -> None:
        """Hold this thread up, which takes no time."""
        self.advance(max(0.0, seconds))

    def wait(self, event: Event, seconds: float) -> None:
        """Hold this thread up, unless it happened already: no other thread is waited for."""
        if not event.is_set():
            self.sleep(seconds)

    async def pause(self, seconds: float) -> None:
        """Let other tasks run for so many seconds, which takes no time."""
        until = self._now + max(0.0, seconds)
        self._pauses.append(until)
        self._changes += 1
        try:
            await asyncio.sleep(0)
            while self._now < until:
                await self._quiet(until)
                if self._now < until:
                    self._reach(min(self._due()))
        finally:
            self._pauses.remove(until)
            self._changes += 1

    def deadline(self, when: float) -> _FakeDeadline:
        """End what the task does inside when the time has come, with TimeoutError."""
        return _FakeDeadline(self, when)

    def place(self, when: float) -> dict[_FakeDeadline, None]:
        """Where a deadline waits."""
        self._places = {due: place for due, place in self._places.items() if place}
        if when <= self._now:
            asyncio.get_running_loop().call_soon(self.advance, 0.0)
        return self._places.setdefault(when, {})

    def _due(self) -> list[float]:
        return [until for until in self._pauses if until > self._now] + [
            when for when, place in self._places.items() if place
        ]

    def _reach(self, now: float) -> None:
        self._now = now
        self._changes += 1
        for when in sorted(self._places):
            if when <= now:
                for deadline in list(self._places.pop(when)):
                    deadline.expire()

    async def _quiet(self, until: float) -> None:
        """Let all other tasks come to where they wait, unless it is time to go on."""
        turns = 0
        while turns < _TURNS and self._now < until:
            seen = self._changes
            await asyncio.sleep(0)
            turns = turns + 1 if seen == self._changes else 0


class _FakeDeadline:
    """A deadline of a fake clock. It does not make time pass: something that is waited for inside does."""

    __slots__ = ("_clock", "_deadline", "_loop", "_place", "_slot", "_when")

    def __init__(self, clock: FakeClock, when: float) -> None:
        self._clock = clock
        self._when = when
        self._deadline = Deadline(when)
        self._slot: dict[Deadline, None] = {}

    def __enter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._place = self._clock.place(self._when)
        self._place[self] = None
        self._deadline.wait(self._loop, self._slot)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.pop(self, None)
        self._deadline.__exit__(kind, error, trace)

    def expire(self) -> None:
        """The time has come."""
        # Later: a task that let time pass itself must be neither cancelled in the middle of that nor after it left.
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._slot:
            self._slot.clear()
            self._deadline.expire()
