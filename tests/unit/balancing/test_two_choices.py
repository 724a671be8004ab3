"""Least request, and what it shares with peak EWMA: of two, the one with less to do; by weight when weights differ."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.balancing.least_request import LeastRequest
from trimtab.core.balancing.peak_ewma import PeakEwma
from trimtab.core.balancing.two_choices import TwoChoices
from trimtab.core.balancing.weighing import Weights
from trimtab.core.endpoints import Endpoint, Tally

from tests.unit.balancing.nouns import busy, counts, endpoint, fleet, known

Make = Callable[[Sequence[Endpoint], Mapping[str, Tally], Weights | None, random.Random], LeastRequest | PeakEwma]
BOTH = pytest.mark.parametrize("make", [LeastRequest, PeakEwma])


def least_request(
    endpoints: Sequence[Endpoint], tallies: Mapping[str, Tally] | None = None, weights: Weights | None = None
) -> LeastRequest:
    return LeastRequest(endpoints, tallies or {}, weights, random.Random(1))


def test_least_request_takes_turns_between_idle_equals() -> None:
    assert set(counts(least_request(fleet(7)), 700).values()) == {100}


def test_least_request_avoids_the_busier_of_two() -> None:
    assert counts(least_request(fleet(2), busy(e0=1)), 100) == {"e1": 100}


def test_least_request_weighs_load_against_weight() -> None:
    picker = least_request([endpoint("heavy", 100), endpoint("light", 50)], busy(heavy=9))
    # scores 100 / 10 and 50 / 1: every call that was drawn for the heavy one moves, one in five of the others does
    assert 0.91 < counts(picker, 6000)["light"] / 6000 < 0.955


def test_calls_that_do_not_end_load_all_endpoints_alike() -> None:
    endpoints = fleet(10)
    tallies = {e.id: Tally() for e in endpoints}
    picker = least_request(endpoints, tallies)
    for _ in range(1000):
        picked = picker.pick(0.0)
        assert picked is not None
        tallies[picked.id].in_flight += 1
    loads = [tally.in_flight for tally in tallies.values()]
    assert max(loads) - min(loads) <= 4


@BOTH
@settings(max_examples=40, deadline=None)
@given(weights=st.lists(st.integers(1, 20), min_size=2, max_size=6), seed=st.integers(0, 2**16))
def test_shares_follow_the_weights_while_all_do_equally_well(make: Make, weights: list[int], seed: int) -> None:
    endpoints = [endpoint(f"e{number}", weight) for number, weight in enumerate(weights)]
    tallies = known(**{e.id: 0.01 for e in endpoints})
    shares = counts(make(endpoints, tallies, None, random.Random(seed)), 4000)
    for each in endpoints:
        assert abs(shares[each.id] / 4000 - each.weight / sum(weights)) < 0.05


@BOTH
def test_weights_given_by_id_stand_before_those_of_the_endpoints(make: Make) -> None:
    shares = counts(make(fleet(3), known(e0=0.01, e1=0.01, e2=0.01), {"e1": 10.0}, random.Random(1)), 21_000)
    assert 0.03 < shares["e1"] / 21_000 < 0.065  # 10 of 210


@BOTH
def test_given_weights_that_are_all_alike_make_a_rotation(make: Make) -> None:
    assert set(counts(make(fleet(4), {}, {"e0": 100}, random.Random(1)), 40).values()) == {10}


@BOTH
def test_weights_are_found_to_differ_among_many_endpoints(make: Make) -> None:
    light, heavy = fleet(300, "light", weight=1), fleet(300, "heavy", weight=9)
    picker = make([*light, *heavy], {}, None, random.Random(1))
    shares = counts(picker, 30_000)
    assert 0.88 < sum(count for name, count in shares.items() if name.startswith("heavy")) / 30_000 < 0.92


@BOTH
def test_many_equals_all_get_calls(make: Make) -> None:
    endpoints = fleet(300)
    assert len(counts(make(endpoints, known(**{e.id: 0.01 for e in endpoints}), None, random.Random(1)), 30_000)) == 300


@BOTH
def test_what_weighs_nothing_is_not_called(make: Make) -> None:
    assert counts(make(fleet(3), {}, {"e1": 0.0}, random.Random(1)), 300).keys() == {"e0", "e2"}


@BOTH
def test_nobody_there_is_nobody_to_pick(make: Make) -> None:
    picker = make([], {}, None, random.Random(1))
    assert isinstance(picker, TwoChoices)
    assert picker.pick(0.0) is None
    assert make(fleet(2), {}, {"e0": 0.0, "e1": 0.0, "e2": 1.0}, random.Random(1)).pick(0.0) is not None


@BOTH
def test_a_single_endpoint_is_always_picked(make: Make) -> None:
    assert counts(make(fleet(1), busy(e0=50), None, random.Random(1)), 10) == {"e0": 10}
