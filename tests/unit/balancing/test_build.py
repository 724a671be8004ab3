"""What a policy makes of a service: who may be picked, in which shares, and that nobody is lost on the way."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.balancing.build import Context, build
from trimtab.core.balancing.least_request import LeastRequest
from trimtab.core.balancing.peak_ewma import PeakEwma
from trimtab.core.balancing.round_robin import RoundRobin
from trimtab.core.endpoints import Endpoint, Health
from trimtab.policy.sections import Balance, Failover, HashKey, SlowStart, Split

from tests.unit.balancing.nouns import built, counts, endpoint, fleet, keys, known, state_of

ALGORITHMS = ("p2c", "least_request", "round_robin", "random", "ring_hash", "maglev", "pick_first")
ROTATING = Balance(algorithm="round_robin")

healths = st.sampled_from(list(Health))
fleets = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 100, 65535]),
        healths,
        st.sampled_from(["", "a", "b"]),
        st.sampled_from(["primary", "standby", "other"]),
        st.booleans(),
    ),
    max_size=12,
)
balances = st.builds(
    Balance,
    # maglev's tables of the usual size take too long for so many fleets, and are made by the same way as the ring's
    algorithm=st.sampled_from([name for name in ALGORITHMS if name != "maglev"]),
    locality=st.sampled_from(["any", "prefer-zone"]),
    failover=st.sampled_from([None, Failover()]),
    panic=st.sampled_from([0.0, 0.0, 0.5]),
    slow_start=st.sampled_from([None, SlowStart()]),
    subset=st.sampled_from([None, 2]),
    weights=st.sampled_from(["static", "load"]),
)
splits = st.sampled_from([None, Split(key="tier", weights=(("primary", 90.0), ("standby", 10.0), ("gone", 5.0)))])


def made(told: list[tuple[int, Health, str, str, bool]]) -> tuple[list[Endpoint], frozenset[str]]:
    endpoints = [
        endpoint(f"e{n}", weight, health, zone, {"tier": tier})
        for n, (weight, health, zone, tier, _) in enumerate(told)
    ]
    return endpoints, frozenset(e.id for e, (*_, out) in zip(endpoints, told, strict=True) if out)


@settings(max_examples=100, deadline=None)
@given(told=fleets, balance=balances, split=splits, protected=st.booleans(), seed=st.integers(0, 2**16))
def test_nobody_is_picked_who_must_not_be(
    told: list[tuple[int, Health, str, str, bool]], balance: Balance, split: Split | None, protected: bool, seed: int
) -> None:
    endpoints, ejected = made(told)
    state = state_of(endpoints, protected)
    context = Context(
        now=100.0,
        rng=random.Random(seed),
        zone="a",
        client_id="caller",
        ejected=ejected,
        since={e.id: 90.0 for e in endpoints[::2]},
        load_weights={e.id: 5.0 + n for n, e in enumerate(endpoints[::3])},
    )
    made_of = build(balance, split, state, context)
    versions = dict(split.weights) if split else {e.metadata["tier"]: 1.0 for e in endpoints}
    allowed = [e for e in state.eligible() if e.metadata["tier"] in versions]
    spared = [e for e in allowed if e.id not in ejected]
    for key in (None, *itertools.islice(keys(seed), 19)):
        picked = made_of.picker.pick(100.0, key)
        if picked is None:
            # Nobody is lost by ejections, tiers, zones or subsets.
            assert not allowed
        elif made_of.panicking:
            assert picked.weight > 0
            assert picked.health != Health.DRAINING
        else:
            assert picked in (spared or allowed)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "pick_first"])
def test_nobody_who_may_be_called_is_starved(algorithm: str) -> None:
    endpoints = [endpoint(f"e{n}", weight) for n, weight in enumerate([50, 100, 100, 200, 300])]
    for seed in range(5):
        picker = built(Balance(algorithm=algorithm), endpoints, seed=seed).picker
        assert set(counts(picker, 1000)) == {e.id for e in endpoints}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_ejected_are_left_out_while_there_are_others(algorithm: str) -> None:
    balance = Balance(algorithm=algorithm)
    assert counts(built(balance, fleet(3), ejected=frozenset({"e0", "e2", "gone"})).picker, 50) == {"e1": 50}
    assert counts(built(balance, fleet(1), ejected=frozenset({"e0"})).picker, 50) == {"e0": 50}


def test_under_protection_suspects_can_be_ejected_too() -> None:
    endpoints = [endpoint("well"), *(endpoint(f"s{n}", health=Health.SUSPECT) for n in range(3))]
    picker = built(ROTATING, endpoints, protected=True, ejected=frozenset({"s1"})).picker
    assert counts(picker, 30) == {"well": 10, "s0": 10, "s2": 10}


def test_by_default_nothing_stands_between_a_call_and_its_leaf() -> None:
    made_of = built(Balance(), fleet(3))
    assert isinstance(made_of.picker, PeakEwma)
    assert made_of.refresh_at is None
    assert not made_of.panicking
    assert isinstance(built(ROTATING, fleet(3)).picker, RoundRobin)
    assert isinstance(built(Balance(algorithm="least_request"), fleet(3)).picker, LeastRequest)


def test_the_policy_says_how_long_the_past_matters() -> None:
    state = state_of(fleet(2))
    state.tallies.update({**known(0.0, e0=1.0), **known(10.0, e1=0.010)})
    short, long = (
        build(Balance(decay=decay), None, state, Context(now=10.0, rng=random.Random(1))) for decay in (1.0, 10.0)
    )
    assert counts(short.picker, 10) == {"e0": 10}  # 1 s · e^−10
    assert counts(long.picker, 10) == {"e1": 10}  # 1 s · e^−1


def test_an_unknown_algorithm_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no such algorithm: guess"):
        built(Balance(algorithm="guess"), fleet(1))


# Versions


def versions(**of: int) -> list[Endpoint]:
    return [e for version, count in of.items() for e in fleet(count, version, metadata={"version": version})]


def parts(shares: Counter[str]) -> dict[str, float]:
    """By the letters of the ids, without their numbers."""
    found = Counter[str]()
    for name, count in shares.items():
        found[name.rstrip("0123456789")] += count
    return {name: count / found.total() for name, count in found.items()}


CANARY = Split(weights=(("old", 90.0), ("canary", 10.0), ("next", 0.0)))


def test_versions_get_their_shares_whatever_their_numbers_of_endpoints() -> None:
    shares = parts(counts(built(ROTATING, versions(old=2, canary=8, other=5, next=3), CANARY).picker, 20_000))
    assert shares.keys() == {"old", "canary"}
    assert 0.09 < shares["canary"] < 0.11


def test_a_version_without_endpoints_gives_its_share_up() -> None:
    assert parts(counts(built(ROTATING, versions(canary=2, other=2), CANARY).picker, 100)) == {"canary": 1.0}
    out = built(ROTATING, versions(old=1, canary=2), CANARY, ejected=frozenset({"old0"}))
    assert parts(counts(out.picker, 100)) == {"canary": 1.0}


def test_ejections_alone_leave_no_split_without_endpoints() -> None:
    out = built(ROTATING, versions(old=1, other=2), CANARY, ejected=frozenset({"old0"}))
    assert counts(out.picker, 10) == {"old0": 10}


def test_a_split_of_nobody_picks_nobody() -> None:
    assert built(ROTATING, versions(other=2), CANARY).picker.pick(0.0) is None


def test_a_sticky_split_keeps_the_calls_of_a_key_together() -> None:
    sticky = Split(weights=CANARY.weights, sticky=HashKey(header="x-user"))
    one, other = (built(ROTATING, versions(old=2, canary=2), sticky, seed=seed).picker for seed in (1, 2))
    for key in itertools.islice(keys(), 300):
        first, second = one.pick(0.0, key), other.pick(0.0, key)
        assert first is not None
        assert second is not None
        assert first.metadata == second.metadata
    assert 0.09 < parts(counts(one, 20_000, keys()))["canary"] < 0.11


def test_a_split_that_is_not_sticky_does_not_look_at_the_key() -> None:
    picker = built(ROTATING, versions(old=1, canary=1), CANARY).picker
    assert counts(picker, 500, itertools.repeat(7)).keys() == {"old0", "canary0"}


def test_a_sticky_version_and_a_ring_in_it_use_different_bits_of_the_key() -> None:
    sticky = Split(weights=(("a", 50.0), ("b", 50.0)), sticky=HashKey(header="x-user"))
    endpoints = versions(a=4, b=4)
    shares = counts(built(Balance(algorithm="ring_hash"), endpoints, sticky).picker, 40_000, keys())
    assert min(shares.values()) > 0.5 * 5000
    assert max(shares.values()) < 1.5 * 5000


# Tiers, zones, panic


def tiers(primary: str, standby: str) -> list[Endpoint]:
    """One endpoint for each letter: h(ealthy), d(raining), u(nhealthy)."""
    of = {"h": Health.HEALTHY, "d": Health.DRAINING, "u": Health.UNHEALTHY}
    return [
        endpoint(f"{tier}{n}", health=of[letter], metadata={"tier": tier})
        for tier, letters in (("primary", primary), ("standby", standby))
        for n, letter in enumerate(letters)
    ]


FAILOVER = Balance(algorithm="round_robin", failover=Failover())


@pytest.mark.parametrize(
    ("primary", "standby", "share"),
    [
        ("hh", "hh", 1.0),
        ("hhu", "hh", 0.93),
        ("hu", "hh", 0.7),
        ("huuu", "hh", 0.35),
        ("uu", "hh", 0.0),
        ("hd", "hh", 1.0),
    ],
)
def test_a_tier_takes_over_what_the_one_before_it_cannot_carry(primary: str, standby: str, share: float) -> None:
    shares = parts(counts(built(FAILOVER, tiers(primary, standby)).picker, 20_000))
    assert shares.get("primary", 0.0) == pytest.approx(share, abs=0.015)


def test_the_ejected_of_a_tier_are_missing_there() -> None:
    shares = parts(
        counts(built(FAILOVER, tiers("hhhh", "hh"), ejected=frozenset({"primary0", "primary1"})).picker, 20_000)
    )
    assert shares["primary"] == pytest.approx(0.7, abs=0.015)


def test_endpoints_of_no_tier_serve_last() -> None:
    assert counts(built(FAILOVER, [*tiers("u", "u"), endpoint("spare")]).picker, 10) == {"spare": 10}


def test_the_own_zone_comes_first_and_spills_over() -> None:
    near, far = fleet(4, "near", zone="a"), fleet(8, "far", zone="b")
    balance = Balance(algorithm="round_robin", locality="prefer-zone")
    assert parts(counts(built(balance, [*near, *far], zone="a").picker, 100)) == {"near": 1.0}
    sick = [near[0], near[1], *(e._replace(health=int(Health.UNHEALTHY)) for e in near[2:]), *far]
    assert parts(counts(built(balance, sick, zone="a").picker, 20_000))["near"] == pytest.approx(0.7, abs=0.015)
    for elsewhere in ("c", ""):
        assert set(counts(built(balance, [*near, *far], zone=elsewhere).picker, 120).values()) == {10}


def test_calls_of_a_key_stay_in_their_zone_and_spread_evenly_there() -> None:
    endpoints = [
        *fleet(2, "near", zone="a"),
        *fleet(2, "sick", zone="a", health=Health.UNHEALTHY),
        *fleet(4, "far", zone="b"),
    ]
    balance = Balance(algorithm="ring_hash", locality="prefer-zone")
    one, other = (built(balance, endpoints, zone="a", seed=seed).picker for seed in (1, 2))
    for key in itertools.islice(keys(), 200):
        assert one.pick(0.0, key) == other.pick(0.0, key)
    shares = counts(one, 20_000, keys())
    assert parts(shares)["near"] == pytest.approx(0.7, abs=0.015)
    assert 0.25 < shares["near0"] / 20_000 < 0.45


PANIC = Balance(algorithm="round_robin", panic=0.5)


def test_in_panic_all_but_the_draining_are_called() -> None:
    made_of = built(PANIC, [*tiers("huuud", ""), endpoint("none", weight=0)])
    assert made_of.panicking
    assert counts(made_of.picker, 40) == {f"primary{n}": 10 for n in range(4)}


def test_there_is_no_panic_while_enough_are_left_or_the_policy_knows_none() -> None:
    for balance, endpoints in [
        (PANIC, tiers("hhuu", "")),
        (ROTATING, tiers("huuu", "")),
        (FAILOVER, tiers("huuu", "huuu")),
    ]:
        made_of = built(balance, endpoints)
        assert not made_of.panicking
        assert set(counts(made_of.picker, 40)) <= {e.id for e in endpoints if e.health == Health.HEALTHY}


def test_there_is_no_panic_while_other_tiers_can_take_over() -> None:
    balance = Balance(algorithm="round_robin", panic=0.5, failover=Failover())
    made_of = built(balance, tiers("huuu", "hh"))
    assert not made_of.panicking
    assert counts(made_of.picker, 1000).keys() == {"primary0", "standby0", "standby1"}


def test_when_all_tiers_panic_calls_spread_by_how_many_there_are() -> None:
    balance = Balance(algorithm="round_robin", panic=0.5, failover=Failover())
    made_of = built(balance, tiers("uuuu", "huuuuu"))
    assert made_of.panicking
    shares = counts(made_of.picker, 20_000)
    assert len(shares) == 10
    assert parts(shares)["primary"] == pytest.approx(0.4, abs=0.015)


def test_nobody_healthy_and_no_panic_is_nobody_to_pick() -> None:
    for balance in (ROTATING, FAILOVER, Balance(locality="prefer-zone")):
        assert built(balance, tiers("uu", "u"), zone="a").picker.pick(0.0) is None
    assert built(PANIC, tiers("uu", "")).picker.pick(0.0) is not None


def test_a_split_of_the_sick_panics_rather_than_picking_nobody() -> None:
    sick = [e._replace(health=int(Health.UNHEALTHY)) for e in versions(old=2, canary=2)]
    made_of = built(PANIC, sick, CANARY)
    assert made_of.panicking
    assert len(counts(made_of.picker, 1000)) == 4


# Subsets


def test_a_subset_is_the_callers_own_and_stays() -> None:
    balance = Balance(algorithm="round_robin", subset=5)
    endpoints = fleet(40)
    subsets = [set(counts(built(balance, endpoints, client_id=f"c{n}").picker, 100)) for n in range(60)]
    assert {len(subset) for subset in subsets} == {5}
    assert subsets[7] == set(counts(built(balance, endpoints[::-1], client_id="c7", seed=9).picker, 100))
    covered = Counter(id_ for subset in subsets for id_ in subset)
    assert len(covered) == 40  # 300 places, 7.5 for each in the mean
    assert max(covered.values()) <= 18


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 30), leaver=st.integers(0, 29), client=st.integers(0, 1000))
def test_a_subset_changes_by_one_at_most_when_an_endpoint_leaves(count: int, leaver: int, client: int) -> None:
    balance = Balance(algorithm="round_robin", subset=4)
    endpoints = fleet(count)
    gone = endpoints.pop(leaver % count)
    before, after = (
        set(counts(built(balance, those, client_id=f"c{client}").picker, 100))
        for those in ([*endpoints, gone], endpoints)
    )
    assert len(after) == min(4, count - 1)
    assert len(before - after) <= 1
    assert before - after <= {gone.id}


# Weights that change by themselves


def test_a_new_endpoint_gets_its_part_of_the_traffic_and_the_time_of_its_next_one() -> None:
    balance = Balance(algorithm="random", slow_start=SlowStart(window=20.0))
    made_of = built(balance, fleet(2), now=100.0, since={"e0": 90.0, "e1": 20.0, "gone": 99.0})
    assert made_of.refresh_at == 101.0
    assert counts(made_of.picker, 15_000)["e0"] / 15_000 == pytest.approx(1 / 3, abs=0.015)
    assert built(balance, fleet(2), now=200.0, since={"e0": 90.0}).refresh_at is None


LOADED = Balance(algorithm="round_robin", weights="load")


def test_turns_go_by_reported_load() -> None:
    made_of = built(LOADED, fleet(3), now=100.0, load_weights={"e0": 100.0, "e1": 300.0})
    assert made_of.refresh_at == 101.0
    assert counts(made_of.picker, 600) == {"e0": 100, "e1": 300, "e2": 200}
    assert counts(built(LOADED, [endpoint("a", 1), endpoint("b", 9)]).picker, 100) == {"a": 50, "b": 50}


def test_slow_start_and_load_go_together() -> None:
    balance = Balance(algorithm="round_robin", weights="load", slow_start=SlowStart(window=100.0))
    made_of = built(balance, fleet(2), now=100.0, since={"e1": 50.0}, load_weights={"e0": 100.0, "e1": 100.0})
    assert made_of.refresh_at == 101.0
    assert counts(made_of.picker, 300) == {"e0": 200, "e1": 100}


# What belongs to the service


def test_a_rotation_goes_on_over_changes_of_the_service() -> None:
    sequence = itertools.count()
    picks = [built(ROTATING, fleet(3), sequence=sequence).picker.pick(0.0) for _ in range(6)]
    assert [e.id for e in picks if e is not None] == ["e0", "e1", "e2"] * 2


def test_pick_first_stays_over_changes_and_forgets_who_left() -> None:
    favourites: dict[str, None] = {}
    balance = Balance(algorithm="pick_first")
    first = built(balance, fleet(6), favourites=favourites).picker.pick(0.0)
    assert first is not None
    assert built(balance, fleet(9), favourites=favourites, seed=5).picker.pick(0.0) == first
    rest = [e for e in fleet(6) if e != first]
    second = built(balance, rest, favourites=favourites).picker.pick(0.0)
    assert second is not None
    assert favourites == {second.id: None}


@pytest.mark.parametrize(
    ("balance", "zone", "reach"),
    [
        pytest.param(Balance(), "a", 9, id="everybody healthy"),
        pytest.param(Balance(locality="prefer-zone"), "a", 4, id="the own zone"),
        pytest.param(Balance(failover=Failover()), "", 6, id="the first tier"),
        pytest.param(Balance(subset=2), "", 2, id="a subset"),
    ],
)
def test_it_is_known_how_many_may_be_picked(balance: Balance, zone: str, reach: int) -> None:
    endpoints = [
        *fleet(4, "a", zone="a", metadata={"tier": "primary"}),
        *fleet(2, "b", zone="b", metadata={"tier": "primary"}),
        *fleet(3, "c", zone="b", metadata={"tier": "standby"}),
        endpoint("d", health=Health.UNHEALTHY, zone="b", metadata={"tier": "standby"}),
    ]
    assert built(balance, endpoints, zone=zone, client_id="me").reach == reach


def test_the_ejected_cannot_be_picked_unless_nobody_else_can() -> None:
    assert built(Balance(), fleet(3), ejected={"e0"}).reach == 2
    assert built(Balance(), fleet(3), ejected={"e0", "e1", "e2"}).reach == 3
