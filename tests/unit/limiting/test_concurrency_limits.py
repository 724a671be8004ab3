"""Limits of concurrency, fixed and self-finding: places are neither lost nor doubled, and limits move as published."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trimtab.core.limiting.adaptive import AdaptiveBulkhead, Algorithm, build_bulkhead
from trimtab.core.limiting.aimd import Aimd
from trimtab.core.limiting.bulkhead import Bulkhead
from trimtab.core.limiting.gradient2 import Gradient2
from trimtab.core.limiting.vegas import Vegas
from trimtab.policy.sections import Adaptive

ALGORITHMS = ("gradient2", "vegas", "aimd")
MS = 0.001


def vegas(initial: int = 10, high: int = 20, seed: int = 1) -> Vegas:
    return Vegas(Adaptive(initial=initial, low=1, high=high), random.Random(seed))


def algorithm(settings_: Adaptive) -> Algorithm:
    if settings_.algorithm == "vegas":
        return Vegas(settings_, random.Random(1))
    return Aimd(settings_) if settings_.algorithm == "aimd" else Gradient2(settings_)


def adaptive(settings_: Adaptive) -> AdaptiveBulkhead:
    bulkhead = build_bulkhead(None, settings_, random.Random(1))
    assert isinstance(bulkhead, AdaptiveBulkhead)
    return bulkhead


# Bulkheads


def test_a_bulkhead_has_as_many_places_as_its_limit_says() -> None:
    bulkhead = Bulkhead(2)
    assert [bulkhead.acquire() for _ in range(3)] == [True, True, False]
    bulkhead.release(0.0)
    assert [bulkhead.acquire() for _ in range(2)] == [True, False]


def test_a_lower_limit_waits_for_the_calls_that_are_under_way() -> None:
    bulkhead = Bulkhead(3)
    for _ in range(3):
        bulkhead.acquire()
    bulkhead.limit = 1
    for _ in range(2):
        bulkhead.release(0.0)
        assert not bulkhead.acquire()
    bulkhead.release(0.0)
    assert bulkhead.acquire()


@pytest.mark.parametrize("bulkhead", [Bulkhead(2), adaptive(Adaptive())])
def test_a_place_that_nobody_took_cannot_be_released(bulkhead: Bulkhead) -> None:
    with pytest.raises(ValueError, match="nobody had taken"):
        bulkhead.release(0.0, 0.1)
    assert bulkhead.in_flight == 0


def test_the_policy_says_which_bulkhead_there_is() -> None:
    fixed = build_bulkhead(7, None, random.Random(1))
    assert fixed is not None
    assert (type(fixed), fixed.limit) == (Bulkhead, 7)
    assert build_bulkhead(None, None, random.Random(1)) is None
    assert adaptive(Adaptive(initial=30)).limit == 30


class Places(RuleBasedStateMachine):
    """Calls come and go, in any order and with any end."""

    @initialize(name=st.sampled_from(["fixed", *ALGORITHMS]))
    def begins(self, name: str) -> None:
        self.low, self.high = (5, 5) if name == "fixed" else (2, 30)
        fixed = name == "fixed"
        chosen = None if fixed else Adaptive(algorithm=name, initial=5, low=self.low, high=self.high)
        bulkhead = build_bulkhead(5 if fixed else None, chosen, random.Random(1))
        assert bulkhead is not None
        self.bulkhead = bulkhead
        self.under_way = 0

    @rule(calls=st.integers(1, 12))
    def come(self, calls: int) -> None:
        for _ in range(calls):
            free = self.under_way < self.bulkhead.limit
            assert self.bulkhead.acquire() == free
            self.under_way += free

    @precondition(lambda self: self.under_way)
    @rule(
        now=st.floats(0.0, 10.0),
        calls=st.integers(1, 12),
        seconds=st.none() | st.floats(0.0, 100.0),
        dropped=st.booleans(),
    )
    def go(self, now: float, calls: int, seconds: float | None, dropped: bool) -> None:
        for _ in range(min(calls, self.under_way)):
            self.bulkhead.release(now, seconds, dropped)
            self.under_way -= 1

    @invariant()
    def places_are_counted(self) -> None:
        assert self.bulkhead.in_flight == self.under_way
        assert 0 <= self.under_way <= self.high

    @invariant()
    def the_limit_keeps_its_bounds(self) -> None:
        assert self.low <= self.bulkhead.limit <= self.high


Places.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestPlaces = Places.TestCase


# Netflix concurrency-limits, VegasLimitTest: samples of milliseconds and calls under way, and the limit after each.
# Its alpha 3 and beta 6 are what the formula gives below 100.
@pytest.mark.parametrize(
    ("samples", "limits"),
    [
        ([(10, 10), (10, 11)], [10, 16]),
        ([(10, 10), (50, 11)], [10, 9]),
        ([(10, 10), (14, 14)], [10, 10]),
    ],
)
def test_vegas_gives_netflixs_known_answers(samples: list[tuple[int, int]], limits: list[int]) -> None:
    limit = vegas()
    assert [limit.update(ms * MS, in_flight, False) for ms, in_flight in samples] == limits


# VegasLimitTest.largeLimitIncrease
def test_vegas_gives_netflixs_known_answers_for_a_large_limit() -> None:
    limit = vegas(initial=10_000, high=20_000)
    assert [limit.update(10.0, 5000, False), limit.update(10.0, 6000, False)] == [10_000, 10_024]


# Netflix concurrency-limits, AIMDLimitTest: where it starts, calls under way, whether dropped, and the limit then
@pytest.mark.parametrize(
    ("initial", "low", "in_flight", "dropped", "limit"),
    [(20, 20, 10, False, 21), (30, 20, 0, True, 27), (10, 1, 10, False, 11), (10, 1, 0, True, 9)],
)
def test_aimd_gives_netflixs_known_answers(initial: int, low: int, in_flight: int, dropped: bool, limit: int) -> None:
    assert Aimd(Adaptive(initial=initial, low=low)).update(MS, in_flight, dropped) == limit


class PublishedGradient2:
    """Gradient2Limit's formula as it is published, with its divisions."""

    def __init__(self) -> None:
        self.limit, self.long, self.count = 20.0, 0.0, 0

    def update(self, rtt: float, in_flight: int) -> int:
        self.count += 1
        if self.count <= 10:
            self.long = (self.long * (self.count - 1) + rtt) / self.count
        else:
            self.long = self.long * (1 - 2 / 601) + rtt * 2 / 601
        long = self.long
        if long / rtt > 2:
            self.long *= 0.95
        if in_flight >= self.limit / 2:
            gradient = max(0.5, min(1.0, 1.5 * long / rtt))
            self.limit = max(20.0, min(200.0, 0.8 * self.limit + 0.2 * (self.limit * gradient + 4)))
        return int(self.limit)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.lists(st.tuples(st.sampled_from([0.001, 0.01, 0.013, 0.03, 1.0]), st.integers(1, 200)), max_size=60),
    repeat=st.integers(1, 30),
)
def test_gradient2_follows_its_published_formula(samples: list[tuple[float, int]], repeat: int) -> None:
    ours, published = Gradient2(Adaptive()), PublishedGradient2()
    for rtt, in_flight in samples:
        for _ in range(repeat):
            published.update(rtt, in_flight)
            ours.update(rtt, in_flight, False)
            # Where the sum falls on a whole number, its last digit decides.
            assert abs(ours.limit - published.limit) < 1 + 1e-6


def test_gradient2_grows_by_a_fifth_of_its_queue_while_times_stay_as_they_are() -> None:
    limit = Gradient2(Adaptive(initial=20))
    assert [limit.update(0.01, 200, False) for _ in range(6)] == [20, 21, 22, 23, 24, 24]


def test_gradient2_takes_a_drop_for_the_steepest_gradient() -> None:
    limit = Gradient2(Adaptive(initial=100))
    assert limit.update(0.0, 100, True) == 90  # 80 + (50 + 4) / 5


# All three


any_sample = st.tuples(st.sampled_from([0.0, 1e-9, 0.001, 0.01, 10.0]), st.integers(0, 400), st.booleans())


@pytest.mark.parametrize("name", ALGORITHMS)
@settings(max_examples=60, deadline=None)
@given(
    samples=st.lists(any_sample, max_size=80),
    low=st.integers(1, 30),
    span=st.integers(0, 200),
    initial=st.integers(1, 300),
)
def test_no_sample_takes_a_limit_out_of_its_bounds(
    name: str, samples: list[tuple[float, int, bool]], low: int, span: int, initial: int
) -> None:
    limit = algorithm(Adaptive(algorithm=name, initial=initial, low=low, high=low + span))
    assert low <= limit.limit <= low + span
    for sample in samples:
        assert low <= limit.update(*sample) <= low + span


@pytest.mark.parametrize("name", ALGORITHMS)
@settings(max_examples=40, deadline=None)
@given(times=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=60), initial=st.integers(20, 200))
def test_a_limit_that_nobody_reaches_does_not_grow(name: str, times: list[float], initial: int) -> None:
    limit = algorithm(Adaptive(algorithm=name, initial=initial))
    for seconds in times:
        assert limit.update(seconds, 9, False) <= initial


@pytest.mark.parametrize("name", ALGORITHMS)
def test_drops_bring_a_limit_down(name: str) -> None:
    limit = algorithm(Adaptive(algorithm=name, initial=100, low=10))
    before = limit.limit
    assert limit.update(0.0, 1, True) < before
    for _ in range(100):
        limit.update(0.0, 1, True)
    assert limit.limit <= 12


@pytest.mark.parametrize(("name", "fast"), [("vegas", 0.0), ("gradient2", 0.0001)])
def test_a_refusal_that_comes_at_once_does_not_pass_for_a_fast_answer(name: str, fast: float) -> None:
    one, other = (algorithm(Adaptive(algorithm=name, initial=100)) for _ in range(2))
    for limit, seconds in ((one, fast), (other, 5.0)):
        limit.update(0.01, 100, False)
        limit.update(seconds, 100, True)
    assert [one.update(0.011, 100, False) for _ in range(5)] == [other.update(0.011, 100, False) for _ in range(5)]


def test_vegas_finds_out_that_the_shortest_time_became_longer() -> None:
    limit = vegas(initial=20, high=100)
    limit.update(0.01, 20, False)
    lowest = min(limit.update(0.05, limit.limit, False) for _ in range(400))
    assert lowest < 10
    assert max(limit.update(0.05, limit.limit, False) for _ in range(400)) == 100


# The bulkhead around them


class Recorder:
    """Records what it is told, and moves as it is told."""

    def __init__(self) -> None:
        self.limit = 100
        self.told: list[tuple[float, int, bool]] = []

    def update(self, rtt: float, in_flight: int, dropped: bool) -> int:
        self.told.append((rtt, in_flight, dropped))
        return self.limit


def through(bulkhead: AdaptiveBulkhead, now: float, *samples: tuple[float | None, bool]) -> None:
    """Let calls through, one after the other."""
    for seconds, dropped in samples:
        bulkhead.acquire()
        bulkhead.release(now, seconds, dropped)


def test_a_window_is_judged_by_its_mean_and_the_most_calls_under_way() -> None:
    recorder = Recorder()
    bulkhead = AdaptiveBulkhead(recorder)
    bulkhead.acquire()
    bulkhead.acquire()
    through(bulkhead, 1.0, *[(0.01, False), (0.03, False)] * 5)
    assert recorder.told == [(pytest.approx(0.02), 3, False)]


def test_a_window_has_ten_samples_at_least_and_lasts_a_tenth_of_a_second() -> None:
    recorder = Recorder()
    bulkhead = AdaptiveBulkhead(recorder)
    through(bulkhead, 1.0, *[(0.01, False)] * 9)
    assert recorder.told == []
    through(bulkhead, 1.0, *[(0.01, False)] * 100)
    assert len(recorder.told) == 1
    through(bulkhead, 1.05, (0.01, False))
    assert len(recorder.told) == 1
    through(bulkhead, 1.125, (0.01, False))
    assert len(recorder.told) == 2


@pytest.mark.parametrize(("drops", "dropped"), [(0, False), (3, False), (4, True), (40, True)])
def test_a_window_was_dropped_when_a_tenth_of_it_was(drops: int, dropped: bool) -> None:
    recorder = Recorder()
    bulkhead = AdaptiveBulkhead(recorder)
    through(bulkhead, 1.0, *[(0.02, False)] * 10)
    through(bulkhead, 1.05, *[(5.0, True)] * drops, *[(0.02, False)] * (39 - drops))
    through(bulkhead, 1.125, (0.02, drops == 40))
    (rtt, _, told) = recorder.told[1]
    assert told is dropped
    # The times of dropped calls are left out.
    assert rtt == pytest.approx(0.02 if drops < 40 else 0.0001)


def test_a_call_that_says_nothing_is_no_sample() -> None:
    recorder = Recorder()
    bulkhead = AdaptiveBulkhead(recorder)
    through(bulkhead, 1.0, *[(None, False)] * 100)
    assert recorder.told == []
    assert bulkhead.in_flight == 0


def test_the_limit_is_the_algorithms() -> None:
    recorder = Recorder()
    bulkhead = AdaptiveBulkhead(recorder)
    recorder.limit = 3
    through(bulkhead, 1.0, *[(0.01, False)] * 10)
    assert [bulkhead.acquire() for _ in range(4)] == [True, True, True, False]


def saturate(bulkhead: AdaptiveBulkhead, until: float, seconds: Callable[[float, int], float]) -> list[int]:
    """Keep every place taken for so long; calls take what ``seconds`` says of the time and of those under way."""
    limits, now = [], 0.0
    while now < until:
        while bulkhead.acquire():
            pass
        busy = bulkhead.in_flight
        took = seconds(now, busy)
        now += took / busy  # Little's law
        bulkhead.release(now, took)
        limits.append(bulkhead.limit)
    return limits


def test_times_that_scatter_do_not_hold_a_limit_down() -> None:
    rng = random.Random(1)
    limits = saturate(adaptive(Adaptive()), 40.0, lambda now, busy: rng.expovariate(5))
    assert limits[-1] == 200


@pytest.mark.parametrize("name", ["gradient2", "vegas"])
def test_a_limit_falls_when_the_callee_slows_down(name: str) -> None:
    # 40 calls at a time, 100 ms each: what is more waits. After 20 s the callee can do a fifth of that.
    bulkhead = adaptive(Adaptive(algorithm=name, initial=20, low=5, high=200))
    before: list[int] = []

    def took(now: float, busy: int) -> float:
        if now < 20.0:
            before.append(bulkhead.limit)
        return 0.1 * max(1.0, busy / (40 if now < 20.0 else 8))

    limits = saturate(bulkhead, 23.0, took)
    assert 35 < before[-1] < 110
    assert limits[-1] < before[-1] / 2
