"""Calls of one key go to one endpoint: a ring of hashes, each endpoint on it as often as it weighs.

When an endpoint leaves, few keys move beside its own. Sources: gRFC A42 and A76, envoyproxy/envoy ``ring_hash_lb.cc``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from trimtab.core.backoff import Rng
from trimtab.core.balancing.hashing import hash_key
from trimtab.core.balancing.weighing import Weights, weigh
from trimtab.core.endpoints import Endpoint

MINIMUM, MAXIMUM = 1024, 4096
KEYS = 2.0**64


class Ring(NamedTuple):
    """Positions in ascending order, and for each the index of the member there."""

    positions: tuple[int, ...]
    members: tuple[int, ...]


@lru_cache(maxsize=32)
def ring(members: tuple[tuple[str, float], ...], minimum: int = MINIMUM, maximum: int = MAXIMUM) -> Ring:
    """Return the ring of ``members``: targets and weights, sorted by target. Raises MissingExtra without xxhash.

    Cached by its contents, so that a change that leaves the members alone costs no ring. It has ``minimum`` positions or
    a few more, so that the lightest member gets a whole number of them, but never more than ``maximum``; and where that
    is fewer than there are members, one for each of them.
    """
    total = sum(weight for _, weight in members)
    lightest = min(weight for _, weight in members)
    positions, of = ceil(minimum * lightest / total), lightest
    if positions * total > (most := max(maximum, len(members))) * of:
        positions, of = most, total
    placed: list[tuple[int, int]] = []
    so_far = 0.0
    for index, (target, weight) in enumerate(members):
        # Running sums: where a member is due a part of a position, the parts of several add up to one.
        so_far += weight
        copies = max(0, ceil(positions * so_far / of) - len(placed))
        placed += [(hash_key(f"{target}_{copy}"), index) for copy in range(copies)]
    placed.sort()
    return Ring(tuple(at for at, _ in placed), tuple(index for _, index in placed))


class RingHash:
    """Picks by the first position at or behind the call's key; anywhere for a call that has none."""

    __slots__ = ("_endpoints", "_random", "_ring")

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        weights: Weights | None,
        rng: Rng,
        minimum: int = MINIMUM,
        maximum: int = MAXIMUM,
    ) -> None:
        self._random = rng.random
        self._endpoints, members = by_target(endpoints, weights)
        self._ring = ring(members, minimum, maximum) if members else None

    def pick(self, now: float, key: int | None = None) -> Endpoint | None:
        """Return the endpoint for the next call, None when there is none."""
        if self._ring is None:
            return None
        if key is None:
            key = int(self._random() * KEYS)
        positions, members = self._ring
        at = bisect_left(positions, key)
        return self._endpoints[members[at if at < len(positions) else 0]]


def by_target(
    endpoints: Sequence[Endpoint], weights: Weights | None
) -> tuple[list[Endpoint], tuple[tuple[str, float], ...]]:
    """Return those that weigh something, sorted by target, and beside them their targets and weights.

    In this order all processes build the same tables from the same members.
    """
    weighed = weigh(endpoints, weights) or [1.0] * len(endpoints)
    found = sorted(
        (endpoint.target, endpoint.id, index, weight)
        for index, (endpoint, weight) in enumerate(zip(endpoints, weighed, strict=True))
        if weight > 0
    )
    return [endpoints[index] for _, _, index, _ in found], tuple((target, weight) for target, _, _, weight in found)
