"""Calls of one key go to one endpoint: Maglev's table, a look-up without a search, shares more even than a ring's.

When an endpoint leaves, few keys move beside its own. Sources: Eisenbud et al., Maglev (NSDI 2016), listing 1;
envoyproxy/envoy ``maglev_lb.cc`` for weights.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import cycle, islice, repeat
from math import ceil

from trimtab.core.backoff import Rng
from trimtab.core.balancing.hashing import hash_key
from trimtab.core.balancing.ring_hash import KEYS, by_target
from trimtab.core.balancing.weighing import Weights
from trimtab.core.endpoints import Endpoint

SIZE = 65_537  # a prime, as each member's walk must reach all places
_SHORT = 65_536  # members whose indices fit in two bytes


@lru_cache(maxsize=32)
def table(members: tuple[tuple[str, float], ...], size: int = SIZE) -> array[int]:
    """Return for each place the index of the member there. ``members``: targets and weights, sorted by target.

    Each member walks over all places, from ``offset`` in steps of ``skip``, and takes the first free one whenever its
    turn comes. Cached by its contents: filling one of the usual size takes up to a tenth of a second.
    Raises MissingExtra without xxhash.
    """
    at = [hash_key(target) % size for target, _ in members]
    skips = [hash_key(target, 1) % (size - 1) + 1 for target, _ in members]
    free = [True] * size
    filled = array("H" if len(members) <= _SHORT else "L", repeat(0, size))
    for index in _turns([weight for _, weight in members], size):
        place, skip = at[index], skips[index]
        while not free[place]:
            place = (place + skip) % size
        free[place] = False
        filled[place] = index
        at[index] = place
    return filled


def _turns(weights: Sequence[float], size: int) -> Iterable[int]:
    """Whose turn it is, ``size`` times: the heaviest in each round, one of a third of its weight in each third round."""
    count, heaviest = len(weights), max(weights)
    if min(weights) == heaviest:
        return islice(cycle(range(count)), size)
    # The nth turn of a member is in round max(n + 1, ceil(n·heaviest/weight)), n from 0; in a round, all keep their order.
    rounds = ceil(size * heaviest / sum(weights)) + 1
    turns: list[int] = []
    for index, weight in enumerate(weights):
        due = int(rounds * weight / heaviest) + 1
        turns += [max(n + 1, ceil(n * heaviest / weight)) * count + index for n in range(due)]
    turns.sort()
    return [turn % count for turn in islice(turns, size)]


class Maglev:
    """Picks what the table has at the call's key; anywhere for a call that has none."""

    __slots__ = ("_endpoints", "_random", "_size", "_table")

    def __init__(self, endpoints: Sequence[Endpoint], weights: Weights | None, rng: Rng, size: int = SIZE) -> None:
        self._random = rng.random
        self._size = size
        self._endpoints, members = by_target(endpoints, weights)
        self._table = table(members, size) if members else None

    def pick(self, now: float, key: int | None = None) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none."""
        if self._table is None:
            return None
        if key is None:
            key = int(self._random() * KEYS)
        return self._endpoints[self._table[key % self._size]]
