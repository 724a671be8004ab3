"""Hedging: further copies of a call that takes long, of which the first good answer wins.

Source: gRFC A6, hedging policy: a copy every ``delay`` until there is an answer; the next at once after a failure that is
not fatal; all of them under the callee's retry budget; pushback moves the next copy, or ends the sending of copies.
"""

from __future__ import annotations

from trimtab.core.retrying.budget import RetryBudget
from trimtab.policy.sections import Hedge


class Hedging:
    """The copies of one call, the first of which was sent at ``now``. Times in seconds of one clock, handed in.

    ``due``: when the next copy is to be sent; None: there will be none. ``under_way``: copies without an answer.
    """

    __slots__ = ("_delay", "_left", "due", "under_way")

    def __init__(self, settings: Hedge, now: float) -> None:
        self._delay = settings.delay
        self._left = settings.attempts - 1
        self.under_way = 1
        self.due: float | None = now + settings.delay

    def take(self, now: float, budget: RetryBudget) -> bool:
        """Whether to send another copy now; if so it is taken, from the budget too. A budget that refuses ends it."""
        if self.due is None or now < self.due:
            return False
        if not budget.allows(now):
            self.due = None
            return False
        self._left -= 1
        self.under_way += 1
        self.due = now + self._delay if self._left else None
        return True

    def failed(self, now: float, *, fatal: bool = False, pushback: float | None = None) -> bool:
        """A copy failed. Returns whether the call has, with it: copies still under way are then to be given up.

        ``fatal``: a copy elsewhere would fail as well. ``pushback``: as in ``Outcome``.
        """
        self.under_way -= 1
        if fatal:
            self.due = None
            return True
        if pushback is not None and pushback < 0:
            self.due = None
        elif self.due is not None:
            self.due = now + (pushback or 0.0)
        return not self.under_way and self.due is None
