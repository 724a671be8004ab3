"""The power of two choices: of two random endpoints, the one with less to do."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.backoff import Rng
from trimtab.core.endpoints import Endpoint


class LeastRequest:
    """P2C by requests in flight, score ``weight / (in_flight + 1)``.

    Equal weights: the higher score wins. Unequal weights: the pair is drawn from with the scores as odds, because a
    strict comparison would starve the lighter of two idle endpoints instead of giving it its share.
    """

    __slots__ = ("_count", "_endpoints")

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._count = len(endpoints)

    def pick(self, rng: Rng) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none."""
        count = self._count
        if count < 2:
            return self._endpoints[0] if count else None
        first = int(rng.random() * count)
        second = int(rng.random() * (count - 1))
        if second >= first:
            second += 1
        one, other = self._endpoints[first], self._endpoints[second]
        if one.weight == other.weight:
            return one if one.tally.in_flight <= other.tally.in_flight else other
        # weight / (in_flight + 1) of both, brought to one denominator
        score = one.weight * (other.tally.in_flight + 1)
        against = other.weight * (one.tally.in_flight + 1)
        return one if rng.random() * (score + against) < score else other
