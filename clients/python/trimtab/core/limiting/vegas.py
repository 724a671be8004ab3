"""Vegas: a limit from how many calls seem to be waiting in the callee's queue.

Source: Netflix concurrency-limits, ``VegasLimit``, after TCP Vegas. With rtt0 the shortest time seen::

    queue = ceil(limit * (1 - rtt0 / rtt))        step = log10(limit), at least 1

    dropped         limit - step                  queue < 3 * step    limit + step
    queue <= step   limit + 6 * step              queue > 6 * step    limit - step

What was the shortest time once need not be it for ever: after 15 to 30 times the limit samples it is measured anew. A drop
says nothing about times here: a refusal that comes at once would pass for the shortest.
"""

from __future__ import annotations

from math import ceil, inf, log10

from trimtab.core.backoff import Rng
from trimtab.policy.sections import Adaptive

PROBE_MULTIPLIER = 30
ALPHA, BETA = 3, 6


class Vegas:
    """A limit between ``settings.low`` and ``settings.high``."""

    __slots__ = ("_high", "_jitter", "_low", "_rng", "_rtt0", "_samples", "limit")

    def __init__(self, settings: Adaptive, rng: Rng) -> None:
        self._low, self._high = settings.low, settings.high
        self.limit = min(self._high, max(self._low, settings.initial))
        self._rng = rng
        self._rtt0 = inf
        self._samples = 0
        self._jitter = 0.5 + rng.random() / 2

    def update(self, rtt: float, in_flight: int, dropped: bool) -> int:
        """Return the limit after calls that took ``rtt`` seconds, with ``in_flight`` calls under way.

        ``dropped``: the callee refused one, or did not answer in time; ``rtt`` is then of no account.
        """
        limit = self.limit
        step = max(1, int(log10(limit)))
        if dropped:
            return self._move(limit - step)
        self._samples += 1
        if self._samples >= self._jitter * PROBE_MULTIPLIER * limit:
            self._jitter = 0.5 + self._rng.random() / 2
            self._samples = 0
            self._rtt0 = rtt
            return limit
        if rtt < self._rtt0:
            self._rtt0 = rtt
            return limit
        # A limit that nobody reaches proves nothing, so it does not grow.
        if in_flight * 2 < limit:
            return limit
        # rtt is rtt0 at least; where both are 0 there is no queue.
        queue = ceil(limit * (1.0 - self._rtt0 / rtt)) if rtt else 0
        if queue <= step:
            return self._move(limit + BETA * step)
        if queue < ALPHA * step:
            return self._move(limit + step)
        if queue > BETA * step:
            return self._move(limit - step)
        return limit

    def _move(self, limit: int) -> int:
        self.limit = min(self._high, max(self._low, limit))
        return self.limit
