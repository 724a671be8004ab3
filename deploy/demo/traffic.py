"""What the shoppers saw: one record per call, and what can be asked of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Shoppers report every 50 ms; seconds.
REPORT_LAG = 0.1


class Call(NamedTuple):
    """One call. Times are those of ``time.monotonic``, which all processes of a machine share.

    ``what``: "order", "look-up" or "catalogue". ``intended``: when it was due, whatever became of the calls before it.
    ``began``: when an endpoint was picked. ``tried``: the instances picked, the last one being that which answered or failed.
    ``discount``: of a new order. The rest is from the SDK's trace: revision of the ``policy`` that held, the section that
    ``refused`` the call, where a ``fallback`` came from, and its ``age`` in seconds.
    """

    shopper: str
    what: str
    intended: float
    began: float
    ended: float
    ok: bool
    tried: Sequence[str]
    discount: int | None
    error: str
    policy: int = 0
    refused: str = ""
    fallback: str = ""
    age: float = 0.0

    @property
    def by(self) -> str:
        """The instance that gave the good answer; empty when none did."""
        return self.tried[-1] if self.ok and not self.fallback else ""


class Traffic:
    """All calls since the start, in the order in which they were reported."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def mark(self) -> int:
        """Now, for ``since``."""
        return len(self.calls)

    def since(self, mark: int) -> Sequence[Call]:
        """Calls that were reported after the mark."""
        return self.calls[mark:]

    def lately(self, now: float, seconds: float) -> Sequence[Call]:
        """Calls that ended within ``seconds`` up to ``now``, less the time that reports take to come in."""
        until = now - REPORT_LAG
        first = len(self.calls)
        # Each shopper reports in order; between them, reports are as old as they may be.
        while first and self.calls[first - 1].ended > until - seconds - REPORT_LAG:
            first -= 1
        return [call for call in self.calls[first:] if until - seconds < call.ended <= until]


def failed(calls: Sequence[Call]) -> Sequence[Call]:
    """Those that got no good answer, whoever is to blame."""
    return [call for call in calls if not call.ok]


def refused(calls: Sequence[Call]) -> Sequence[Call]:
    """Those that a policy kept from being sent, and that nothing stood in for."""
    return [call for call in calls if call.refused and not call.ok]


def stood_in(calls: Sequence[Call]) -> Sequence[Call]:
    """Those that were answered by a fallback."""
    return [call for call in calls if call.ok and call.fallback]


def under(calls: Sequence[Call], policy: int) -> Sequence[Call]:
    """Those that a policy of this revision held for."""
    return [call for call in calls if call.policy == policy]


def shares(calls: Sequence[Call]) -> dict[str, float]:
    """The share of the good answers that each instance gave, 0 to 1."""
    answers = Counter(call.by for call in calls if call.by)
    return {name: count / answers.total() for name, count in answers.items()}


def last_pick(calls: Sequence[Call], name: str, moment: float) -> float:
    """How long after ``moment`` a client still picked this instance, in seconds; 0 when it never did."""
    return max((call.began - moment for call in calls if name in call.tried and call.began > moment), default=0.0)


def answers(calls: Sequence[Call], name: str) -> Iterator[Call]:
    """The good answers of one instance."""
    return (call for call in calls if call.by == name)


def percentile(calls: Sequence[Call], share: float) -> float:
    """Time to the answer of this share of the good calls, from when they were due; milliseconds."""
    return quantile([(call.ended - call.intended) * 1000 for call in calls if call.ok], share)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
