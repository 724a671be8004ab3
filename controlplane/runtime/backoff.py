"""Waiting before another try, the same way everywhere.

Source: "full jitter", AWS builders' library, "Timeouts, retries and backoff with jitter".
"""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Sleeps a random time below a bound that doubles from ``first`` to ``limit`` seconds; ``reset`` after a success."""

    def __init__(self, first: float = 0.05, limit: float = 2.0) -> None:
        self._first = first
        self._limit = limit
        self._bound = first

    async def wait(self) -> None:
        """Sleep before the next try."""
        delay = random.uniform(self._bound / 2, self._bound)
        self._bound = min(self._bound * 2, self._limit)
        await asyncio.sleep(delay)

    def reset(self) -> None:
        """The last try succeeded."""
        self._bound = self._first
