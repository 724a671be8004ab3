"""When to act on a burst: after a short quiet, but never later than a bound after its first change."""

from __future__ import annotations


class Debounce:
    """Both windows in seconds. A single change waits ``quiet``; a steady stream of them is acted on every ``limit``."""

    def __init__(self, *, quiet: float, limit: float) -> None:
        self._quiet = quiet
        self._limit = limit
        self._first: float | None = None
        self._last = 0.0

    def add(self, now: float) -> None:
        """Something changed."""
        if self._first is None:
            self._first = now
        self._last = now

    def due(self) -> float | None:
        """When to act; None: nothing to act on."""
        return None if self._first is None else min(self._last + self._quiet, self._first + self._limit)

    def clear(self) -> None:
        """It was acted on."""
        self._first = None
