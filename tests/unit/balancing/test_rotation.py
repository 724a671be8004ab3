"""Round robin and its static stride scheduler, random choice, pick first."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.balancing.pick_first import PickFirst
from trimtab.core.balancing.random_choice import RandomChoice
from trimtab.core.balancing.round_robin import RoundRobin
from trimtab.core.balancing.stride import StaticStride

from tests.unit.balancing.nouns import counts, endpoint, fleet


def strides(weights: list[float], picks: int) -> list[int]:
    stride, sequence = StaticStride(weights), itertools.count()
    chosen = Counter(stride.next(sequence) for _ in range(picks))
    return [chosen[index] for index in range(len(weights))]


# grpc/grpc test/core/load_balancing/static_stride_scheduler_test.cc
@pytest.mark.parametrize(
    ("weights", "picks", "expected"),
    [
        ([1, 2, 3], 6, [1, 2, 3]),  # PicksAreWeightedExactly
        ([3, 0, 1], 6, [3, 2, 1]),  # ZeroWeightUsesMean
        ([300, 300, 0], 9, [3, 3, 3]),  # AllWeightsEqualIsRoundRobin
        ([81, *[1] * 19], 69, [50, *[1] * 19]),  # MaxIsClampedForHighRatio
        ([100, 1e-10], 201, [200, 1]),  # MinIsClampedForHighRatio
    ],
)
def test_the_static_stride_scheduler_gives_the_known_answers(
    weights: list[float], picks: int, expected: list[int]
) -> None:
    assert strides(weights, picks) == expected


def test_the_heaviest_is_picked_in_every_generation() -> None:
    # LargestIsPickedEveryGeneration of the same file: 65535 generations, 2 picks in the mean of each
    assert strides([1, 2, 3], 65_535 * 2)[2] == 65_535


def test_a_rotation_made_anew_goes_on_as_if_it_were_the_old_one() -> None:
    # RebuildGiveSamePicks of the same file
    sequence, again = itertools.count(), itertools.count()
    stride = StaticStride([1, 2, 3])
    assert [stride.next(sequence) for _ in range(100)] == [StaticStride([1, 2, 3]).next(again) for _ in range(100)]


def test_weights_that_are_all_unknown_make_a_plain_rotation() -> None:
    assert strides([0, 0, 0], 9) == [3, 3, 3]


def test_a_sequence_that_ends_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="must not end"):
        StaticStride([1, 2]).next(iter([]))


def test_round_robin_takes_turns() -> None:
    picker = RoundRobin(fleet(3), None, itertools.count())
    turns = [picked.id for picked in (picker.pick(0.0) for _ in range(6)) if picked is not None]
    assert turns == ["e0", "e1", "e2"] * 2


def test_round_robin_goes_on_where_the_last_picker_left_it() -> None:
    sequence = itertools.count()
    picks = [RoundRobin(fleet(2), None, sequence).pick(0.0) for _ in range(2)]
    assert [picked.id for picked in picks if picked is not None] == ["e0", "e1"]


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.integers(10, 60), min_size=1, max_size=8), start=st.integers(0, 2**20))
def test_round_robin_follows_the_weights(weights: list[int], start: int) -> None:
    endpoints = [endpoint(f"e{n}", weight) for n, weight in enumerate(weights)]
    picks = 50 * sum(weights)
    shares = counts(RoundRobin(endpoints, None, itertools.count(start)), picks)
    for each in endpoints:
        assert abs(shares[each.id] - 50 * each.weight) <= 0.02 * picks


def test_a_random_choice_follows_the_weights() -> None:
    weighted = RandomChoice([endpoint("a", 100), endpoint("b", 300)], {"c": 5.0}, random.Random(1))
    assert 0.73 < counts(weighted, 10_000)["b"] / 10_000 < 0.77
    assert min(counts(RandomChoice(fleet(4), None, random.Random(1)), 8000).values()) > 1800


def test_what_weighs_nothing_is_not_drawn() -> None:
    picker = RandomChoice(fleet(3), {"e0": 0.0, "e2": 0.0}, random.Random(1))
    assert counts(picker, 100) == {"e1": 100}


def test_the_first_choice_stays_while_it_is_there() -> None:
    favourites: dict[str, None] = {}
    rng = random.Random(1)
    first = PickFirst(fleet(5), favourites, rng).pick(0.0)
    assert first is not None
    for _ in range(20):
        assert PickFirst(fleet(9), favourites, rng).pick(0.0) == first


def test_a_first_choice_that_comes_back_does_not_push_its_successor_out() -> None:
    favourites: dict[str, None] = {}
    rng = random.Random(1)
    first = PickFirst(fleet(5), favourites, rng).pick(0.0)
    assert first is not None
    second = PickFirst([e for e in fleet(5) if e != first], favourites, rng).pick(0.0)
    assert second not in (None, first)
    assert PickFirst(fleet(5), favourites, rng).pick(0.0) == second


def test_callers_spread_their_first_choices() -> None:
    firsts = [PickFirst(fleet(5), {}, random.Random(seed)).pick(0.0) for seed in range(60)]
    assert {e.id for e in firsts if e is not None} == {e.id for e in fleet(5)}


def test_nobody_there_is_nobody_to_pick() -> None:
    assert RoundRobin([], None, itertools.count()).pick(0.0) is None
    assert RandomChoice([], None, random.Random(1)).pick(0.0) is None
    assert PickFirst([], {}, random.Random(1)).pick(0.0) is None
