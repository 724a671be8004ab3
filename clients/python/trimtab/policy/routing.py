"""Where a call goes: choosing an endpoint, versions, copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trimtab.policy.forms import Choice, Contradiction, Count, ListOf, MapOf, Nested, Number, Text, form, required
from trimtab.policy.quantities import Duration, Share
from trimtab.policy.words import HEADER, LABEL, NAME

ALGORITHMS = ("p2c", "least_request", "round_robin", "random", "ring_hash", "maglev", "pick_first")
HASHING = ("ring_hash", "maglev")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStart:
    """An endpoint that is new gets its share of traffic little by little."""

    window: float = form(Duration(), 30.0, "How long it takes to the full share.")
    aggression: float = form(Number(0.1, 10), 1.0, "1: linear; more: faster at first.")
    at_least: float = form(Share(0.01), 0.1, "Share of its weight to begin with.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HashKey:
    """What a hash is made of: the first that a call has. A call that has none goes anywhere."""

    header: str | None = form(HEADER, None, "A header (HTTP) or metadata key (gRPC).")
    argument: str | None = form(Text(64), None, "The argument of a guarded function, or key= of a call.")

    def contradictions(self) -> Iterator[Contradiction]:
        """Nothing to make a key of."""
        if self.header is None and self.argument is None:
            yield Contradiction("", "says nothing", "say header or argument")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """Endpoints in tiers, by a metadata key: a tier takes over what the ones before it cannot carry."""

    key: str = form(Text(63), "tier", "The metadata key whose value names an endpoint's tier.")
    tiers: tuple[str, ...] = form(
        ListOf(LABEL, 1, 16),
        ("primary", "standby"),
        "From the first choice to the last. Endpoints of no tier are the last.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Which endpoint a call goes to."""

    algorithm: str = form(
        Choice(ALGORITHMS, {"peak_ewma": "p2c", "p2c_ewma": "p2c"}),
        "p2c",
        "p2c: the better of two by latency and load (peak EWMA). All but pick_first go by weight.",
    )
    error_penalty: float = form(Duration(0.0), 1.0, "p2c: the latency that a failure counts as.")
    decay: float = form(Duration(0.01), 10.0, "p2c: how long the past matters.")
    locality: str = form(
        Choice(("any", "prefer-zone")),
        "any",
        "prefer-zone: the caller's own zone first, what it cannot carry elsewhere.",
    )
    failover: Failover | None = form(Nested(Failover, scalar="key"), None, "Primary and standby tiers.")
    panic: float = form(Share(), 0.0, "When fewer than this share may be called, health is ignored. 0%: never.")
    slow_start: SlowStart | None = form(Nested(SlowStart, scalar="window"), None, "Warm new endpoints up.")
    subset: int | None = form(Count(1, 10_000), None, "Call only so many of the endpoints, evenly spread over callers.")
    hash: HashKey | None = form(Nested(HashKey, scalar="header"), None, "The key, for ring_hash and maglev.")
    weights: str = form(
        Choice(("static", "load")),
        "static",
        "load: from what endpoints report of their load (gRFC A58), for round_robin.",
    )

    def contradictions(self) -> Iterator[Contradiction]:
        """A hash without a key, and settings of another algorithm."""
        if self.algorithm in HASHING and self.hash is None:
            yield Contradiction("algorithm", f"{self.algorithm} needs a key", "say hash: {header: NAME}")
        if self.algorithm not in HASHING and self.hash is not None:
            yield Contradiction("hash", f"{self.algorithm} has no use for it", "for ring_hash and maglev")
        if self.algorithm != "round_robin" and self.weights == "load":
            yield Contradiction("weights", f"{self.algorithm} has no use for load reports", "for round_robin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Traffic by version: shares of calls by the value of a metadata key. Versions without endpoints give theirs up."""

    key: str = form(Text(63), "version", "The metadata key.")
    weights: tuple[tuple[str, float], ...] = required(
        MapOf(LABEL, Number(0, 1_000_000)), "Value of the key to weight, as {v1: 90, v2: 10}. Others get nothing."
    )
    sticky: HashKey | None = form(
        Nested(HashKey, scalar="header"), None, "Calls with the same key get the same version."
    )

    def contradictions(self) -> Iterator[Contradiction]:
        """Weights that leave no version."""
        if not any(weight for _, weight in self.weights):
            yield Contradiction("weights", "all weights are 0", "give one of them more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Copies of calls to another service; their answers are thrown away and never slow a call down."""

    service: str = required(NAME, "The service that gets the copies, in the same namespace.")
    share: float = form(Share(), 1.0, "Share of calls that are copied.")
