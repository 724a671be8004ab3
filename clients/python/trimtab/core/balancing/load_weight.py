"""An endpoint's weight from what it reports of its load: how many calls it serves for the CPU that it uses.

Source: gRFC A58, ``weight = qps / (utilization + eps/qps·error_penalty)``.
"""

from __future__ import annotations

BLACKOUT = 10.0  # reports are believed when they have come for so long (seconds)
EXPIRY = 180.0  # and no longer than this after the last one (seconds)
RECOMPUTE = 1.0  # how often pickers are made anew from the weights (seconds)
ERROR_PENALTY = 1.0
# Far beyond what a machine can do: a figure that is garbage must not make the sum of all weights infinite.
LEAST, MOST = 1e-9, 1e15


class LoadWeight:
    """The reports of one endpoint."""

    __slots__ = ("_since", "_updated", "_weight")

    def __init__(self) -> None:
        self._weight = 0.0
        self._since: float | None = None
        self._updated = 0.0

    def report(self, now: float, qps: float, eps: float, utilization: float) -> None:
        """Take a report: calls and errors a second, and the share of the machine in use. Empty ones are ignored."""
        if qps <= 0 or utilization <= 0:
            return
        self._weight = min(MOST, max(LEAST, qps / (utilization + eps / qps * ERROR_PENALTY)))
        self._updated = now
        if self._since is None:
            self._since = now

    def restart(self) -> None:
        """Believe reports only after another blackout: the endpoint was away."""
        self._since = None

    def weight(self, now: float) -> float:
        """Return the weight, 0 while it is not known."""
        if self._since is None:
            return 0.0
        if now - self._updated >= EXPIRY:
            self._since = None
            return 0.0
        return self._weight if now - self._since >= BLACKOUT else 0.0


def even_out(weights: dict[str, float]) -> dict[str, float]:
    """Return the weights by id, those that are not known (0) as the mean of the others; all alike with fewer than two known."""
    known = [weight for weight in weights.values() if weight > 0]
    if len(known) < 2:
        return dict.fromkeys(weights, 1.0)
    mean = sum(known) / len(known)
    return {id_: weight if weight > 0 else mean for id_, weight in weights.items()}
