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

    def refund(self, start: float) -> None:
        """Give back the place of a call that was to start at ``start`` (its ``now`` plus its wait) and never will.

        At most once for a place. Only the newest place is of use to anybody: those behind another one have been told
        their turns, which stay as they are.
        """
        ...


def build_limiter(settings: Limit) -> Limiter:
    """Return the limiter for these settings, in the state that it has after a long rest."""
    return Gcra(settings) if settings.warm_up is None else WarmUp(settings, settings.warm_up)
