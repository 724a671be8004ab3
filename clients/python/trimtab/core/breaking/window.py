"""What became of the last calls: the windows over which a circuit breaker judges.

Source: resilience4j's sliding windows, count-based and time-based. The number of the newest call stands for all that went
well, and only what did not is kept: a call that went well is one increment, and costs no memory.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import NamedTuple, Protocol

_SLICES = 20


class Counts(NamedTuple):
    """How many calls a window holds, and how many of them failed or were slow."""

    calls: int
    failed: int
    slow: int


NOTHING = Counts(0, 0, 0)


class Window(Protocol):
    """The recent calls. Times in seconds of one clock.

    Before ``edge``, a call that went well may be counted by ``calls += 1`` alone: there are enough calls to judge already,
    and no older one leaves, so that it only makes the shares better.
    """

    calls: int
    edge: float

    def add(self, now: float, failed: bool, slow: bool) -> None:
        """Count any call, at any time."""
        ...

    def counts(self, now: float) -> Counts:
        """What is in the window. Finds out where ``edge`` is."""
        ...

    def clear(self) -> None:
        """Begin anew."""
        ...


class CountWindow:
    """The last ``size`` calls, of which ``minimum``, at most all, are needed to judge."""

    __slots__ = ("_failed", "_minimum", "_size", "_slow", "calls", "edge")

    def __init__(self, size: int, minimum: int) -> None:
        self.calls = 0
        self.edge = -inf
        self._size = size
        self._minimum = minimum
        self._failed: deque[int] = deque()  # the numbers of the calls
        self._slow: deque[int] = deque()

    def add(self, now: float, failed: bool, slow: bool) -> None:
        """Count any call."""
        self.calls += 1
        if failed:
            self._failed.append(self.calls)
        if slow:
            self._slow.append(self.calls)

    def counts(self, now: float) -> Counts:
        """What is in the window."""
        gone = self.calls - self._size
        for numbers in (self._failed, self._slow):
            while numbers and numbers[0] <= gone:
                numbers.popleft()
        if self.calls >= self._minimum:
            self.edge = inf
        return Counts(min(self.calls, self._size), len(self._failed), len(self._slow))

    def clear(self) -> None:
        """Begin anew."""
        self.calls = 0
        self.edge = -inf
        self._failed.clear()
        self._slow.clear()


class _Slice:
    """The calls from ``began`` to the beginning of the next slice; ``before`` is the number of the last call before it."""

    __slots__ = ("before", "began", "failed", "slow")

    def __init__(self, began: float, before: int) -> None:
        self.began = began
        self.before = before
        self.failed = 0
        self.slow = 0


class TimeWindow:
    """The calls of the last ``seconds``, of which ``minimum`` are needed to judge.

    It moves on by a twentieth of the time, so that a call leaves it up to that much late.
    """

    __slots__ = ("_failed", "_minimum", "_seconds", "_slices", "_slow", "_step", "calls", "edge")

    def __init__(self, seconds: float, minimum: int) -> None:
        self.calls = 0
        self.edge = -inf
        self._seconds = seconds
        self._minimum = minimum
        self._step = seconds / _SLICES
        self._slices: list[_Slice] = []  # 21 at most; a deque takes five times the memory
        self._failed = self._slow = 0

    def add(self, now: float, failed: bool, slow: bool) -> None:
        """Count any call, at any time."""
        slices = self._slices
        if not slices or now >= slices[-1].began + self._step:
            slices.append(_Slice(now, self.calls))
        self.calls += 1
        if failed:
            slices[-1].failed += 1
            self._failed += 1
        if slow:
            slices[-1].slow += 1
            self._slow += 1

    def counts(self, now: float) -> Counts:
        """What is in the window."""
        slices = self._slices
        oldest = now - self._seconds - self._step
        while slices and slices[0].began <= oldest:
            gone = slices.pop(0)
            self._failed -= gone.failed
            self._slow -= gone.slow
        calls = self.calls - slices[0].before if slices else 0
        self.edge = slices[-1].began + self._step if slices and calls >= self._minimum else -inf
        return Counts(calls, self._failed, self._slow)

    def clear(self) -> None:
        """Begin anew."""
        self.edge = -inf
        self._slices.clear()
        self._failed = self._slow = self.calls = 0
