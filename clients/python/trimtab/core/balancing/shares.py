"""Several pickers, each for its share of the calls."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate

from trimtab.core.backoff import Rng
from trimtab.core.balancing.picker import Picker
from trimtab.core.endpoints import Endpoint

_PART = 65536


class Shares:
    """Chooses a picker by share, which chooses the endpoint.

    ``sticky``: calls of one key go to one picker, by the 16 bits of the key from this one on. Choices that follow each
    other need different bits, or the second would know no more than the first. None: by chance, whatever the key.
    """

    __slots__ = ("_last", "_pickers", "_random", "_sticky", "_up_to")

    def __init__(self, pickers: Sequence[Picker], shares: Sequence[float], rng: Rng, sticky: int | None) -> None:
        self._pickers = pickers
        self._up_to = list(accumulate(shares))
        self._last = len(pickers) - 1
        self._random = rng.random
        self._sticky = sticky

    def pick(self, now: float, key: int | None = None) -> Endpoint | None:
        """Return the endpoint for the next call, None when the chosen picker has none."""
        up_to, sticky = self._up_to, self._sticky
        at = self._random() if key is None or sticky is None else (key >> sticky) % _PART / _PART
        return self._pickers[bisect(up_to, at * up_to[-1], 0, self._last)].pick(now, key)


def share_out(pickers: Sequence[Picker], shares: Sequence[float], rng: Rng, sticky: int | None) -> Picker:
    """Return one picker for all, the only one itself where one has everything. Shares must not all be 0."""
    some = [(picker, share) for picker, share in zip(pickers, shares, strict=True) if share > 0]
    if len(some) == 1:
        return some[0][0]
    return Shares([picker for picker, _ in some], [share for _, share in some], rng, sticky)
