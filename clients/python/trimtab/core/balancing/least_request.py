"""Of two endpoints, the one with fewer calls of this process under way."""

from __future__ import annotations

from trimtab.core.balancing.two_choices import TwoChoices
from trimtab.core.endpoints import Endpoint


class LeastRequest(TwoChoices):
    """P2C by requests in flight, score ``weight / (in_flight + 1)`` (Envoy's least request, gRFC A48)."""

    __slots__ = ()

    def pick(self, now: float, key: int | None = None) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none."""
        tally_of = self._tally
        for one, other in self._pairs:
            # Nobody has called an endpoint that has no tally.
            tally = tally_of(one.id)
            busy = tally.in_flight if tally is not None else 0
            tally = tally_of(other.id)
            rival = tally.in_flight if tally is not None else 0
            if self._alike and (self._certain or one.weight == other.weight):
                return one if busy <= rival else other
            return self._better(one, other, busy + 1, rival + 1)
        return None
