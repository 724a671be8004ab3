"""The windows of a circuit breaker against lists of everything that happened."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.breaking.window import Counts, CountWindow, TimeWindow

RESULTS = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)
TIMED = st.lists(st.tuples(st.floats(0.0, 4.0), st.booleans(), st.booleans()), max_size=80)


@settings(max_examples=60, deadline=None)
@given(results=RESULTS, size=st.integers(1, 20))
def test_the_last_calls_are_counted_exactly(results: list[tuple[bool, bool]], size: int) -> None:
    window = CountWindow(size, 1)
    for number, (failed, slow) in enumerate(results, 1):
        window.add(0.0, failed, slow)
        last = results[max(0, number - size) : number]
        assert window.counts(0.0) == Counts(len(last), sum(f for f, _ in last), sum(s for _, s in last))


@settings(max_examples=60, deadline=None)
@given(results=TIMED)
def test_the_last_seconds_are_counted_to_a_twentieth(results: list[tuple[float, bool, bool]]) -> None:
    window, now = TimeWindow(10.0, 1), 0.0
    told: list[tuple[float, bool, bool]] = []
    for wait, failed, slow in results:
        now += wait
        told.append((now, failed, slow))
        window.add(now, failed, slow)
        counts = window.counts(now)
        surely = [entry for entry in told if entry[0] > now - 10.0]
        perhaps = [entry for entry in told if entry[0] > now - 10.0 - 0.5 - 1e-6]
        for column, count in ((1, counts.failed), (2, counts.slow)):
            assert sum(entry[column] for entry in surely) <= count <= sum(entry[column] for entry in perhaps)
        assert len(surely) <= counts.calls <= len(perhaps)


@settings(max_examples=60, deadline=None)
@given(results=TIMED, minimum=st.integers(1, 10))
def test_a_success_before_the_edge_is_one_increment(results: list[tuple[float, bool, bool]], minimum: int) -> None:
    short, long = TimeWindow(10.0, minimum), TimeWindow(10.0, minimum)
    now = 0.0
    for wait, failed, _ in results:
        now += wait / 10
        long.add(now, failed, False)
        expected = long.counts(now)
        if not failed and now < short.edge:
            short.calls += 1
            assert expected.calls >= minimum
        else:
            short.add(now, failed, False)
            assert short.counts(now) == expected


def test_silence_empties_a_window_of_time() -> None:
    window = TimeWindow(10.0, 1)
    window.add(0.0, True, True)
    assert window.counts(100.0) == Counts(0, 0, 0)
    assert window.edge == -math.inf
    window.add(100.0, False, False)
    assert window.counts(100.0) == Counts(1, 0, 0)


def test_clearing_begins_anew() -> None:
    for window in (CountWindow(10, 1), TimeWindow(10.0, 1)):
        window.add(1.0, True, True)
        window.counts(1.0)
        window.clear()
        assert window.counts(1.0) == Counts(0, 0, 0)
        assert window.edge == -math.inf
