"""How many calls, and errors, a second, over the last seconds."""

from __future__ import annotations

from collections import deque

WINDOW = 10.0  # seconds


class Throughput:
    """Rates from readings of two counters, so that counting a call is all that it costs. Not thread-safe by itself.

    A rate is over the time since the newest reading that is at least ``WINDOW`` old, or since the first one there is.
    """

    __slots__ = ("_readings",)

    def __init__(self, now: float) -> None:
        self._readings = deque([(now, 0, 0)])

    def read(self, now: float, calls: int, errors: int) -> tuple[float, float]:
        """Take a reading of all calls and errors so far. Returns those a second, 0 where no time has passed."""
        readings = self._readings
        while len(readings) > 1 and readings[1][0] <= now - WINDOW:
            readings.popleft()
        began, calls_before, errors_before = readings[0]
        readings.append((now, calls, errors))
        seconds = now - began
        if seconds <= 0.0:
            return 0.0, 0.0
        return (calls - calls_before) / seconds, (errors - errors_before) / seconds
