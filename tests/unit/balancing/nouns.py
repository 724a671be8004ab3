"""Short ways to say endpoints, services and what pickers did with them."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from trimtab.core.balancing.build import Built, Context, build
from trimtab.core.balancing.picker import Picker
from trimtab.core.endpoints import Endpoint, Health, ServiceState, Tally
from trimtab.policy.sections import Balance, Split


def endpoint(
    name: str,
    weight: int = 100,
    health: Health = Health.HEALTHY,
    zone: str = "",
    metadata: Mapping[str, str] | None = None,
    port: int = 80,
) -> Endpoint:
    return Endpoint(name, f"host-{name}", port, weight, int(health), zone, metadata or {})


def fleet(count: int, prefix: str = "e", **same: Any) -> list[Endpoint]:
    return [endpoint(f"{prefix}{number}", **same) for number in range(count)]


def hosts(*ports: int) -> list[Endpoint]:
    """The hosts of Envoy's tests: 127.0.0.1 with different ports."""
    return [Endpoint(str(port), "127.0.0.1", port, 1, int(Health.HEALTHY), "", {}) for port in ports]


def state_of(endpoints: Iterable[Endpoint], protected: bool = False) -> ServiceState:
    by_id = {e.id: e for e in endpoints}
    return ServiceState(
        "default/orders",
        1,
        1,
        by_id,
        {e.id: e for e in by_id.values() if e.health == Health.HEALTHY and e.weight},
        {e.id: e for e in by_id.values() if e.health == Health.SUSPECT and e.weight},
        protected,
    )


def busy(**calls: int) -> dict[str, Tally]:
    tallies = {name: Tally() for name in calls}
    for name, count in calls.items():
        for _ in range(count):
            tallies[name].in_flight += 1
    return tallies


def known(now: float = 0.0, **costs: float) -> dict[str, Tally]:
    tallies = {name: Tally() for name in costs}
    for name, seconds in costs.items():
        tallies[name].observe(now, seconds, 10.0)
    return tallies


def counts(picker: Picker, picks: int, keys: Iterable[int | None] = itertools.repeat(None)) -> Counter[str]:
    chosen = (picker.pick(0.0, key) for _, key in zip(range(picks), keys, strict=False))
    return Counter(e.id for e in chosen if e is not None)


def keys(seed: int = 1) -> Iterable[int]:
    rng = random.Random(seed)
    while True:
        yield rng.getrandbits(64)


def built(
    balance: Balance,
    endpoints: Iterable[Endpoint],
    split: Split | None = None,
    *,
    seed: int = 1,
    now: float = 0.0,
    protected: bool = False,
    **context: Any,
) -> Built:
    return build(balance, split, state_of(endpoints, protected), Context(now=now, rng=random.Random(seed), **context))
