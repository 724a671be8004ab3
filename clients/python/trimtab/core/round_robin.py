"""In turn: evenly, or in proportion to the weights when they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trimtab.core.backoff import Rng
from trimtab.core.endpoints import Endpoint

_TOP = 65535
_OFFSET = 32767


class StaticStride:
    """The static stride scheduler of gRFC A58: index for each sequence number, in proportion to the weights.

    A weight of 0 counts as the mean of the others, as there. Fewer than two weights above 0: plain rotation.
    """

    __slots__ = ("_weights",)

    def __init__(self, weights: Sequence[int]) -> None:
        known = [w for w in weights if w > 0]
        top = max(known, default=1)
        mean = round(_TOP * sum(known) / (len(known) * top)) if len(known) > 1 else _TOP
        even = len(known) < 2
        self._weights = [mean if even or w <= 0 else max(1, round(_TOP * w / top)) for w in weights]

    def next(self, sequence: Iterator[int]) -> int:
        """Return the next index. Takes as many numbers of ``sequence`` as it needs."""
        weights = self._weights
        count = len(weights)
        for number in sequence:
            generation, index = divmod(number, count)
            weight = weights[index]
            if (weight * generation + index * _OFFSET) % _TOP >= _TOP - weight:
                return index
        raise ValueError("the sequence of a rotation must not end")


class RoundRobin:
    """Each endpoint in turn; as often as its weight says when weights differ."""

    __slots__ = ("_endpoints", "_sequence", "_stride")

    def __init__(self, endpoints: Sequence[Endpoint], sequence: Iterator[int]) -> None:
        self._endpoints = endpoints
        self._sequence = sequence
        uneven = len({e.weight for e in endpoints}) > 1
        self._stride = StaticStride([e.weight for e in endpoints]) if uneven else None

    def pick(self, rng: Rng) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none. Takes no chances."""
        endpoints = self._endpoints
        if not endpoints:
            return None
        if self._stride is not None:
            return endpoints[self._stride.next(self._sequence)]
        return endpoints[next(self._sequence) % len(endpoints)]
