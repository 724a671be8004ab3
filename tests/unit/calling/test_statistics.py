"""Latencies find the bucket that comparing with one bound after another would find."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st
from trimtab.core.calling.statistics import BOUNDS, Statistics

beside_bounds = st.sampled_from(BOUNDS).flatmap(
    lambda bound: st.sampled_from([bound * (1 - 1e-15), bound, bound * (1 + 1e-15)])
)


@given(st.lists(st.floats(min_value=0.0, max_value=1e9) | beside_bounds))
def test_every_latency_is_counted_up_to_the_next_bound(latencies: list[float]) -> None:
    statistics, expected = Statistics(), [0] * (len(BOUNDS) + 1)
    for seconds in latencies:
        statistics.record(seconds)
        expected[bisect_left(BOUNDS, seconds)] += 1
    assert statistics.read().latencies == tuple(expected)
    assert statistics.read().calls == len(latencies)
