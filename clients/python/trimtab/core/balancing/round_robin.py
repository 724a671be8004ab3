"""In turn: evenly, or in proportion to the weights when they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trimtab.core.balancing.stride import StaticStride
from trimtab.core.balancing.weighing import Weights, weigh
from trimtab.core.endpoints import Endpoint


class RoundRobin:
    """Each endpoint in turn; as often as its weight says when weights differ (gRFC A58).

    ``sequence`` yields consecutive integers and belongs to the service, so that a rotation goes on where the last picker
    left it.
    """

    __slots__ = ("_endpoints", "_sequence", "_stride")

    def __init__(self, endpoints: Sequence[Endpoint], weights: Weights | None, sequence: Iterator[int]) -> None:
        self._endpoints = endpoints
        self._sequence = sequence
        weighed = weigh(endpoints, weights)
        self._stride = StaticStride(weighed) if weighed is not None else None

    def pick(self, now: float, key: int | None = None) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none. Takes no chances."""
        endpoints = self._endpoints
        if not endpoints:
            return None
        if self._stride is not None:
            return endpoints[self._stride.next(self._sequence)]
        return endpoints[next(self._sequence) % len(endpoints)]
