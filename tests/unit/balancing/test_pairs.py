"""The streams of pairs: even, complete, and never the same twice where there is a choice."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.balancing.pairs import SHUFFLED, pairs, weighted_pairs
from trimtab.core.endpoints import Endpoint

from tests.unit.balancing.nouns import fleet


def itself(endpoint: Endpoint) -> Endpoint:
    return endpoint


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 60), seed=st.integers(0, 2**16))
def test_every_ordered_pair_of_two_different_ones_comes_up_once_in_a_cycle(count: int, seed: int) -> None:
    cycle = count * (count - 1)
    stream = pairs(fleet(count), random.Random(seed), itself)
    for _ in range(2):
        seen = Counter((one.id, other.id) for one, other in islice(stream, cycle))
        assert len(seen) == cycle
        assert set(seen.values()) == {1}
        assert all(one != other for one, other in seen)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, SHUFFLED), rounds=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_each_round_has_each_endpoint_once_in_each_place(count: int, rounds: int, seed: int) -> None:
    stream = pairs(fleet(count), random.Random(seed), itself)
    for _ in range(rounds):
        drawn = list(islice(stream, count))
        assert len({one.id for one, _ in drawn}) == count
        assert len({other.id for _, other in drawn}) == count


def test_two_processes_go_round_in_different_orders() -> None:
    endpoints = fleet(20)
    orders = [[one.id for one, _ in islice(pairs(endpoints, random.Random(seed), itself), 20)] for seed in (1, 2)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_many_endpoints_are_drawn_evenly_at_random() -> None:
    count = SHUFFLED + 44
    drawn = Counter(e.id for pair in islice(pairs(fleet(count), random.Random(1), itself), 30_000) for e in pair)
    assert len(drawn) == count
    assert min(drawn.values()) > 130  # 200 in the mean, standard deviation 14
    assert max(drawn.values()) < 270


@pytest.mark.parametrize("weight", [None, 0.0])
def test_of_nobody_there_are_no_pairs(weight: float | None) -> None:
    if weight is None:
        assert list(islice(pairs([], random.Random(1), itself), 3)) == []
    else:
        assert list(islice(weighted_pairs(fleet(2), [weight, weight], random.Random(1), itself), 3)) == []


def test_a_single_endpoint_is_paired_with_itself() -> None:
    (only,) = fleet(1)
    assert list(islice(pairs([only], random.Random(1), itself), 2)) == [(only, only)] * 2
    other = fleet(1, "x")[0]
    assert list(islice(weighted_pairs([other, only], [0.0, 3.0], random.Random(1), itself), 2)) == [(only, only)] * 2


@settings(max_examples=40, deadline=None)
@given(weights=st.lists(st.sampled_from([0.0, 1.0, 5.0, 100.0]), min_size=2, max_size=8), seed=st.integers(0, 2**16))
def test_weighted_pairs_are_two_different_ones_that_weigh_something(weights: list[float], seed: int) -> None:
    endpoints = fleet(len(weights))
    allowed = {e.id for e, weight in zip(endpoints, weights, strict=True) if weight}
    for one, other in islice(weighted_pairs(endpoints, weights, random.Random(seed), itself), 100):
        assert {one.id, other.id} <= allowed
        assert one != other or len(allowed) == 1


def test_the_first_of_a_weighted_pair_is_drawn_by_weight() -> None:
    stream = weighted_pairs(fleet(3), [1.0, 1.0, 8.0], random.Random(1), itself)
    firsts = Counter(one.id for one, _ in islice(stream, 10_000))
    assert 7800 < firsts["e2"] < 8200
    assert 880 < firsts["e0"] < 1120
