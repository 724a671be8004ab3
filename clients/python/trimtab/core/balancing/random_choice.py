"""Anybody, in proportion to the weights."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate

from trimtab.core.backoff import Rng
from trimtab.core.balancing.weighing import Weights, weigh
from trimtab.core.endpoints import Endpoint


class RandomChoice:
    """One draw for each call. What weighs nothing among others that do is never drawn."""

    __slots__ = ("_endpoints", "_last", "_random", "_up_to")

    def __init__(self, endpoints: Sequence[Endpoint], weights: Weights | None, rng: Rng) -> None:
        self._endpoints = endpoints
        self._last = len(endpoints) - 1
        self._random = rng.random
        weighed = weigh(endpoints, weights)
        self._up_to = list(accumulate(weighed)) if weighed is not None else None

    def pick(self, now: float, key: int | None = None) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none."""
        endpoints, up_to = self._endpoints, self._up_to
        if not endpoints:
            return None
        if up_to is None:
            return endpoints[int(self._random() * len(endpoints))]
        return endpoints[bisect(up_to, self._random() * up_to[-1], 0, self._last)]
