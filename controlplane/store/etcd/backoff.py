"""How long to wait before asking again: doubling from 50 ms to one second, jittered."""

from __future__ import annotations

import random

FIRST = 0.05
LAST = 1.0


class Backoff:
    """Seconds to wait after each failure in a row. Short at its longest: coming back quickly matters more here."""

    def __init__(self) -> None:
        self._next = FIRST

    def next(self) -> float:
        """The seconds to wait now, between half and all of the current step."""
        step = self._next
        self._next = min(step * 2, LAST)
        return step * (0.5 + random.random() / 2)

    def reset(self) -> None:
        """Begin anew after a success."""
        self._next = FIRST
