"""Virtual time: what happens next happens at once, and an hour takes as long as its events do."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any


class Timeline:
    """Events in the order of their times, those of one time in the order in which they were put there. Seconds."""

    __slots__ = ("_events", "_put", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._put = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def after(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        """Have ``act`` called when so many seconds have passed."""
        self._put += 1
        heappush(self._events, (self.now + seconds, self._put, act, arguments))

    def run(self, until: float = inf) -> None:
        """Live through everything that happens up to ``until``."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, act, arguments = heappop(events)
            act(*arguments)
