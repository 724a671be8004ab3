"""Whom a picker chooses: known answers, shares by weight, and what must never be picked."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.endpoints import Endpoint, Health, ServiceState, Tally
from trimtab.core.p2c import LeastRequest
from trimtab.core.picker import ALGORITHMS, Algorithm, Picker, build_picker
from trimtab.core.round_robin import RoundRobin, StaticStride


def endpoint(name: str, weight: int = 100, health: Health = Health.HEALTHY) -> Endpoint:
    return Endpoint(name, "h", 1, weight, int(health), "", {})


def state_of(*endpoints: Endpoint, protected: bool = False) -> ServiceState:
    return ServiceState(
        "default/orders",
        1,
        1,
        {e.id: e for e in endpoints},
        {e.id: e for e in endpoints if e.health == Health.HEALTHY and e.weight},
        {e.id: e for e in endpoints if e.health == Health.SUSPECT and e.weight},
        protected,
    )


def busy(**calls: int) -> dict[str, Tally]:
    tallies = {name: Tally() for name in calls}
    for name, count in calls.items():
        for _ in range(count):
            tallies[name].start()
    return tallies


def shares(picker: Picker, picks: int, seed: int = 1) -> Counter[str]:
    rng = random.Random(seed)
    chosen = (picker.pick(rng) for _ in range(picks))
    return Counter(e.id for e in chosen if e is not None)


# gRFC A58's reference test: weights, picks, how often each is picked
@pytest.mark.parametrize(("weights", "picks", "counts"), [([1, 2, 3], 6, [1, 2, 3]), ([3, 0, 1], 6, [3, 2, 1])])
def test_the_static_stride_scheduler_gives_the_known_answers(weights: list[int], picks: int, counts: list[int]) -> None:
    stride = StaticStride(weights)
    sequence = itertools.count()
    chosen = Counter(stride.next(sequence) for _ in range(picks))
    assert [chosen[index] for index in range(len(weights))] == counts


def test_round_robin_takes_turns() -> None:
    picker = RoundRobin([endpoint("a"), endpoint("b"), endpoint("c")], itertools.count())
    rng = random.Random(1)
    turns = [picked.id for picked in (picker.pick(rng) for _ in range(6)) if picked is not None]
    assert turns == ["a", "b", "c", "a", "b", "c"]


def test_round_robin_goes_on_where_the_last_picker_left_it() -> None:
    sequence = itertools.count()
    first = RoundRobin([endpoint("a"), endpoint("b")], sequence)
    second = RoundRobin([endpoint("a"), endpoint("b")], sequence)
    rng = random.Random(1)
    picks = [first.pick(rng), second.pick(rng)]
    assert [p.id for p in picks if p is not None] == ["a", "b"]


def test_round_robin_follows_the_weights() -> None:
    picker = RoundRobin([endpoint("a", 100), endpoint("b", 300)], itertools.count())
    assert shares(picker, 400) == {"a": 100, "b": 300}


def test_least_request_spreads_evenly_over_idle_equals() -> None:
    counts = shares(LeastRequest([endpoint(name) for name in "abcd"], {}), 8000)
    assert min(counts.values()) > 1800
    assert max(counts.values()) < 2200


def test_least_request_avoids_the_busier_of_two() -> None:
    picker = LeastRequest([endpoint("busy"), endpoint("idle")], busy(busy=1))
    assert shares(picker, 100) == {"idle": 100}


def test_least_request_gives_an_idle_lighter_endpoint_its_share() -> None:
    counts = shares(LeastRequest([endpoint("heavy", 100), endpoint("light", 50)], {}), 9000)
    assert 0.30 < counts["light"] / 9000 < 0.37


def test_least_request_weighs_load_against_weight() -> None:
    counts = shares(LeastRequest([endpoint("heavy", 100), endpoint("light", 50)], busy(heavy=9)), 6000)
    # scores 100 / 10 and 50 / 1: one to five
    assert 0.80 < counts["light"] / 6000 < 0.87


def test_picks_in_a_row_load_all_endpoints_alike() -> None:
    endpoints = [endpoint(f"e{n}") for n in range(10)]
    tallies = {e.id: Tally() for e in endpoints}
    picker, rng = LeastRequest(endpoints, tallies), random.Random(3)
    for _ in range(1000):
        picked = picker.pick(rng)
        assert picked is not None
        tallies[picked.id].start()
    loads = [t.in_flight for t in tallies.values()]
    # Two choices keep the maximum within a few calls of the mean; one random choice would stray by some thirty.
    assert max(loads) - min(loads) <= 8


healths = st.sampled_from(list(Health))
fleets = st.lists(st.tuples(st.sampled_from([0, 1, 100, 65535]), healths), max_size=12)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=40, deadline=None)
@given(fleet=fleets, protected=st.booleans(), seed=st.integers(0, 2**16))
def test_a_picker_never_chooses_whom_it_must_not(
    algorithm: Algorithm, fleet: list[tuple[int, Health]], protected: bool, seed: int
) -> None:
    endpoints = [endpoint(f"e{n}", weight, health) for n, (weight, health) in enumerate(fleet)]
    state = state_of(*endpoints, protected=protected)
    picker, rng = build_picker(algorithm, state, itertools.count(seed)), random.Random(seed)
    allowed = {Health.HEALTHY, Health.SUSPECT} if protected else {Health.HEALTHY}
    for _ in range(20):
        picked = picker.pick(rng)
        if picked is None:
            assert not state.eligible()
            break
        assert picked.weight > 0
        assert picked.health in allowed
        assert picked in state.eligible()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=40, deadline=None)
@given(weights=st.lists(st.integers(1, 65535), min_size=1, max_size=6), seed=st.integers(0, 2**16))
def test_nobody_eligible_is_starved(algorithm: Algorithm, weights: list[int], seed: int) -> None:
    endpoints = [endpoint(f"e{n}", max(weight, max(weights) // 8)) for n, weight in enumerate(weights)]
    picker = build_picker(algorithm, state_of(*endpoints), itertools.count(seed))
    assert set(shares(picker, 600, seed)) == {e.id for e in endpoints}
