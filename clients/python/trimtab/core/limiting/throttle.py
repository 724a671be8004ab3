"""Adaptive throttling: a caller refuses here a share of what its callee would refuse anyway.

Source: Google, *Site Reliability Engineering*, chapter 21, "Client-Side Throttling"::

    P(refuse) = (requests - K * accepts) / (requests + 1)        0 at least

A request counts when it is answered, by the callee or by the refusal here, as gRPC's ``AdaptiveThrottler`` does it. Counted
when they are sent, the first calls of a fresh process would be refused only because no answer is back yet.

One in twenty is always let through, as Envoy's admission control lets one in five. What is refused here fills the window
like what the callee refused, so that by the formula alone a callee that was away for a window would get its first
request in thousands, and its whole traffic back only after many windows.
"""

from __future__ import annotations

from collections import deque
from math import inf

from trimtab.core.backoff import Rng
from trimtab.policy.sections import Throttle as Settings

SLICES = 20
MOST = 0.95


class Throttle:
    """The requests of the last ``window`` seconds, in 20 slices, and the odds that follow from them.

    A slice leaves the window as a whole, so what counts is between 19 and 20 slices of the past.
    """

    __slots__ = ("_accepted", "_closed", "_ends", "_excess", "_length", "_number", "_rejected", "_slices")

    def __init__(self, settings: Settings) -> None:
        self._excess = settings.k - 1.0  # requests - K * accepts = rejected - (K - 1) * accepted
        self._length = settings.window / SLICES
        self._accepted = self._rejected = 0
        self._number = 0
        self._ends = -inf
        # Number, accepted and rejected of each slice that is over; the current one is what the totals have beyond them.
        self._slices: deque[tuple[int, int, int]] = deque()
        self._closed = (0, 0)

    def admit(self, now: float, rng: Rng) -> bool:
        """Whether a request may be sent. If so, say what became of it: ``accepted``, ``rejected``, or nothing."""
        if now >= self._ends:
            self._slide(now)
        rejected = self._rejected
        if not rejected:
            return True
        excess = rejected - self._excess * self._accepted
        if excess <= 0.0:
            return True
        chance = rng.random()
        if chance >= MOST or chance * (rejected + self._accepted + 1) >= excess:
            return True
        self._rejected = rejected + 1
        return False

    def accepted(self, now: float) -> None:
        """The callee took a request on, however it went then."""
        if now >= self._ends:
            self._slide(now)
        self._accepted += 1

    def rejected(self, now: float) -> None:
        """The callee refused a request for want of capacity, or did not answer in time."""
        if now >= self._ends:
            self._slide(now)
        self._rejected += 1

    def probability(self, now: float) -> float:
        """Return the share of requests that is refused now, 0 to 0.95."""
        if now >= self._ends:
            self._slide(now)
        excess = self._rejected - self._excess * self._accepted
        return min(MOST, max(0.0, excess / (self._rejected + self._accepted + 1)))

    def _slide(self, now: float) -> None:
        """Close the current slice, open the one that ``now`` is in, and forget those that left the window."""
        accepted, rejected = self._accepted - self._closed[0], self._rejected - self._closed[1]
        slices = self._slices
        if accepted or rejected:
            slices.append((self._number, accepted, rejected))
        self._number = int(now // self._length)
        self._ends = (self._number + 1) * self._length
        while slices and slices[0][0] <= self._number - SLICES:
            _, accepted, rejected = slices.popleft()
            self._accepted -= accepted
            self._rejected -= rejected
        self._closed = self._accepted, self._rejected
