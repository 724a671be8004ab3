"""The textbook's token bucket, to compare with: tokens that are counted, a debt where calls may wait."""

from __future__ import annotations

from trimtab.policy.sections import Limit


class TokenBucket:
    """Holds at most ``burst`` tokens and gains ``rate`` a second. A call that waits takes a token that is yet to come."""

    def __init__(self, settings: Limit) -> None:
        self.settings = settings
        self.tokens = float(settings.burst)
        self.seen = 0.0

    def admit(self, now: float) -> float:
        self.tokens = min(self.settings.burst, self.tokens + (now - self.seen) * self.settings.rate)
        self.seen = now
        missing = max(0.0, 1.0 - self.tokens) / self.settings.rate
        if missing > self.settings.wait:
            return self.settings.wait - missing
        self.tokens -= 1.0
        return missing


def assert_within(starts: list[float], settings: Limit) -> None:
    """In no interval between two of ``starts`` are there more than ``burst + rate * t``."""
    starts = sorted(starts)
    for first, begin in enumerate(starts):
        for last in range(first, len(starts)):
            # The limiter forgives a nanosecond; the rest is what sums of floats lose.
            seconds = starts[last] - begin + 1e-8
            assert last - first + 1 <= settings.burst + settings.rate * seconds + 1e-6
