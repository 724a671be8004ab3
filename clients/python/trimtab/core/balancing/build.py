"""The picker that a policy asks for, over a service as it is now.

Who may be called is narrowed down step by step: eligible and not ejected → versions of the split → tiers → zones →
subset → the algorithm's own picker, the leaf. What the policy does not ask for makes no step, and by default nothing is
between a call and its leaf. A leaf never looks at health or ejections again: each change of them makes a new picker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from trimtab.core.backoff import Rng
from trimtab.core.balancing.hashing import hash_key
from trimtab.core.balancing.least_request import LeastRequest
from trimtab.core.balancing.load_weight import RECOMPUTE, even_out
from trimtab.core.balancing.locality import by_zone
from trimtab.core.balancing.maglev import Maglev
from trimtab.core.balancing.peak_ewma import PeakEwma
from trimtab.core.balancing.pick_first import PickFirst
from trimtab.core.balancing.picker import Picker
from trimtab.core.balancing.priority import Count, panic_load, panics, priority_load, tiers
from trimtab.core.balancing.random_choice import RandomChoice
from trimtab.core.balancing.ring_hash import RingHash
from trimtab.core.balancing.round_robin import RoundRobin
from trimtab.core.balancing.shares import share_out
from trimtab.core.balancing.slow_start import next_step, warming
from trimtab.core.balancing.split import by_version
from trimtab.core.balancing.subset import subset
from trimtab.core.balancing.weighing import Weights
from trimtab.core.endpoints import DRAINING, Endpoint, ServiceState
from trimtab.policy.routing import HASHING
from trimtab.policy.sections import Balance, Split

Endpoints = Sequence[Endpoint]

# Which bits of a key each choice on the way to the leaf goes by (Shares). A ring goes by the topmost.
_VERSION_BITS, _TIER_BITS, _ZONE_BITS = 0, 16, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is known beside policy and state. Times in seconds of the clock of ``now``.

    ``since``: when endpoints were first seen healthy, by id; who is not in it is warm. ``load_weights``: by id, as
    ``LoadWeight`` gives them. ``sequence`` (consecutive integers) and ``favourites`` (``PickFirst``) belong to the
    service and outlive the picker.
    """

    now: float
    rng: Rng
    client_id: str = ""
    zone: str = ""
    ejected: Set[str] = frozenset()
    since: Mapping[str, float] = field(default_factory=dict)
    load_weights: Mapping[str, float] = field(default_factory=dict)
    sequence: Iterator[int] = field(default_factory=count)
    favourites: dict[str, None] = field(default_factory=dict)


class Built(NamedTuple):
    """A picker; when to build it anew even if nothing changes until then; whether it ignores health, in panic.

    ``reach``: how many endpoints it may pick.
    """

    picker: Picker
    refresh_at: float | None
    panicking: bool
    reach: int


def build(balance: Balance, split: Split | None, state: ServiceState, context: Context) -> Built:
    """Return the picker for ``state``. Raises MissingExtra when the policy needs hashes and xxhash is not installed.

    Ejected endpoints are left out while anybody else could be called.
    """
    weights, refresh_at = _weights(balance, state, context)
    builder = _Builder(balance, state, context, weights)
    picker = builder.choose(split)
    return Built(picker, refresh_at, builder.panicking, builder.reach)


def require(balance: Balance, split: Split | None) -> None:
    """Raises MissingExtra when no picker can be made here, whatever the state."""
    if balance.algorithm in HASHING or balance.subset is not None or (split is not None and split.sticky is not None):
        hash_key("")


def _weights(balance: Balance, state: ServiceState, context: Context) -> tuple[Weights | None, float | None]:
    """Return the weights by id where they are not the endpoints' own, and when they change by themselves."""
    weights: dict[str, float] = {}
    refresh_at: float | None = None
    endpoints = state.endpoints
    if balance.weights == "load" and balance.algorithm == "round_robin":
        weights = even_out({id_: context.load_weights.get(id_, 0.0) for id_ in endpoints})
        refresh_at = context.now + RECOMPUTE
    if balance.slow_start is not None:
        parts = warming(balance.slow_start, context.since, context.now)
        for id_ in parts.keys() & endpoints.keys():
            weights[id_] = weights.get(id_, endpoints[id_].weight) * parts[id_]
        if parts:
            step = next_step(balance.slow_start, context.now)
            refresh_at = step if refresh_at is None else min(step, refresh_at)
    return weights or None, refresh_at


class _Builder:
    """One use: the steps of one ``build``."""

    __slots__ = ("_balance", "_context", "_rng", "_state", "_weights", "panicking", "reach")

    def __init__(self, balance: Balance, state: ServiceState, context: Context, weights: Weights | None) -> None:
        self._balance = balance
        self._state = state
        self._context = context
        self._rng = context.rng
        self._weights = weights
        self.panicking = False
        self.reach = 0

    def choose(self, split: Split | None) -> Picker:
        """Return the picker of the whole."""
        balance, context = self._balance, self._context
        eligible = self._state.eligible()
        available = self._spared(eligible) if context.ejected else eligible
        prefers = balance.locality == "prefer-zone" and bool(context.zone)
        if split is None and balance.failover is None and not balance.panic and not prefers:
            return self._leaf(available, context.sequence)
        everybody = [e for e in self._state.endpoints.values() if e.weight and e.health != DRAINING]
        if split is None:
            return self._levels(available, everybody)
        return self._versions(split, available, eligible, everybody)

    def _spared(self, eligible: Endpoints) -> Endpoints:
        """Return those of ``eligible`` that are not ejected, all of them when nobody is left."""
        # Copying a mapping and taking a few out is several times faster than looking at each endpoint.
        spared = dict(self._state.candidates())
        for id_ in self._context.ejected:
            spared.pop(id_, None)
        return list(spared.values()) or eligible

    def _versions(self, split: Split, available: Endpoints, eligible: Endpoints, everybody: Endpoints) -> Picker:
        """By version; one that has nobody available gives its share up."""
        if split.sticky is not None:
            hash_key("")  # for its MissingExtra: now, and not with the first call that has a key
        live = by_version(available, split)
        if not any(live.values()):
            live = by_version(eligible, split)
        present = by_version(everybody, split)
        serving = live if any(live.values()) else present
        weights = {version: weight for version, weight in split.weights if serving.get(version)}
        if not weights:
            return self._leaf((), self._context.sequence)
        return share_out(
            [self._levels(live[version], present[version]) for version in weights],
            list(weights.values()),
            self._rng,
            _VERSION_BITS if split.sticky is not None else None,
        )

    def _levels(self, available: Endpoints, everybody: Endpoints) -> Picker:
        """By tier, and where too few are left in all tiers together, whoever there is."""
        balance = self._balance
        levels: list[tuple[Endpoints, Endpoints]] = [(available, everybody)]
        if balance.failover is not None:
            levels = list(zip(tiers(available, balance.failover), tiers(everybody, balance.failover), strict=True))
        counts = [Count(len(live), len(present)) for live, present in levels]
        panicking = panics(counts, balance.panic)
        self.panicking |= any(panicking)
        loads = panic_load(counts) if all(panicking) else priority_load(counts)
        members = [
            (present if ignores else live, present) for (live, present), ignores in zip(levels, panicking, strict=True)
        ]
        return self._share_out(
            [(self._zones(*member), load) for member, load in zip(members, loads, strict=True) if load], _TIER_BITS
        )

    def _zones(self, available: Endpoints, everybody: Endpoints) -> Picker:
        """The caller's zone first."""
        zone = self._context.zone
        if self._balance.locality != "prefer-zone" or not zone:
            return self._branch(available)
        levels = by_zone(available, zone)
        loads = priority_load([Count(len(a), len(b)) for a, b in zip(levels, by_zone(everybody, zone), strict=True)])
        return self._share_out(
            [(self._branch(level), load) for level, load in zip(levels, loads, strict=True) if load], _ZONE_BITS
        )

    def _share_out(self, branches: list[tuple[Picker, int]], bits: int) -> Picker:
        if not branches:
            return self._leaf((), self._context.sequence)
        hashes = self._balance.algorithm in HASHING
        return share_out(
            [picker for picker, _ in branches], [load for _, load in branches], self._rng, bits if hashes else None
        )

    def _branch(self, endpoints: Endpoints) -> Picker:
        """One leaf of several. A rotation of its own: of a shared one it might see only every other number."""
        return self._leaf(endpoints, count(int(self._rng.random() * 65_536)))

    def _leaf(self, endpoints: Endpoints, sequence: Iterator[int]) -> Picker:
        balance, rng, weights = self._balance, self._rng, self._weights
        if balance.subset is not None:
            endpoints = subset(endpoints, balance.subset, self._context.client_id)
        self.reach += len(endpoints)
        match balance.algorithm:
            case "p2c":
                return PeakEwma(endpoints, self._state.tallies, weights, rng, balance.decay)
            case "least_request":
                return LeastRequest(endpoints, self._state.tallies, weights, rng)
            case "round_robin":
                return RoundRobin(endpoints, weights, sequence)
            case "random":
                return RandomChoice(endpoints, weights, rng)
            case "ring_hash":
                return RingHash(endpoints, weights, rng)
            case "maglev":
                return Maglev(endpoints, weights, rng)
            case "pick_first":
                return PickFirst(endpoints, self._remembered(), rng)
        raise ValueError(f"no such algorithm: {balance.algorithm}")

    def _remembered(self) -> dict[str, None]:
        """The endpoints that ``pick_first`` stayed with, without those that left for good."""
        favourites = self._context.favourites
        for id_ in [id_ for id_ in favourites if id_ not in self._state.endpoints]:
            del favourites[id_]
        return favourites
