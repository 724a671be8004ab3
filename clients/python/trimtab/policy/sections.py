"""The sections of a policy, each the settings of one behaviour. Times in seconds, shares 0 to 1.

The defaults and their sources are those of the algorithms themselves, in ``trimtab.core``. A section overrides whole: what
it does not say takes the default written here, never a value of a wider policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trimtab.policy.answers import Abort, Cache, Delay, Fallback, Fault
from trimtab.policy.attempts import Budget, Hedge, Retry, Timeout, TokenThrottle
from trimtab.policy.circuits import Breaker, FailurePercentage, Outlier, SuccessRate
from trimtab.policy.forms import Choice, Contradiction, Leaf, Nested
from trimtab.policy.limits import Adaptive, Concurrency, Limit, Server, Throttle
from trimtab.policy.routing import Balance, Failover, HashKey, Mirror, SlowStart, Split
from trimtab.policy.sentences import OpenWhen
from trimtab.policy.words import EVENTS, GRPC_CODES

__all__ = [
    "EVENTS",
    "GRPC_CODES",
    "OFF",
    "PRIORITY",
    "SECTIONS",
    "Abort",
    "Adaptive",
    "Balance",
    "Breaker",
    "Budget",
    "Cache",
    "Concurrency",
    "Delay",
    "Failover",
    "FailurePercentage",
    "Fallback",
    "Fault",
    "HashKey",
    "Hedge",
    "Limit",
    "Mirror",
    "Off",
    "OpenWhen",
    "Outlier",
    "Retry",
    "Sections",
    "Server",
    "SlowStart",
    "Split",
    "SuccessRate",
    "Throttle",
    "Timeout",
    "TokenThrottle",
]

PRIORITY = Choice(("low", "normal", "high", "critical"))


class Off:
    """The section is switched off here, whatever a wider policy says. ``OFF`` is the only one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "OFF"

    def __reduce__(self) -> str:
        return "OFF"  # copies and pickles are the same object, so that ``is OFF`` holds


OFF = Off()

# In the order in which a call meets them. The priority is a word, not a section, and cannot be off.
SECTIONS: dict[str, Nested | Leaf] = {
    "timeout": Nested(Timeout, scalar="total"),
    "priority": PRIORITY,
    "fault": Nested(Fault),
    "limit": Nested(Limit, scalar="rate"),
    "throttle": Nested(Throttle, scalar="k"),
    "concurrency": Nested(Concurrency, scalar="limit"),
    "breaker": Nested(Breaker, scalar="open_when"),
    "balance": Nested(Balance, scalar="algorithm"),
    "split": Nested(Split),
    "outlier": Nested(Outlier, scalar="consecutive"),
    "retry": Nested(Retry, scalar="attempts"),
    "hedge": Nested(Hedge, scalar="delay"),
    "mirror": Nested(Mirror, scalar="service"),
    "fallback": Nested(Fallback),
    "server": Nested(Server, scalar="concurrency"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """What one place of a document says. None: nothing, a wider place decides. ``OFF``: not here."""

    timeout: Timeout | Off | None = None
    priority: str | None = None
    fault: Fault | Off | None = None
    limit: Limit | Off | None = None
    throttle: Throttle | Off | None = None
    concurrency: Concurrency | Off | None = None
    breaker: Breaker | Off | None = None
    balance: Balance | Off | None = None
    split: Split | Off | None = None
    outlier: Outlier | Off | None = None
    retry: Retry | Off | None = None
    hedge: Hedge | Off | None = None
    mirror: Mirror | Off | None = None
    fallback: Fallback | Off | None = None
    server: Server | Off | None = None

    def contradictions(self) -> Iterator[Contradiction]:
        """Two ways to send a call several times."""
        if isinstance(self.retry, Retry) and isinstance(self.hedge, Hedge):
            yield Contradiction("hedge", "there is a retry in the same place", "one of the two")
