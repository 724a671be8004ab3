"""The power of two choices: of two random endpoints, the one with less to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimtab.core.backoff import Rng
from trimtab.core.endpoints import Endpoint, Tally


class LeastRequest:
    """P2C by requests in flight, score ``weight / (in_flight + 1)``.

    Equal weights: the higher score wins. Unequal weights: the pair is drawn from with the scores as odds, because a
    strict comparison would starve the lighter of two idle endpoints instead of giving it its share.
    """

    __slots__ = ("_count", "_endpoints", "_tallies")

    def __init__(self, endpoints: Sequence[Endpoint], tallies: Mapping[str, Tally]) -> None:
        self._endpoints = endpoints
        self._tallies = tallies
        self._count = len(endpoints)

    def pick(self, rng: Rng) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none."""
        count = self._count
        if count < 2:
            return self._endpoints[0] if count else None
        # One draw for an ordered pair of two different ones: 2^53 values are plenty for that.
        first, second = divmod(int(rng.random() * count * (count - 1)), count - 1)
        if second >= first:
            second += 1
        one, other = self._endpoints[first], self._endpoints[second]
        # Nobody has called an endpoint that has no tally.
        tally = self._tallies.get(one.id)
        busy = tally.in_flight if tally is not None else 0
        tally = self._tallies.get(other.id)
        other_busy = tally.in_flight if tally is not None else 0
        if one.weight == other.weight:
            return one if busy <= other_busy else other
        # weight / (in_flight + 1) of both, brought to one denominator
        score = one.weight * (other_busy + 1)
        against = other.weight * (busy + 1)
        return one if rng.random() * (score + against) < score else other
