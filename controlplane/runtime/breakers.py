"""Circuit breakers as clients reported them last: which caller holds back from what, and why."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class BreakerState(IntEnum):
    """State of a circuit; the numbers are the wire's."""

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3
    FORCED_OPEN = 4
    DISABLED = 5


_WORST_FIRST = {
    BreakerState.OPEN: 0,
    BreakerState.FORCED_OPEN: 1,
    BreakerState.HALF_OPEN: 2,
    BreakerState.DISABLED: 3,
    BreakerState.CLOSED: 4,
}


class BreakerInfo(NamedTuple):
    """One circuit of one client. Times in seconds, ``age`` and ``retry_after`` as of now; ratios 0 to 1.

    ``endpoint`` or ``method`` say what it is for; neither: the whole service. ``retry_after`` is None unless OPEN.
    """

    node: str
    caller: str
    caller_namespace: str
    replica: str
    namespace: str
    service: str
    endpoint: str
    method: str
    state: BreakerState
    age: float
    calls: int
    failure_ratio: float
    slow_ratio: float
    retry_after: float | None

    @property
    def rank(self) -> tuple[int, str, str, str, str, str, str]:
        """Worst first, then by callee, scope and caller."""
        worst = _WORST_FIRST[self.state]
        return worst, self.namespace, self.service, self.endpoint, self.method, self.node, self.replica
