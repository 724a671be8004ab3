"""Deadlines for asyncio, on a shared wheel that turns every 10 ms.

A timer for each call costs more than all the rest of a call; a place in a slot costs a fraction of that. A deadline comes up to
10 ms late, never early.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import current_task, get_running_loop
from types import TracebackType

TURN = 0.01


class Deadline:
    """Cancels the task that entered it when its time has come, and turns that cancellation into TimeoutError.

    ``when``: by the loop's clock. As with ``asyncio.timeout`` a cancellation from elsewhere stays what it is, and one that came
    before, which the task is busy to clean up after, does not matter.
    """

    __slots__ = ("_cancelling", "_slot", "_task", "_when")

    def __init__(self, when: float) -> None:
        self._when = when

    def __enter__(self) -> None:
        loop = get_running_loop()
        wheel = _latest
        if wheel is None or wheel.loop is not loop:
            wheel = _wheel_of(loop)
        number = self._when // TURN + 1.0
        slot = wheel.slots.get(number)
        if slot is None or number <= wheel.turned:
            slot = wheel.slot(number)
        self.wait(loop, slot)

    def wait(self, loop: asyncio.AbstractEventLoop, slot: dict[Deadline, None]) -> None:
        """Begin to hold for the task that is running, from now until whoever keeps ``slot`` says that it has expired."""
        task = self._task = current_task(loop)
        self._cancelling = task.cancelling() if task is not None else 0
        self._slot = slot
        slot[self] = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self in self._slot:
            del self._slot[self]
        elif self._task is not None:
            mine = self._task.uncancel() <= self._cancelling
            if mine and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def expire(self) -> None:
        """The time has come."""
        if self._task is not None:
            self._task.cancel()


class _Wheel:
    """The deadlines of one loop, by the turn in which they are due."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # Where deadlines wait, by the number of the turn. Who takes itself out again is not told.
        self.slots: dict[float, dict[Deadline, None]] = {}
        self.turned = 0.0
        self._turning = False

    def slot(self, number: float) -> dict[Deadline, None]:
        """Make the place for deadlines of a turn, or of the next one if it has passed."""
        if not self._turning:
            self._turning = True
            self.turned = self.loop.time() // TURN
            self.loop.call_later(TURN, self._turn)
        return self.slots.setdefault(max(number, self.turned + 1.0), {})

    def _turn(self) -> None:
        now = self.loop.time() // TURN
        first, self.turned = self.turned + 1.0, now
        # Usually one turn has passed; after a pause of the loop there may be more of them than deadlines.
        few = now - first < len(self.slots)
        for number in map(float, range(int(first), int(now) + 1)) if few else sorted(self.slots):
            if number <= now and number in self.slots:
                due = self.slots.pop(number)
                while due:
                    due.popitem()[0].expire()
        self._turning = bool(self.slots)
        if self._turning:
            self.loop.call_later(TURN, self._turn)


# The wheel that was used last: mostly there is one loop.
_latest: _Wheel | None = None


def _wheel_of(loop: asyncio.AbstractEventLoop) -> _Wheel:
    # Found again through the loop, which may be one of several.
    global _latest
    wheel: _Wheel | None = getattr(loop, "_trimtab_wheel", None)
    if wheel is None:
        wheel = _Wheel(loop)
        with contextlib.suppress(AttributeError):  # a loop of another make may take no attributes: it gets a new wheel
            loop._trimtab_wheel = wheel  # type: ignore[attr-defined]
    _latest = wheel
    return wheel
