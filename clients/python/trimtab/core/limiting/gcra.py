"""The generic cell rate algorithm: a token bucket whose only state is one point in time.

Source: ITU-T I.371, annex A, the virtual scheduling algorithm. With the increment T = 1 / rate and the limit
tau = (burst - 1) * T it admits exactly what a token bucket of ``burst`` tokens refilled at ``rate`` admits: at most
``burst + rate * t`` calls in any ``t`` seconds. With burst 1 and a wait it is a queue of evenly spaced calls.
"""

from __future__ import annotations

from math import inf

from trimtab.policy.sections import Limit

# Calls exactly one interval apart conform, whatever the sum of two floats makes of it: a nanosecond is no time at all.
ROUNDING = 1e-9


class Gcra:
    """A rate limit: ``rate`` a second in the long run, ``burst`` at once after a rest. See ``limiter.Limiter``."""

    __slots__ = ("_due", "_interval", "_slack", "_wait")

    def __init__(self, settings: Limit) -> None:
        self._set(settings)
        self._due = -inf  # the theoretical arrival time: when the next call comes if all come evenly

    def _set(self, settings: Limit) -> None:
        self._interval = 1.0 / settings.rate
        self._slack = (settings.burst - 1) * self._interval + ROUNDING
        self._wait = settings.wait

    def change(self, settings: Limit, now: float) -> None:
        """Go on under other settings. The tokens that are missing stay missing, however fast they come back from now on."""
        missing = (self._due - now) / self._interval
        self._set(settings)
        if missing > 0.0:
            self._due = now + missing * self._interval

    def admit(self, now: float) -> float:
        """Return 0.0 to go on, the seconds to wait for the place that is taken, or less than 0 for a refusal."""
        due = self._due
        if due <= now:
            self._due = now + self._interval
            return 0.0
        early = due - now - self._slack
        if early > self._wait:
            return self._wait - early - ROUNDING
        self._due = due + self._interval
        return early if early > 0.0 else 0.0

    def refund(self, start: float, now: float) -> None:
        """Give the newest place back: the one of the call that was to start at ``start``."""
        interval = self._interval
        due = self._due - interval
        late = now - start if now > start else 0.0
        # Places are an interval apart, so half of one tells them apart.
        if late < interval and start > due - self._slack - interval / 2:
            self._due = due + late
