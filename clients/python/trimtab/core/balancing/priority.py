"""How much of the traffic each level of endpoints carries: failover by degrees, and panic.

Source: envoyproxy/envoy ``load_balancer_impl.cc`` (the tables of its documentation differ from it in several rows).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from trimtab.core.endpoints import Endpoint
from trimtab.policy.sections import Failover

# A level is as good as whole while its available endpoints, with 40 % added, are.
_OVERPROVISIONING = 140


class Count(NamedTuple):
    """How many of a level's endpoints are available."""

    available: int
    total: int


def health(count: Count) -> int:
    """Return how much of a level's share it can carry, in percent."""
    if not count.available:
        return 0
    # At least 1: one endpoint of hundreds is still somebody.
    return min(100, max(1, _OVERPROVISIONING * count.available // count.total))


def priority_load(counts: Sequence[Count]) -> list[int]:
    """Return the percentage of traffic for each level, 100 in all; zeros when nobody is available.

    ``load = min(left, h·100 // min(100, Σh))``; what rounding leaves goes to the first level with ``h > 0``.
    """
    healths = [health(count) for count in counts]
    total = min(100, sum(healths))
    loads, left = [], 100
    for each in healths:
        load = min(left, each * 100 // total) if each else 0
        loads.append(load)
        left -= load
    if total:
        loads[next(at for at, each in enumerate(healths) if each)] += left
    return loads


def panics(counts: Sequence[Count], threshold: float) -> list[bool]:
    """Return for each level whether its health is to be ignored: less than the share ``threshold`` of it is available.

    Only when all levels together cannot carry the traffic (``Σh < 100``). An empty level panics with the others.
    """
    if not threshold or sum(map(health, counts)) >= 100:
        return [False] * len(counts)
    return [count.available < threshold * count.total or not count.total for count in counts]


def panic_load(counts: Sequence[Count]) -> list[int]:
    """Return the percentage of traffic for each level when all panic: by how many endpoints there are, 100 in all.

    What rounding leaves goes to the first level that has any.
    """
    total = sum(count.total for count in counts)
    loads = [100 * count.total // total if total else 0 for count in counts]
    if total:
        loads[next(at for at, count in enumerate(counts) if count.total)] += 100 - sum(loads)
    return loads


def tiers(endpoints: Iterable[Endpoint], failover: Failover) -> list[list[Endpoint]]:
    """Return the endpoints of each tier by their metadata, and behind the last tier those that belong to none."""
    ranks = {name: rank for rank, name in enumerate(failover.tiers)}
    none = len(ranks)
    found: list[list[Endpoint]] = [[] for _ in range(none + 1)]
    for endpoint in endpoints:
        found[ranks.get(endpoint.metadata.get(failover.key, ""), none)].append(endpoint)
    return found
