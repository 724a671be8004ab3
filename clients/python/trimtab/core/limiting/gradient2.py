"""Gradient2: a limit from how recent times compare with those of a long while.

Source: Netflix concurrency-limits, ``Gradient2Limit``::

    gradient = clamp(1.5 * long / rtt, 0.5, 1.0)
    limit    = 0.8 * limit + 0.2 * (gradient * limit + 4)

``long`` is the mean of the first 10 samples, then an exponential average over 600. When it is more than twice the recent
time the load is over, and it is brought down faster than it would come by itself. Netflix's has no notion of a drop; here it
counts as the steepest gradient, and its time is left out: a callee that refuses at once would otherwise look fast.
"""

from __future__ import annotations

from trimtab.policy.sections import Adaptive

TOLERANCE = 1.5
SMOOTHING = 0.2
QUEUE = 4.0
STEEPEST = 0.5
WARM_UP = 10
FACTOR = 2.0 / (600 + 1)


class Gradient2:
    """A limit between ``settings.low`` and ``settings.high``."""

    __slots__ = ("_estimate", "_high", "_long", "_low", "_samples", "limit")

    def __init__(self, settings: Adaptive) -> None:
        self._low, self._high = settings.low, settings.high
        self.limit = min(self._high, max(self._low, settings.initial))
        self._estimate = float(self.limit)
        self._long = 0.0
        self._samples = 0

    def update(self, rtt: float, in_flight: int, dropped: bool) -> int:
        """Return the limit after calls that took ``rtt`` seconds, with ``in_flight`` calls under way.

        ``dropped``: the callee refused one, or did not answer in time; ``rtt`` is then of no account.
        """
        estimate = self._estimate
        if dropped:
            gradient = STEEPEST
        else:
            tolerated = TOLERANCE * self._average(rtt)
            # A limit that nobody reaches proves nothing, so it does not grow.
            if in_flight * 2 < estimate:
                return self.limit
            # Compared rather than divided, so that a time of 0 is as good as any.
            if rtt <= tolerated:
                gradient = 1.0
            elif rtt * STEEPEST >= tolerated:
                gradient = STEEPEST
            else:
                gradient = tolerated / rtt
        estimate += SMOOTHING * (gradient * estimate + QUEUE - estimate)
        self._estimate = min(float(self._high), max(float(self._low), estimate))
        self.limit = int(self._estimate)
        return self.limit

    def _average(self, rtt: float) -> float:
        """Take ``rtt`` into the long average, and return it."""
        if self._samples < WARM_UP:
            self._samples += 1
            self._long += (rtt - self._long) / self._samples
        else:
            self._long += (rtt - self._long) * FACTOR
        average = self._long
        if average > 2.0 * rtt:
            self._long *= 0.95
        return average
