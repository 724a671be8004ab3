"""What the shopper saw: one record per call, and what can be asked of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# The shopper reports every 50 ms; seconds.
REPORT_LAG = 0.1


class Call(NamedTuple):
    """One call. Times are those of ``time.monotonic``, which all processes of a machine share.

    ``intended``: when it was due, whatever became of the calls before it. ``began``: when an endpoint was picked.
    ``tried``: the instances picked, the last one being that which answered or failed. ``discount``: of a new order.
    """

    intended: float
    began: float
    ended: float
    ok: bool
    tried: Sequence[str]
    discount: int | None
    error: str


class Traffic:
    """All calls since the start, in the order of their ends."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def mark(self) -> int:
        """Now, for ``since``."""
        return len(self.calls)

    def since(self, mark: int) -> Sequence[Call]:
        """Calls that ended after the mark."""
        return self.calls[mark:]

    def lately(self, now: float, seconds: float) -> Sequence[Call]:
        """Calls that ended within ``seconds`` up to ``now``, less the time that reports take to come in."""
        until = now - REPORT_LAG
        last = len(self.calls)
        while last and self.calls[last - 1].ended > until:
            last -= 1
        first = last
        while first and self.calls[first - 1].ended > until - seconds:
            first -= 1
        return self.calls[first:last]


def failed(calls: Sequence[Call]) -> Sequence[Call]:
    """Those that got no good answer."""
    return [call for call in calls if not call.ok]


def shares(calls: Sequence[Call]) -> dict[str, float]:
    """The share of the good answers that each instance gave, 0 to 1."""
    answers = Counter(call.tried[-1] for call in calls if call.ok)
    return {name: count / answers.total() for name, count in answers.items()}


def last_pick(calls: Sequence[Call], name: str, moment: float) -> float:
    """How long after ``moment`` a client still picked this instance, in seconds; 0 when it never did."""
    return max((call.began - moment for call in calls if name in call.tried and call.began > moment), default=0.0)


def answers(calls: Sequence[Call], name: str) -> Iterator[Call]:
    """The good answers of one instance."""
    return (call for call in calls if call.ok and call.tried[-1] == name)


def percentile(calls: Sequence[Call], share: float) -> float:
    """Time to the answer of this share of the good calls, from when they were due; milliseconds."""
    times = sorted(call.ended - call.intended for call in calls if call.ok)
    return times[min(len(times) - 1, int(len(times) * share))] * 1000 if times else 0.0
