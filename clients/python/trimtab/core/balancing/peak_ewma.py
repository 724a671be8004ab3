"""Of two endpoints, the one that is likely to answer first: latency times load."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from trimtab.core.backoff import Rng
from trimtab.core.balancing.two_choices import TwoChoices
from trimtab.core.balancing.weighing import Weights
from trimtab.core.endpoints import Endpoint, Tally

# The latency of an endpoint that never answered while calls to it are under way: nobody sends more until one came back.
UNKNOWN = 86_400.0
# Costs that are less than this part of ``decay`` apart in time count as of one time: they err by a hundredth at most.
_MOMENT = 0.01


class PeakEwma(TwoChoices):
    """P2C by ``cost·(in_flight + 1)``, where cost is the peak EWMA of latencies (PeakEwma of twitter/finagle).

    ``Tally.observe`` keeps the cost; who calls it tells a failure as a penalty latency, for an endpoint that fails fast
    would draw all traffic otherwise. Costs decay with the time constant ``decay`` (seconds) also while nobody is
    looking, so that an endpoint that was slow is tried again. Only ratios matter, so of two costs the older one decays
    to the time of the newer one, and the present time drops out.
    """

    __slots__ = ("_decay", "_moment")

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        tallies: dict[str, Tally],
        weights: Weights | None,
        rng: Rng,
        decay: float = 10.0,
    ) -> None:
        super().__init__(endpoints, tallies, weights, rng)
        self._decay = decay
        self._moment = decay * _MOMENT

    def pick(self, now: float, key: int | None = None) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none."""
        for (one, tally), (other, rival) in self._pairs:
            burden, rivals = tally.cost, rival.cost
            if burden and rivals:
                age = tally.cost_at - rival.cost_at
                if age < -self._moment:
                    burden *= exp(age / self._decay)
                elif age > self._moment:
                    rivals *= exp(-age / self._decay)
                # Mostly nothing is under way, and looking is cheaper than multiplying.
                if tally.in_flight:
                    burden *= tally.in_flight + 1
                if rival.in_flight:
                    rivals *= rival.in_flight + 1
            else:
                burden, rivals = _guess(tally), _guess(rival)
            if self._alike and (self._certain or one.weight == other.weight):
                return one if burden <= rivals else other
            return self._better(one, other, burden, rivals)
        return None


def _guess(tally: Tally) -> float:
    """The burden of an endpoint when one of the two has not answered yet. Who was never called is worth a try."""
    if not tally.in_flight and not tally.cost:
        return 0.0
    return (tally.cost or UNKNOWN) * (tally.in_flight + 1)
