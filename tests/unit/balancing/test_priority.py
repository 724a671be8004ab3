"""Load by priority, failover, panic: Envoy's known answers, and that nothing is ever lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.balancing.priority import Count, health, panic_load, panics, priority_load, tiers
from trimtab.policy.sections import Failover

from tests.unit.balancing.nouns import endpoint

# envoyproxy/envoy test/extensions/load_balancing_policies/common/load_balancer_impl_base_test.cc
# (available, total) of each level → percent of the load. OverProvisioningFactor, GentleFailover, GentleFailoverWithExtraLevels.
LOADS = [
    ([(1, 1), (1, 1)], [100, 0]),
    ([(1, 2), (1, 2)], [70, 30]),
    ([(2, 4), (2, 4)], [70, 30]),
    ([(1, 4), (2, 2)], [35, 65]),
    ([(1, 4), (1, 4)], [50, 50]),
    ([(0, 1), (0, 2), (1, 1)], [0, 0, 100]),
    ([(1, 1), (1, 1), (1, 1)], [100, 0, 0]),
    ([(1, 2), (1, 2), (1, 2)], [70, 30, 0]),
    ([(1, 4), (2, 2), (1, 2)], [35, 65, 0]),
    ([(1, 4), (1, 4), (1, 4)], [35, 35, 30]),
    ([(1, 5), (1, 5), (1, 5)], [34, 33, 33]),
    ([(0, 5), (0, 5), (5, 5)], [0, 0, 100]),
    ([(0, 5), (0, 5), (4, 5)], [0, 0, 100]),
]
# the same tests, where all levels panic: by how many hosts there are
PANIC_LOADS = [
    ([(0, 1), (0, 1)], [50, 50]),
    ([(0, 1), (0, 2)], [34, 66]),
    ([(0, 4), (1, 4)], [50, 50]),
    ([(0, 4), (1, 6)], [40, 60]),
    ([(0, 5), (0, 5), (2, 5)], [34, 33, 33]),
    ([(0, 5), (0, 3), (0, 2)], [50, 30, 20]),
    ([(0, 5), (2, 6), (1, 3)], [37, 42, 21]),
    ([(0, 0), (0, 6), (0, 3)], [0, 67, 33]),
]
# whether each level panics below 50 %
PANICS = [
    ([(1, 1), (1, 1)], [False, False]),
    ([(1, 2), (1, 2)], [False, False]),
    ([(1, 4), (2, 2)], [False, False]),
    ([(1, 4), (1, 4)], [True, True]),
    ([(1, 5), (1, 5), (1, 5)], [True, True, True]),
    ([(0, 5), (0, 5), (4, 5)], [False, False, False]),
    ([(0, 5), (0, 5), (2, 5)], [True, True, True]),
    ([(0, 0), (0, 6), (0, 3)], [True, True, True]),
]

Levels = list[tuple[int, int]]


def counted(levels: Levels) -> list[Count]:
    return [Count(*level) for level in levels]


@pytest.mark.parametrize(("levels", "loads"), LOADS)
def test_levels_carry_the_known_loads(levels: Levels, loads: list[int]) -> None:
    assert priority_load(counted(levels)) == loads


@pytest.mark.parametrize(("levels", "loads"), PANIC_LOADS)
def test_in_panic_levels_carry_the_known_loads(levels: Levels, loads: list[int]) -> None:
    assert panic_load(counted(levels)) == loads


@pytest.mark.parametrize(("levels", "expected"), PANICS)
def test_levels_panic_as_known(levels: Levels, expected: list[bool]) -> None:
    assert panics(counted(levels), 0.5) == expected


def test_nobody_panics_where_panic_is_off() -> None:
    assert panics(counted([(0, 5), (0, 5)]), 0.0) == [False, False]


def test_one_of_hundreds_still_carries_something() -> None:
    assert health(Count(1, 1000)) == 1
    assert priority_load([Count(1, 1000)]) == [100]


any_levels = st.lists(
    st.integers(0, 300).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))), min_size=1, max_size=6
)


@settings(max_examples=100, deadline=None)
@given(levels=any_levels)
def test_loads_add_up_to_a_hundred_and_go_to_who_is_there(levels: Levels) -> None:
    loads = priority_load(counted(levels))
    assert sum(loads) == (100 if any(available for available, _ in levels) else 0)
    assert all(load == 0 for load, (available, _) in zip(loads, levels, strict=True) if not available)
    if all(available == total for available, total in levels):
        assert sorted(loads, reverse=True)[1:] == [0] * (len(levels) - 1)


@settings(max_examples=100, deadline=None)
@given(levels=any_levels)
def test_loads_in_panic_add_up_to_a_hundred_and_go_to_who_exists(levels: Levels) -> None:
    loads = panic_load(counted(levels))
    assert sum(loads) == (100 if any(total for _, total in levels) else 0)
    assert all(load == 0 for load, (_, total) in zip(loads, levels, strict=True) if not total)


@settings(max_examples=60, deadline=None)
@given(total=st.integers(1, 300), available=st.integers(0, 299), more=st.integers(1, 300))
def test_a_level_never_carries_less_when_more_of_it_is_available(total: int, available: int, more: int) -> None:
    fewer, many = min(available, total), min(available + more, total)
    first, second = (priority_load([Count(some, total), Count(9, 10)])[0] for some in (fewer, many))
    assert first <= second


def test_endpoints_of_no_tier_are_the_last() -> None:
    endpoints = [
        endpoint("a", metadata={"tier": "standby"}),
        endpoint("b", metadata={"tier": "primary"}),
        endpoint("c"),
        endpoint("d", metadata={"tier": "tertiary"}),
    ]
    assert [[e.id for e in tier] for tier in tiers(endpoints, Failover())] == [["b"], ["a"], ["c", "d"]]
