"""A rate limit for each key: each caller, tenant or method has one of its own."""

from __future__ import annotations

from collections import OrderedDict

from trimtab.core.limiting.limiter import Limiter, build_limiter
from trimtab.policy.sections import Limit

KEYS = 10_000


class Keyed:
    """As many limiters as there are keys, at most ``keys``: those that were not used for longest are forgotten.

    A key that was forgotten begins anew, with a whole burst and nothing beyond: it has been quiet for as long as it took
    ``keys`` others to come.
    """

    __slots__ = ("_keys", "_limiters", "_settings")

    def __init__(self, settings: Limit, keys: int = KEYS) -> None:
        self._settings = settings
        self._keys = keys
        self._limiters: OrderedDict[str, Limiter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._limiters)

    def admit(self, key: str, now: float) -> float:
        """Answer a call of ``key``, as ``Limiter.admit`` does."""
        limiters = self._limiters
        limiter = limiters.get(key)
        if limiter is None:
            if len(limiters) >= self._keys:
                limiters.popitem(last=False)
            limiter = limiters[key] = build_limiter(self._settings)
        else:
            limiters.move_to_end(key)
        return limiter.admit(now)

    def change(self, settings: Limit, now: float) -> None:
        """Go on under other settings, as ``Limiter.change`` does for each key."""
        self._settings = settings
        for limiter in self._limiters.values():
            limiter.change(settings, now)

    def refund(self, key: str, start: float, now: float) -> None:
        """Give back the place of a call of ``key``, as ``Limiter.refund`` does. A key that was forgotten has none."""
        limiter = self._limiters.get(key)
        if limiter is not None:
            limiter.refund(start, now)
