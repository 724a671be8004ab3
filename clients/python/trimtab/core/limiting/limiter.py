"""A rate limit, whichever algorithm it has.

One number answers a call: 0.0, go on; above 0, go on after so many seconds, the place is taken; below 0, refused, and a call
that comes so many seconds later would not be.
"""

from __future__ import annotations

from typing import Protocol

from trimtab.core.limiting.gcra import Gcra
from trimtab.core.limiting.warm_up import WarmUp
from trimtab.policy.sections import Limit


class Limiter(Protocol):
    """Says when a call may be sent. Times in seconds of one clock that never goes back."""

    def admit(self, now: float) -> float:
        """Return 0.0 to go on, the seconds to wait for the place that is taken, or less than 0 for a refusal."""
        ...

    def change(self, settings: Limit, now: float) -> None:
        """Go on under other settings, for which ``may_go_on`` holds: what was let through still counts.

        However often they change, no more calls pass than the largest burst and the rates of all times together allow.
        """
        ...

    def refund(self, start: float, now: float) -> None:
        """Give back the place of a call that was to start at ``start`` (its ``now`` plus its wait) and never will.

        At most once for a place. Only the newest place is of use to anybody: those behind another one have been told
        their turns, which stay as they are. After ``start`` a place comes back of itself little by little, and others are
        let in by that: nobody gets it twice.
        """
        ...


def may_go_on(before: Limit, after: Limit) -> bool:
    """Whether a limiter of the settings ``before`` can ``change`` to ``after``: of the same kind, for the same calls."""
    return (before.per, before.key, before.warm_up is None) == (after.per, after.key, after.warm_up is None)


def build_limiter(settings: Limit) -> Limiter:
    """Return the limiter for these settings, in the state that it has after a long rest."""
    return Gcra(settings) if settings.warm_up is None else WarmUp(settings, settings.warm_up)
