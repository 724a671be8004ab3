"""Of two endpoints, the one with fewer calls of this process under way."""

from __future__ import annotations

from trimtab.core.balancing.two_choices import TwoChoices
from trimtab.core.endpoints import Endpoint


class LeastRequest(TwoChoices):
    """P2C by requests in flight, score ``weight / (in_flight + 1)`` (Envoy's least request, gRFC A48)."""

    __slots__ = ()

    def pick(self, now: float, key: int | None = None) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none."""
        for (one, tally), (other, rival) in self._pairs:
            if self._alike and (self._certain or one.weight == other.weight):
                return one if tally.in_flight <= rival.in_flight else other
            return self._better(one, other, tally.in_flight + 1, rival.in_flight + 1)
        return None
