"""A rate limit that is low after a rest and rises while it is used: for callees that are slow while they are cold.

Source: Guava's ``SmoothRateLimiter.SmoothWarmingUp``, cold factor 3, as in Sentinel's ``WarmUpController``. Rest is stored
as permits, as many as the rate would have let through. A call takes one, and what it costs in time depends on how many
there are::

    interval
      3 / rate |          /        the area between threshold and most is the warm-up period
               |        / |
      1 / rate +------/   |        threshold = period * rate / 2
               |      |   |        most      = threshold + 2 * period * rate / (1 + 3)
               +------+---+---> stored permits
"""

from __future__ import annotations

from math import inf

from trimtab.core.limiting.gcra import ROUNDING
from trimtab.policy.sections import Limit

COLD_FACTOR = 3.0


class WarmUp:
    """A rate limit that takes ``period`` seconds from a third of its rate to all of it. See ``limiter.Limiter``.

    A burst is time that may be borrowed, as in the GCRA: cold, when a call costs up to three intervals, it is as much smaller.
    """

    __slots__ = (
        "_cooling",
        "_due",
        "_due_before",
        "_interval",
        "_most",
        "_slack",
        "_slope",
        "_stored",
        "_stored_before",
        "_threshold",
        "_wait",
    )

    def __init__(self, settings: Limit, period: float) -> None:
        self._set(settings, period)
        self._due = self._due_before = -inf
        self._stored = self._stored_before = self._most

    def change(self, settings: Limit, now: float) -> None:
        """Go on under other settings, as warm as before: rest is rescaled as in Guava's ``doSetRate``, debt as in the GCRA."""
        missing = (self._due - now) / self._interval
        if missing < 0.0:
            self._stored = min(self._most, self._stored + (now - self._due) / self._cooling)
        rested = self._stored / self._most
        self._set(settings, settings.warm_up or 0.0)
        self._due = self._due_before = now + max(0.0, missing) * self._interval
        self._stored = self._stored_before = rested * self._most

    def _set(self, settings: Limit, period: float) -> None:
        interval = 1.0 / settings.rate
        self._interval = interval
        self._slack = (settings.burst - 1) * interval + ROUNDING
        self._wait = settings.wait
        self._threshold = 0.5 * period / interval
        self._most = self._threshold + 2.0 * period / (interval + COLD_FACTOR * interval)
        self._slope = (COLD_FACTOR - 1.0) * interval / (self._most - self._threshold)
        self._cooling = period / self._most  # seconds of rest that store one permit

    def admit(self, now: float) -> float:
        """Return 0.0 to go on, the seconds to wait for the place that is taken, or less than 0 for a refusal."""
        due, stored = self._due, self._stored
        if due < now:
            stored += (now - due) / self._cooling
            if stored > self._most:
                stored = self._most
            due = now
        early = due - now - self._slack
        if early > self._wait:
            return self._wait - early - ROUNDING
        self._due_before, self._stored_before = due, stored
        self._due = due + self._cost(stored)
        self._stored = stored - 1.0 if stored > 1.0 else 0.0
        return early if early > 0.0 else 0.0

    def refund(self, start: float, now: float) -> None:
        """Give the newest place back: the one of the call that was to start at ``start``. Of several only one returns."""
        due = self._due_before + (now - start if now > start else 0.0)
        if due < self._due and start > self._due_before - self._slack - self._interval / 2:
            self._due, self._stored = due, self._stored_before

    def _cost(self, stored: float) -> float:
        """Return the seconds that one call costs: the area of the curve over the permit that it takes."""
        above = stored - self._threshold
        if above <= 0.0:
            return self._interval
        cold = above if above < 1.0 else 1.0
        # The mean height of a straight line is the height in its middle.
        return self._interval + cold * self._slope * (above - cold / 2)
