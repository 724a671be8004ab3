"""Deadlines for asyncio, on a shared wheel that turns every 10 ms.

A timer for each call costs more than all the rest of a call; a place in a slot costs a fraction of that. A deadline comes up to
10 ms late, never early.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType

TURN = 0.01


class Deadline:
    """Cancels the task that entered it when its time has come, and turns that cancellation into TimeoutError.

    ``when``: by the loop's clock. As with ``asyncio.timeout`` a cancellation from elsewhere stays what it is.
    """

    __slots__ = ("_slot", "_task", "_when")

    def __init__(self, when: float) -> None:
        self._when = when

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        wheel = _here.wheel
        if wheel is None or wheel.loop is not loop:
            wheel = _wheel_of(loop)
        self._task = asyncio.current_task(loop)
        self._slot = wheel.slot(self._when)
        self._slot[self] = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self in self._slot:
            del self._slot[self]
        elif self._task is not None and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """The time has come."""
        if self._task is not None:
            self._task.cancel()


class _Wheel:
    """The deadlines of one loop, by the turn in which they are due."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._slots: dict[int, dict[Deadline, None]] = {}
        self._turned = 0
        self._turning = False

    def slot(self, when: float) -> dict[Deadline, None]:
        """Where a deadline waits. Who takes itself out again is not told."""
        number = int(when / TURN) + 1
        slot = self._slots.get(number)
        if slot is None or number <= self._turned:
            return self._new(number)
        return slot

    def _new(self, number: int) -> dict[Deadline, None]:
        if not self._turning:
            self._turning = True
            self._turned = int(self.loop.time() / TURN)
            self.loop.call_later(TURN, self._turn)
        return self._slots.setdefault(max(number, self._turned + 1), {})

    def _turn(self) -> None:
        now = int(self.loop.time() / TURN)
        first, self._turned = self._turned + 1, now
        # Usually one turn has passed; after a pause of the loop there may be more of them than deadlines.
        numbers = range(first, now + 1) if now - first < len(self._slots) else sorted(self._slots)
        for number in numbers:
            if number <= now and number in self._slots:
                due = self._slots.pop(number)
                while due:
                    due.popitem()[0].expire()
        self._turning = bool(self._slots)
        if self._turning:
            self.loop.call_later(TURN, self._turn)


class _Here(threading.local):
    """The wheel that this thread used last: a thread runs one loop at a time, mostly the same one."""

    wheel: _Wheel | None = None


_here = _Here()


def _wheel_of(loop: asyncio.AbstractEventLoop) -> _Wheel:
    # Found again through the loop, which may be one of several that take turns in a thread.
    wheel: _Wheel | None = getattr(loop, "_trimtab_wheel", None)
    if wheel is None:
        wheel = _Wheel(loop)
        with contextlib.suppress(AttributeError):  # a loop of another make may take no attributes: it gets a new wheel
            loop._trimtab_wheel = wheel  # type: ignore[attr-defined]
    _here.wheel = wheel
    return wheel
