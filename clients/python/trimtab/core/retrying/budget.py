"""How much is tried again: limits that keep retries from becoming the load that a struggling callee cannot bear.

Sources: gRFC A6 (the token throttle); Finagle's ``RetryBudget`` (a share of the calls of the last seconds) and Envoy's
(never fewer than so many at the same time). One budget serves all calls to a callee, of any method, and hedged copies too.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from trimtab.policy import sections

_SECONDS = 10.0
_STEP = 0.5
_MILLI = 1000


class RetryBudget(Protocol):
    """What retries are taken from. Not thread-safe; times in seconds of one clock, handed in.

    Every attempt whose outcome counts ends with ``succeeded`` or ``failed``, a retry like a first one. A retry (or a copy)
    begins where ``allows`` says so, which takes it from the budget, and says ``released`` when it ended with an outcome that
    counts, ``forgone`` when it ended without one.
    """

    attentive: bool
    """Whether an attempt that went well changes anything; if not, it need not be told."""

    def succeeded(self, now: float) -> None:
        """An attempt went well."""
        ...

    def failed(self, now: float, costs: bool = True) -> None:
        """An attempt failed by its callee's fault. ``costs``: in a way that is worth another attempt."""
        ...

    def allows(self, now: float) -> bool:
        """Whether one more retry may begin. If so, it is taken."""
        ...

    def released(self) -> None:
        """A retry ended."""
        ...

    def forgone(self) -> None:
        """A retry ended, and nobody tells how: it was given up, or never sent."""
        ...


class TokenThrottle:
    """gRFC A6's: a failure worth another attempt costs a token, a success earns ``ratio``, and retries need more than half.

    Counts in thousandths, as A6 has it: digits of ``ratio`` beyond the third do not matter, and nothing drifts.
    """

    __slots__ = ("_full", "_half", "_ratio", "_tokens", "attentive")

    def __init__(self, settings: sections.TokenThrottle) -> None:
        self._full = self._tokens = round(settings.tokens * _MILLI)
        self._half = self._full / 2
        self.attentive = False  # a full bucket earns nothing
        self._ratio = round(settings.ratio * _MILLI)

    @property
    def tokens(self) -> float:
        """What is left."""
        return self._tokens / _MILLI

    def succeeded(self, now: float) -> None:
        """Earn a share of a token."""
        self._tokens = min(self._tokens + self._ratio, self._full)
        self.attentive = self._tokens < self._full

    def failed(self, now: float, costs: bool = True) -> None:
        """Pay a token, for what is worth another attempt."""
        if not costs:
            return
        self._tokens = max(self._tokens - _MILLI, 0)
        self.attentive = True

    def allows(self, now: float) -> bool:
        """Whether there are enough tokens. Takes none: that is what failing costs."""
        return self._tokens > self._half

    def released(self) -> None:
        """Nothing: a retry has paid, or earned, by how it ended."""

    def forgone(self) -> None:
        """Nothing."""


class _Step(NamedTuple):
    """How many first attempts and retries there had been when half a second began."""

    began: float
    firsts: int
    retries: int


class RatioBudget:
    """Retries for a share of the first attempts of the last 10 s, and always ``at_least`` so many at the same time.

    The window moves on by half a second. An attempt counts when it ends, a retry when it begins.
    """

    __slots__ = ("_edge", "_firsts", "_retries", "_returned", "_settings", "_steps", "attentive", "under_way")

    def __init__(self, settings: sections.Budget) -> None:
        self._settings = settings
        self._firsts = 0
        self._retries = 0
        self._returned = 0  # retries that ended, and whose outcome is still to be told from a first attempt's
        self._steps: deque[_Step] = deque()
        self._edge = 0.0
        self.attentive = True
        self.under_way = 0

    def succeeded(self, now: float) -> None:
        """Count a first attempt."""
        if now >= self._edge:
            self._move(now)
        if self._returned:
            self._returned -= 1
        else:
            self._firsts += 1

    def failed(self, now: float, costs: bool = True) -> None:
        """Count a first attempt."""
        self.succeeded(now)

    def allows(self, now: float) -> bool:
        """Whether the share is not used up, or few enough are under way."""
        settings = self._settings
        self._move(now)
        _, firsts, retries = self._steps[0]
        within = self._retries - retries + 1 <= settings.ratio * (self._firsts - firsts)
        if not within and self.under_way >= settings.at_least:
            return False
        self._retries += 1
        self.under_way += 1
        return True

    def released(self) -> None:
        """A retry ended."""
        self.under_way -= 1
        self._returned += 1

    def forgone(self) -> None:
        """A retry ended whose outcome nobody tells."""
        self.under_way -= 1

    def _move(self, now: float) -> None:
        steps = self._steps
        if not steps or now >= self._edge:
            steps.append(_Step(now, self._firsts, self._retries))
            self._edge = now + _STEP
        while steps[0].began <= now - _SECONDS - _STEP:
            steps.popleft()


def build_budget(settings: sections.Retry) -> RetryBudget:
    """The budget that a policy asks for; A6's throttle with its defaults where it asks for none."""
    if settings.budget is not None:
        return RatioBudget(settings.budget)
    return TokenThrottle(settings.throttle or sections.TokenThrottle())
