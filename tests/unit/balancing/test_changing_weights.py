"""Weights that change by themselves: slow start, and weights from load reports."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.balancing.load_weight import BLACKOUT, EXPIRY, LoadWeight, even_out
from trimtab.core.balancing.slow_start import factor, next_step, warming
from trimtab.policy.sections import SlowStart


# Envoy's slow start: max(10 %, (max(t, 1)/window)^(1/aggression))
@pytest.mark.parametrize(
    ("aggression", "age", "expected"),
    [
        (1.0, 0, 0.1),
        (1.0, 3, 0.1),
        (1.0, 15, 0.5),
        (1.0, 30, 1.0),
        (2.0, 7.5, 0.5),
        (0.5, 15, 0.25),
        (2.0, 0, 30**-0.5),
    ],
)
def test_an_endpoint_warms_up_by_the_formula(aggression: float, age: float, expected: float) -> None:
    assert factor(SlowStart(window=30.0, aggression=aggression), age) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(
    window=st.floats(0.001, 1e5),
    aggression=st.floats(0.1, 10),
    at_least=st.floats(0.01, 1),
    ages=st.tuples(st.floats(-10, 1e6), st.floats(-10, 1e6)),
)
def test_warming_up_never_goes_backwards(
    window: float, aggression: float, at_least: float, ages: tuple[float, float]
) -> None:
    settings_ = SlowStart(window=window, aggression=aggression, at_least=at_least)
    young, old = sorted(ages)
    assert at_least <= factor(settings_, young) <= factor(settings_, old) <= 1.0


def test_only_those_that_are_not_warm_yet_are_told() -> None:
    assert warming(SlowStart(window=10.0), {"old": 0.0, "new": 95.0, "newest": 99.9}, 100.0) == {
        "new": pytest.approx(0.5),
        "newest": pytest.approx(0.1),
    }


def test_steps_are_a_part_of_the_window_but_not_too_short() -> None:
    assert next_step(SlowStart(window=30.0), 100.0) == 101.5
    assert next_step(SlowStart(window=0.5), 100.0) == 100.1


def reported(*reports: tuple[float, float, float, float]) -> LoadWeight:
    weight = LoadWeight()
    for report in reports:
        weight.report(*report)
    return weight


# gRFC A58: weight = qps / (utilization + eps/qps · penalty)
@pytest.mark.parametrize(
    ("qps", "eps", "utilization", "expected"), [(100, 0, 0.5, 200), (100, 50, 0.5, 100), (10, 10, 1.0, 5)]
)
def test_a_weight_is_calls_for_utilization(qps: float, eps: float, utilization: float, expected: float) -> None:
    assert reported((0.0, qps, eps, utilization)).weight(BLACKOUT) == pytest.approx(expected)


def test_reports_are_believed_after_the_blackout() -> None:
    weight = reported((0.0, 100, 0, 0.5))
    assert weight.weight(BLACKOUT - 0.1) == 0
    assert weight.weight(BLACKOUT) == 200


def test_reports_expire_and_then_have_another_blackout() -> None:
    weight = reported((0.0, 100, 0, 0.5))
    assert weight.weight(EXPIRY - 0.1) == 200
    assert weight.weight(EXPIRY) == 0
    weight.report(EXPIRY + 1, 100, 0, 0.5)
    assert weight.weight(EXPIRY + 2) == 0
    assert weight.weight(EXPIRY + 1 + BLACKOUT) == 200


def test_an_endpoint_that_was_away_has_another_blackout() -> None:
    weight = reported((0.0, 100, 0, 0.5))
    weight.restart()
    weight.report(50.0, 100, 0, 0.5)
    assert weight.weight(55.0) == 0
    assert weight.weight(50.0 + BLACKOUT) == 200


@pytest.mark.parametrize("empty", [(20.0, 0, 0, 0.5), (20.0, 100, 0, 0.0), (20.0, 100, 0, -1.0)])
def test_empty_reports_are_ignored(empty: tuple[float, float, float, float]) -> None:
    assert reported(empty).weight(100.0) == 0
    assert reported((0.0, 100, 0, 0.5), empty).weight(30.0) == 200


def test_who_is_not_known_weighs_as_much_as_the_mean() -> None:
    assert even_out({"a": 100.0, "b": 300.0, "c": 0.0}) == {"a": 100.0, "b": 300.0, "c": 200.0}


def test_with_fewer_than_two_known_all_weigh_the_same() -> None:
    assert even_out({"a": 100.0, "b": 0.0}) == {"a": 1.0, "b": 1.0}
    assert even_out({}) == {}
