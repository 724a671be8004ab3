"""A bulkhead: no more than so many calls under way at the same time."""

from __future__ import annotations


class Bulkhead:
    """A fixed limit of concurrency. ``limit`` may be changed at any time; calls that are under way stay."""

    __slots__ = ("in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0

    def acquire(self) -> bool:
        """Take a place for a call, if there is one. Each place taken must be released once."""
        in_flight = self.in_flight
        if in_flight >= self.limit:
            return False
        self.in_flight = in_flight + 1
        return True

    def release(self, now: float, seconds: float | None = None, dropped: bool = False) -> None:
        """Give a call's place back. A fixed limit learns nothing from how the call went; see ``AdaptiveBulkhead``.

        Raises ValueError when no place is taken.
        """
        in_flight = self.in_flight
        if not in_flight:
            raise ValueError("a place was released that nobody had taken")
        self.in_flight = in_flight - 1
