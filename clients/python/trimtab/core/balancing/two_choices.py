"""The power of two choices, when weights may differ.

Equal weights: of a random pair, the one with the lighter burden takes the call. Unequal weights: a strict comparison would
starve the lighter of two idle endpoints, and odds within a random pair do not add up to shares. So the first of a pair is
drawn by weight, and its rival takes the call with the probability

    min(1, (rival's weight / rival's burden) / (first's weight / first's burden))

This is one step of the Metropolis algorithm (Metropolis et al. 1953; Hastings 1970), which leaves a distribution by weight as
it is: while all do equally well, shares are exactly the weights, and whoever does worse still loses to any rival.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.backoff import Rng
from trimtab.core.balancing.pairs import SHUFFLED, pairs, weighted_pairs
from trimtab.core.balancing.weighing import Weights, weigh
from trimtab.core.endpoints import Endpoint, Tally


class TwoChoices:
    """What the two algorithms share. An endpoint without a tally gets one here as soon as it is a candidate.

    Looking at all weights of a large service, only to find that they are alike, would cost more than all the rest of a new
    state. So its picker takes them for alike until it meets a pair of which they are not.
    """

    __slots__ = ("_alike", "_certain", "_endpoints", "_pairs", "_random", "_rng", "_tallies", "_weights")

    def __init__(
        self, endpoints: Sequence[Endpoint], tallies: dict[str, Tally], weights: Weights | None, rng: Rng
    ) -> None:
        self._endpoints = endpoints
        self._tallies = tallies
        self._rng = rng
        self._random = rng.random
        self._weights = weights or {}
        self._alike, self._certain = True, False
        if weights or len(endpoints) <= SHUFFLED:
            self._compare_weights()
        else:
            self._pairs = pairs(endpoints, rng, self._candidate)

    def _compare_weights(self) -> None:
        weighed = weigh(self._endpoints, self._weights)
        self._alike, self._certain = weighed is None, True
        if weighed is None:
            self._pairs = pairs(self._endpoints, self._rng, self._candidate)
        else:
            self._pairs = weighted_pairs(self._endpoints, weighed, self._rng, self._candidate)

    def _candidate(self, endpoint: Endpoint) -> tuple[Endpoint, Tally]:
        tally = self._tallies.get(endpoint.id)
        if tally is None:
            # Pickers of new rules are made while calls go on.
            tally = self._tallies.setdefault(endpoint.id, Tally())
        return endpoint, tally

    def _better(self, one: Endpoint, other: Endpoint, burden: float, rivals: float) -> Endpoint:
        """Return who of two takes the call when weights are not all alike."""
        if not self._certain:
            self._compare_weights()
        weights = self._weights
        own, its = weights.get(one.id, one.weight), weights.get(other.id, other.weight)
        if own == its:
            return one if burden <= rivals else other
        return other if self._random() * own * rivals < its * burden else one
