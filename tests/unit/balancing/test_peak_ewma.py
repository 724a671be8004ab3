"""Peak EWMA: how costs move, who wins a comparison, and what becomes of slow and of failing endpoints."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.balancing.peak_ewma import PeakEwma
from trimtab.core.endpoints import Tally

from tests.unit.balancing.nouns import busy, counts, endpoint, fleet, known


def peak_ewma(tallies: dict[str, Tally], count: int = 2, decay: float = 10.0) -> PeakEwma:
    return PeakEwma(fleet(count), tallies, None, random.Random(1), decay)


def test_a_peak_counts_at_once() -> None:
    tally = Tally()
    for latency in (0.010, 0.500):
        tally.observe(1.0, latency, 10.0)
        assert tally.cost == latency


def test_a_lower_latency_counts_by_the_time_that_passed() -> None:
    # twitter/finagle PeakEwma: cost·w + rtt·(1 − w), w = e^(−Δt/τ)
    tally = Tally()
    tally.observe(0.0, 1.0, 10.0)
    tally.observe(10.0, 0.1, 10.0)
    assert tally.cost == pytest.approx(1.0 * math.exp(-1) + 0.1 * (1 - math.exp(-1)))
    assert tally.cost_at == 10.0


def test_a_lower_latency_of_an_earlier_moment_changes_nothing() -> None:
    tally = Tally()
    tally.observe(5.0, 1.0, 10.0)
    tally.observe(4.0, 0.1, 10.0)
    assert (tally.cost, tally.cost_at) == (1.0, 5.0)


@settings(max_examples=100, deadline=None)
@given(
    samples=st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e3)), min_size=1, max_size=30),
    decay=st.floats(0.01, 1e3),
)
def test_a_cost_stays_between_the_least_and_the_greatest_latency(
    samples: list[tuple[float, float]], decay: float
) -> None:
    tally, now = Tally(), 0.0
    for step, seconds in samples:
        now += step
        tally.observe(now, seconds, decay)
    latencies = [seconds for _, seconds in samples]
    assert min(latencies) * (1 - 1e-9) <= tally.cost <= max(latencies)


def test_the_faster_of_two_is_picked() -> None:
    assert counts(peak_ewma(known(e0=0.010, e1=0.100)), 100) == {"e0": 100}


def test_load_counts_as_much_as_latency() -> None:
    tallies = known(e0=0.010, e1=0.025)
    for _ in range(2):
        tallies["e0"].in_flight += 1
    assert counts(peak_ewma(tallies), 100) == {"e1": 100}  # 10 ms · 3 against 25 ms · 1


def test_an_endpoint_that_was_slow_is_tried_again_when_that_is_long_ago() -> None:
    tallies = {**known(0.0, e0=1.0), **known(40.0, e1=0.010)}
    assert counts(peak_ewma(tallies), 10) == {"e1": 10}  # 1 s · e^−4 = 18 ms
    tallies["e1"].observe(50.0, 0.010, 10.0)
    assert counts(peak_ewma(tallies), 10) == {"e0": 10}  # 1 s · e^−5 = 7 ms


def test_costs_of_almost_the_same_moment_are_compared_as_they_are() -> None:
    tallies = {**known(0.0, e0=0.01001), **known(0.005, e1=0.01)}
    assert counts(peak_ewma(tallies), 10) == {"e1": 10}


def test_who_was_never_called_is_tried_first() -> None:
    assert counts(peak_ewma(known(e0=0.001)), 10) == {"e1": 10}


def test_who_has_not_answered_yet_gets_no_more_calls_while_others_are_known() -> None:
    assert counts(peak_ewma({**known(e0=5.0), **busy(e1=1)}), 10) == {"e0": 10}


def test_while_nobody_has_answered_the_calls_under_way_decide() -> None:
    assert counts(peak_ewma(busy(e0=3, e1=2)), 10) == {"e1": 10}


@settings(max_examples=100, deadline=None)
@given(
    told=st.lists(
        st.tuples(st.sampled_from([0.0, 1e-9, 0.01, 1e6]), st.sampled_from([0.0, 1.0, 1e9]), st.integers(0, 3)),
        min_size=2,
        max_size=6,
    ),
    weights=st.sampled_from([None, {"e0": 1.0}, {"e0": 0.0}]),
    decay=st.sampled_from([0.01, 10.0, 1e4]),
)
def test_no_cost_and_no_age_is_too_extreme(
    told: list[tuple[float, float, int]], weights: dict[str, float] | None, decay: float
) -> None:
    tallies = {}
    for number, (cost, at, in_flight) in enumerate(told):
        tally = tallies[f"e{number}"] = Tally()
        tally.observe(at, cost, decay)
        for _ in range(in_flight):
            tally.in_flight += 1
    picker = PeakEwma(fleet(len(told)), tallies, weights, random.Random(1), decay)
    for _ in range(40):
        picked = picker.pick(2e9)
        assert picked is not None
        assert not weights or weights.get(picked.id, 1.0) > 0


def simulate(
    slow: float = 1.0, failing: bool = False, penalty: float = 1.0, weights: tuple[int, ...] = ()
) -> Counter[str]:
    """Calls to each of ten endpoints: 6,000 in 30 s, exponential latencies of 10 ms, and one endpoint that is different."""
    rng = random.Random(7)
    endpoints = [endpoint(f"e{n}", weights[n % len(weights)] if weights else 100) for n in range(10)]
    tallies: dict[str, Tally] = {}
    picker = PeakEwma(endpoints, tallies, None, rng)
    under_way: list[tuple[float, int, str, float, bool]] = []
    now, calls = 0.0, Counter[str]()
    for number in range(6000):
        now += rng.expovariate(200)
        while under_way and under_way[0][0] <= now:
            end, _, id_, seconds, ok = heapq.heappop(under_way)
            tallies[id_].in_flight -= 1
            tallies[id_].observe(end, seconds if ok else max(seconds, penalty), 10.0)
        picked = picker.pick(now)
        assert picked is not None
        different = picked.id == "e0"
        seconds = 0.001 if different and failing else rng.expovariate(100) * (slow if different else 1.0)
        tallies.setdefault(picked.id, Tally()).in_flight += 1
        heapq.heappush(under_way, (now + seconds, number, picked.id, seconds, not (different and failing)))
        calls[picked.id] += 1
    return calls


@pytest.mark.parametrize("weights", [(), (100, 60)])
def test_a_ten_times_slower_endpoint_gets_little(weights: tuple[int, ...]) -> None:
    calls = simulate(slow=10.0, weights=weights)
    assert calls["e0"] < 0.03 * calls.total()
    assert min(count for name, count in calls.items() if name != "e0") > 0.02 * calls.total()


def test_an_endpoint_that_fails_fast_gets_almost_nothing() -> None:
    calls = simulate(failing=True)
    assert calls["e0"] < 0.002 * calls.total()


def test_without_the_penalty_it_would_draw_calls() -> None:
    assert simulate(failing=True, penalty=0.0)["e0"] > 0.15 * 6000


def test_equal_endpoints_get_equal_parts() -> None:
    calls = simulate()
    assert min(calls.values()) / calls.total() > 0.05
    assert max(calls.values()) / calls.total() < 0.17
