"""The load of a service's endpoints, as they report it to this process."""

from __future__ import annotations

from collections.abc import Container

from trimtab.core.balancing.load_weight import RECOMPUTE, LoadWeight
from trimtab.core.orca import LoadReport


class Loads:
    """The reports of all endpoints, by id. Times in seconds of one monotonic clock.

    Kept under the service's lock but for ``asks``, of which too many do no harm.
    """

    __slots__ = ("_ask_at", "_weights")

    def __init__(self) -> None:
        self._weights: dict[str, LoadWeight] = {}
        self._ask_at: dict[str, float] = {}

    def asks(self, id_: str, now: float) -> bool:
        """Whether an attempt that begins now is to ask its endpoint. One does as often as weights are computed anew."""
        if now < self._ask_at.get(id_, now):
            return False
        self._ask_at[id_] = now + RECOMPUTE
        return True

    def report(self, id_: str, report: LoadReport, now: float) -> None:
        """An endpoint told of its load."""
        weight = self._weights.get(id_)
        if weight is None:
            weight = self._weights[id_] = LoadWeight()
        weight.report(now, report.qps, report.eps, report.utilization)

    def take_over(self, before: Loads) -> None:
        """Go on from the reports that another one was given."""
        self._weights, self._ask_at = before._weights.copy(), before._ask_at.copy()

    def retain(self, known: Container[str], eligible: Container[str]) -> None:
        """Forget who is not ``known`` any more; who may not be called begins anew when it may be again."""
        self._weights = {id_: weight for id_, weight in self._weights.items() if id_ in known}
        self._ask_at = {id_: at for id_, at in self._ask_at.items() if id_ in known}
        for id_, weight in self._weights.items():
            if id_ not in eligible:
                weight.restart()

    def weights(self, now: float) -> dict[str, float]:
        """Return the weights by id, 0 while one is not known."""
        return {id_: weight.weight(now) for id_, weight in self._weights.items()}
