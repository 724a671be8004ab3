"""AIMD: a limit that grows step by step, and shrinks by a share when calls are dropped.

Source: Netflix concurrency-limits, ``AIMDLimit``, after TCP Reno: limit * 0.9 after a drop; limit + 1 otherwise, while at
least half of it is used.
"""

from __future__ import annotations

from trimtab.policy.sections import Adaptive

BACKOFF = 0.9


class Aimd:
    """A limit between ``settings.low`` and ``settings.high``."""

    __slots__ = ("_high", "_low", "limit")

    def __init__(self, settings: Adaptive) -> None:
        self._low, self._high = settings.low, settings.high
        self.limit = min(self._high, max(self._low, settings.initial))

    def update(self, rtt: float, in_flight: int, dropped: bool) -> int:
        """Return the limit after calls, with ``in_flight`` of them under way. Their time does not matter here.

        ``dropped``: the callee refused one, or did not answer in time.
        """
        if dropped:
            self.limit = max(self._low, int(self.limit * BACKOFF))
        elif in_flight * 2 >= self.limit:
            self.limit = min(self._high, self.limit + 1)
        return self.limit
