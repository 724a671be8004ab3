"""Rate limits: what a token bucket would admit, in turns where calls may wait, slower after a rest where they warm up."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from trimtab.core.limiting.gcra import Gcra
from trimtab.core.limiting.keyed import Keyed
from trimtab.core.limiting.limiter import build_limiter, may_go_on
from trimtab.core.limiting.warm_up import WarmUp
from trimtab.policy.sections import HashKey, Limit

from tests.unit.limiting.token_bucket import TokenBucket, assert_within

# Powers of two have exact sums, so that a decision on the very edge is the same for every way of calculating.
EXACT_LIMITS = st.builds(
    Limit,
    rate=st.sampled_from([0.25, 1.0, 8.0, 64.0]),
    burst=st.integers(1, 6),
    wait=st.sampled_from([0.0, 0.5, 4.0]),
)
EXACT_GAPS = st.lists(st.integers(0, 256).map(lambda n: n / 128), max_size=60)
LIMITS = st.builds(
    Limit,
    rate=st.floats(0.1, 1000.0),
    burst=st.integers(1, 6),
    warm_up=st.none() | st.floats(0.01, 20.0),
    wait=st.sampled_from([0.0, 0.7, 10.0]),
)


# GCRA


@settings(max_examples=100, deadline=None)
@given(limit=EXACT_LIMITS, gaps=EXACT_GAPS)
def test_gcra_answers_every_call_as_a_token_bucket_does(limit: Limit, gaps: list[float]) -> None:
    gcra, bucket, now = Gcra(limit), TokenBucket(limit), 0.0
    for gap in gaps:
        now += gap
        expected = bucket.admit(now)
        answer = gcra.admit(now)
        assert math.copysign(1, answer) == math.copysign(1, expected)
        assert answer == pytest.approx(expected, abs=2e-9)


@settings(max_examples=60, deadline=None)
@given(limit=LIMITS, calls=st.integers(1, 40), now=st.floats(0.0, 1e5))
def test_a_call_after_the_time_that_a_refusal_names_is_not_refused(limit: Limit, calls: int, now: float) -> None:
    limiter = build_limiter(limit)
    for _ in range(calls):
        turn = limiter.admit(now)
        if turn < 0.0:
            assert limiter.admit(now - turn) >= 0.0


@settings(max_examples=100, deadline=None)
@given(limit=LIMITS, gaps=st.lists(st.floats(0.0, 3.0), max_size=60), begin=st.floats(0.0, 1e6))
def test_no_interval_has_more_than_a_burst_and_the_rate(limit: Limit, gaps: list[float], begin: float) -> None:
    limiter, now, starts = build_limiter(limit), begin, []
    for gap in gaps:
        now += gap * 2 / limit.rate
        turn = limiter.admit(now)
        if turn >= 0.0:
            assert turn <= limit.wait
            starts.append(now + turn)
    assert_within(starts, limit)


def test_a_burst_passes_at_once_after_a_rest_and_no_more() -> None:
    gcra = Gcra(Limit(rate=10, burst=5))
    assert [gcra.admit(100.0) for _ in range(5)] == [0.0] * 5
    assert gcra.admit(100.0) < 0


def test_calls_that_come_evenly_at_the_rate_all_pass() -> None:
    gcra = Gcra(Limit(rate=50))
    assert [gcra.admit(1000 + n / 50) for n in range(500)] == [0.0] * 500


def test_a_refusal_says_when_a_call_would_pass() -> None:
    gcra = Gcra(Limit(rate=4, burst=2))
    gcra.admit(10.0)
    gcra.admit(10.0)
    answer = gcra.admit(10.125)
    assert answer == pytest.approx(-0.125, abs=1e-8)
    assert gcra.admit(10.125 - answer) == 0.0


def test_a_refusal_costs_no_place() -> None:
    gcra = Gcra(Limit(rate=1))
    gcra.admit(0.0)
    for _ in range(100):
        assert gcra.admit(0.5) < 0
    assert gcra.admit(1.0) == 0.0


def test_calls_that_may_wait_are_spaced_evenly_and_refused_beyond_that() -> None:
    gcra = Gcra(Limit(rate=10, wait=0.25))
    turns = [gcra.admit(5.0) for _ in range(4)]
    assert turns == pytest.approx([0.0, 0.1, 0.2, -0.05], abs=1e-8)


# Guava's RateLimiterTest: testSimple, testSimpleWithWait, testTryAcquire_someWaitAllowed, all 5 a second


def test_gcra_with_a_wait_gives_guavas_known_answers() -> None:
    gcra = Gcra(Limit(rate=5, wait=60))
    assert [gcra.admit(0.0), gcra.admit(0.0), gcra.admit(0.2)] == pytest.approx([0.0, 0.2, 0.2], abs=1e-8)
    gcra = Gcra(Limit(rate=5, wait=60))
    assert [gcra.admit(0.0), gcra.admit(0.2), gcra.admit(0.2)] == pytest.approx([0.0, 0.0, 0.2], abs=1e-8)
    gcra = Gcra(Limit(rate=5, wait=0.1))
    assert [gcra.admit(0.0), gcra.admit(0.05) < 0, gcra.admit(0.125) >= 0] == [0.0, True, True]


# Giving a place back


@settings(max_examples=100, deadline=None)
@given(limit=LIMITS, calls=st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=40))
def test_a_place_given_back_at_once_was_never_taken(limit: Limit, calls: list[tuple[float, bool]]) -> None:
    limiter, other, now = build_limiter(limit), build_limiter(limit), 0.0
    for gap, gives_up in calls:
        now += gap / limit.rate
        turn = limiter.admit(now)
        if not gives_up:
            assert turn == pytest.approx(other.admit(now), abs=1e-6)
        elif turn >= 0.0:
            limiter.refund(now + turn, now)


@settings(max_examples=100, deadline=None)
@given(limit=LIMITS, calls=st.lists(st.tuples(st.floats(0.0, 1.0), st.none() | st.integers(0, 9)), max_size=40))
def test_whoever_gives_up_the_others_keep_the_rate(limit: Limit, calls: list[tuple[float, int | None]]) -> None:
    limiter, now, starts = build_limiter(limit), 0.0, []
    for gap, gives_up in calls:
        now += gap / limit.rate
        waiting = [start for start in starts if start > now]
        if gives_up is not None and waiting:
            start = waiting[gives_up % len(waiting)]
            starts.remove(start)
            limiter.refund(start, now)
        turn = limiter.admit(now)
        if turn >= 0.0:
            starts.append(now + turn)
    assert_within(starts, limit)


@settings(max_examples=100, deadline=None)
@given(
    limit=LIMITS,
    calls=st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.0, 0.7, 2.0]), st.none() | st.integers(0, 9)), max_size=60),
)
def test_whoever_gives_a_place_back_late_gives_no_more_than_is_left_of_it(
    limit: Limit, calls: list[tuple[float, int | None]]
) -> None:
    """Others may be let in meanwhile by what came back of itself, so nobody may have that once more."""
    limiter, now, starts = build_limiter(limit), 0.0, []
    for gap, gives_up in calls:
        now += gap / limit.rate
        if gives_up is not None and starts:
            start = starts.pop(-1 - gives_up % len(starts))
            limiter.refund(start, now)
        turn = limiter.admit(now)
        if turn >= 0.0:
            starts.append(now + turn)
    assert_within(starts, limit)


def test_a_token_that_came_back_of_itself_is_not_given_back_once_more() -> None:
    gcra = Gcra(Limit(rate=1, burst=5))
    assert gcra.admit(8.0) == 0.0
    assert [gcra.admit(9.0) for _ in range(3)] == [0.0] * 3
    gcra.refund(8.0, 9.0)
    assert [gcra.admit(9.0) == 0.0 for _ in range(3)] == [True, True, False]


def test_only_the_newest_place_can_be_had_again() -> None:
    gcra = Gcra(Limit(rate=1, wait=60))
    assert [gcra.admit(0.0) for _ in range(3)] == pytest.approx([0.0, 1.0, 2.0], abs=1e-8)
    gcra.refund(1.0, 0.0)
    assert gcra.admit(0.0) == pytest.approx(3.0, abs=1e-8)
    gcra.refund(3.0, 0.0)
    gcra.refund(2.0, 0.0)
    assert gcra.admit(0.0) == pytest.approx(2.0, abs=1e-8)


# Changing


LIVE = st.builds(
    Limit, rate=st.floats(0.1, 1000.0), burst=st.integers(1, 50), warm_up=st.none() | st.floats(0.01, 20.0)
)


@settings(max_examples=50, deadline=None)
@given(
    st.booleans().flatmap(
        lambda warm: st.lists(LIVE.filter(lambda limit: (limit.warm_up is not None) == warm), min_size=1, max_size=8)
    ),
    st.integers(0, 2**32),
)
def test_a_thousand_changes_in_a_minute_admit_no_more_than_the_largest_burst_and_the_rates(
    limits: list[Limit], seed: int
) -> None:
    rng, current = Random(seed), limits[0]
    limiter, now, allowed, passed = build_limiter(current), 1000.0, float(max(limit.burst for limit in limits)), 0
    for _ in range(1000):
        for _ in range(rng.choice((0, 1, 3, 60))):
            passed += limiter.admit(now) == 0.0
        assert passed <= allowed + 1e-6
        seconds = rng.expovariate(1000 / 60)
        now += seconds
        allowed += current.rate * seconds
        current = rng.choice(limits)
        limiter.change(current, now)


@settings(max_examples=60, deadline=None)
@given(limit=LIMITS, gaps=st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=40))
def test_a_change_to_the_same_settings_changes_nothing(limit: Limit, gaps: list[tuple[float, bool]]) -> None:
    limiter, other, now = build_limiter(limit), build_limiter(limit), 10.0
    for gap, changes in gaps:
        now += gap / limit.rate
        if changes:
            limiter.change(limit, now)
        assert limiter.admit(now) == pytest.approx(other.admit(now), abs=1e-6)


def test_a_higher_rate_brings_missing_tokens_back_sooner_and_a_larger_burst_is_given_once() -> None:
    gcra = Gcra(Limit(rate=1 / 3600))
    assert gcra.admit(0.0) == 0.0
    gcra.change(Limit(rate=10.0), 0.0)
    assert gcra.admit(0.05) < 0
    assert gcra.admit(0.1) == 0.0
    for _ in range(5):
        gcra.change(Limit(rate=10.0, burst=3), 0.1)
        gcra.change(Limit(rate=10.0, burst=1), 0.1)
    gcra.change(Limit(rate=10.0, burst=3), 0.1)
    assert [gcra.admit(0.1) == 0.0 for _ in range(3)] == [True, True, False]


def test_a_call_that_waits_across_a_change_keeps_its_turn_and_may_still_give_it_back() -> None:
    gcra = Gcra(Limit(rate=1, wait=60))
    assert [gcra.admit(0.0), gcra.admit(0.0)] == pytest.approx([0.0, 1.0], abs=1e-8)
    gcra.change(Limit(rate=2, wait=60), 0.0)
    assert gcra.admit(0.0) == pytest.approx(1.0, abs=1e-8)
    gcra.refund(1.0, 0.0)
    assert gcra.admit(0.0) == pytest.approx(1.0, abs=1e-8)


def test_each_key_goes_on_from_what_it_used() -> None:
    keyed = Keyed(Limit(rate=1, burst=2))
    assert [keyed.admit(key, 0.0) for key in ("a", "a", "b")] == [0.0] * 3
    keyed.change(Limit(rate=1, burst=3), 0.0)
    assert [[keyed.admit(key, 0.0) == 0.0 for _ in range(4)].count(True) for key in ("a", "b", "c")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("after", "may"),
    [
        (Limit(rate=2, burst=9, wait=1.0), True),
        (Limit(per="method"), False),
        (Limit(per="key", key=HashKey(header="x-tenant")), False),
        (Limit(warm_up=3.0), False),
    ],
)
def test_a_limiter_goes_on_only_for_the_same_calls_and_of_its_own_kind(after: Limit, may: bool) -> None:
    assert may_go_on(Limit(), after) is may


# Warming up


def acquire(limiter: WarmUp, now: float, calls: int) -> tuple[list[float], float]:
    """Callers one after the other, each of whom waits for its turn. Returns the waits, and when the last one went on."""
    waits = []
    for _ in range(calls):
        turn = limiter.admit(now)
        now += turn
        waits.append(turn)
    return waits, now


# Guava's RateLimiterTest.testWarmUp, cold factor 3
def test_warming_up_gives_guavas_known_answers() -> None:
    warm_up = WarmUp(Limit(rate=2, wait=60), 4.0)
    cold = [0.0, 1.38, 1.13, 0.88, 0.63, 0.5, 0.5, 0.5]
    waits, now = acquire(warm_up, 0.0, 8)
    assert waits == pytest.approx(cold, abs=0.006)
    waits, now = acquire(warm_up, now + 4.5, 8)  # as long as it takes to be cold again
    assert waits == pytest.approx(cold, abs=0.006)
    waits, now = acquire(warm_up, now + 2.5, 8)  # half of that
    assert waits == pytest.approx([0.0, *[0.5] * 7], abs=0.006)


# Guava's RateLimiterTest.testWarmUpAndUpdate, after its rate was doubled
def test_warming_up_to_twice_the_rate_gives_guavas_known_answers() -> None:
    waits, _ = acquire(WarmUp(Limit(rate=4, wait=60), 4.0), 0.0, 11)
    assert waits == pytest.approx([0.0, 0.72, 0.66, 0.59, 0.53, 0.47, 0.41, 0.34, 0.28, 0.25, 0.25], abs=0.006)


@settings(max_examples=60, deadline=None)
@given(rate=st.floats(0.5, 200.0), tens=st.integers(1, 20))
def test_the_whole_rate_is_reached_after_the_period(rate: float, tens: int) -> None:
    calls = 10 * tens  # that are dearer than others: most - threshold = period * rate / 2
    period = 2 * calls / rate
    waits, now = acquire(WarmUp(Limit(rate=rate, wait=60), period), 0.0, calls + 1)
    assert now == pytest.approx(period)
    assert waits[1] == pytest.approx(3 / rate, rel=0.1)
    assert waits[-1] == pytest.approx(1 / rate, rel=0.15)


def test_a_cold_limiter_lets_a_third_of_a_burst_through() -> None:
    warm_up = WarmUp(Limit(rate=100, burst=31), 60.0)
    assert sum(warm_up.admit(0.0) == 0.0 for _ in range(100)) == 11


def test_a_warm_limiter_is_a_plain_one() -> None:
    limit = Limit(rate=100, burst=1)
    warm_up = WarmUp(limit, 1.0)
    passed = [n / 1000 for n in range(10_000) if warm_up.admit(n / 1000) == 0.0]
    assert sum(start >= 9.0 for start in passed) == 100
    assert sum(start < 0.5 for start in passed) < 25


# A limit for each key


class KeyedLimits(RuleBasedStateMachine):
    """Against a token bucket for each of the four keys that were used last."""

    LIMIT = Limit(rate=2.0, burst=3)
    KEYS = 4

    def __init__(self) -> None:
        super().__init__()
        self.keyed = Keyed(self.LIMIT, self.KEYS)
        self.buckets: dict[str, TokenBucket] = {}
        self.now = 0.0

    @rule(quarters=st.integers(0, 10))
    def time_goes_on(self, quarters: int) -> None:
        self.now += quarters / 4

    @rule(key=st.sampled_from("abcdefg"), gives_back=st.booleans())
    def call(self, key: str, gives_back: bool) -> None:
        bucket = self.buckets.pop(key, None) or TokenBucket(self.LIMIT)
        self.buckets[key] = bucket
        if len(self.buckets) > self.KEYS:
            del self.buckets[next(iter(self.buckets))]
        answer, expected = self.keyed.admit(key, self.now), bucket.admit(self.now)
        assert (answer == 0.0) == (expected == 0.0)
        assert answer == pytest.approx(expected, abs=2e-9)
        if gives_back and answer == 0.0:
            self.keyed.refund(key, self.now, self.now)
            bucket.tokens += 1.0

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.keyed) == len(self.buckets) <= self.KEYS


KeyedLimits.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestKeyedLimits = KeyedLimits.TestCase


def test_keys_do_not_use_up_each_others_rate() -> None:
    keyed = Keyed(Limit(rate=1))
    assert [keyed.admit(key, 0.0) for key in ("a", "b", "c")] == [0.0] * 3
    assert keyed.admit("a", 0.0) < 0


def test_a_key_that_was_forgotten_gets_a_fresh_burst_and_no_more() -> None:
    keyed = Keyed(Limit(rate=1, burst=2), keys=2)
    for key in ("a", "a", "b", "c"):
        assert keyed.admit(key, 0.0) == 0.0
    assert [keyed.admit("a", 0.0) == 0.0 for _ in range(3)] == [True, True, False]


def test_a_place_of_a_forgotten_key_is_nobodys() -> None:
    keyed = Keyed(Limit(rate=1, wait=5), keys=1)
    keyed.admit("a", 0.0)
    turn = keyed.admit("a", 0.0)
    keyed.admit("b", 0.0)
    keyed.refund("a", turn, 0.0)
    assert keyed.admit("b", 0.0) == pytest.approx(1.0, abs=1e-8)
