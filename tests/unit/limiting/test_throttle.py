"""Adaptive throttling: the odds as published, over a window that slides."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.limiting.throttle import SLICES, Throttle
from trimtab.policy.sections import Throttle as Settings


class Fixed:
    """Chance that always falls the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


# gRPC Java, AdaptiveThrottlerTest.shouldThrottle: one second of history, ratio 1, padding 1, chance 0.4
def test_the_odds_are_grpcs_known_answers() -> None:
    throttle, chance = Throttle(Settings(k=1.0, window=1.0)), Fixed(0.4)
    assert throttle.probability(0.0) == 0.0
    assert throttle.admit(0.0, chance)
    throttle.accepted(0.001)
    assert throttle.probability(0.001) == 0.0
    assert throttle.admit(0.001, chance)
    throttle.rejected(0.002)
    assert throttle.probability(0.002) == pytest.approx(1 / 3)
    assert throttle.admit(0.5, chance)
    throttle.rejected(0.501)
    assert throttle.probability(0.501) == pytest.approx(2 / 4)
    assert not throttle.admit(0.501, chance)
    assert throttle.probability(0.502) == pytest.approx(3 / 5)
    # Only what came after half a second is left.
    assert throttle.probability(1.25) == pytest.approx(2 / 3)


@settings(max_examples=100, deadline=None)
@given(
    k=st.floats(1.0, 4.0),
    window=st.sampled_from([1.0, 10.0, 120.0]),
    answers=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=80),
    later=st.integers(0, 60),
)
def test_the_odds_are_the_sre_books_over_the_slices_of_the_window(
    k: float, window: float, answers: list[tuple[int, bool]], later: int
) -> None:
    throttle, slice_, answered = Throttle(Settings(k=k, window=window)), 0, []
    length = window / SLICES
    for halves, accepted in answers:
        slice_ += halves // 2
        now = (slice_ + 0.5) * length
        (throttle.accepted if accepted else throttle.rejected)(now)
        answered.append((slice_, accepted))
    slice_ += later
    recent = [accepted for at, accepted in answered if at > slice_ - SLICES]
    requests, accepts = len(recent), sum(recent)
    odds = min(0.95, max(0.0, (requests - k * accepts) / (requests + 1)))
    now = (slice_ + 0.5) * length
    assert throttle.probability(now) == pytest.approx(odds, abs=1e-9)
    if odds > 1e-6:
        assert throttle.admit(now, Fixed(odds + 1e-6))
        assert not throttle.admit(now, Fixed(odds - 1e-6))


def test_requests_that_are_not_answered_yet_are_not_held_against_the_callee() -> None:
    throttle = Throttle(Settings())
    assert all(throttle.admit(0.0, Fixed(0.0)) for _ in range(1000))


def test_while_at_least_one_of_k_is_accepted_nothing_is_refused() -> None:
    throttle = Throttle(Settings(k=2.0))
    for n in range(1000):
        assert throttle.admit(n / 100, Fixed(0.0))
        (throttle.accepted if n % 2 == 0 else throttle.rejected)(n / 100)


def test_a_callee_that_refuses_everything_is_still_asked_at_times() -> None:
    throttle, rng = Throttle(Settings(window=60.0)), random.Random(1)
    sent = 0
    for n in range(6000):
        if throttle.admit(n / 100, rng):
            sent += 1
            throttle.rejected(n / 100)
    assert 200 < sent < 500


def test_a_callee_that_recovers_gets_everything_again_within_four_windows() -> None:
    throttle, rng = Throttle(Settings(window=10.0)), random.Random(1)
    for n in range(1000):
        if throttle.admit(n / 100, rng):
            throttle.rejected(n / 100)
    assert throttle.probability(10.0) == 0.95
    passed = []
    for n in range(1000, 6000):
        passed.append(throttle.admit(n / 100, rng))
        if passed[-1]:
            throttle.accepted(n / 100)
    assert all(passed[4000:])


def test_about_k_times_what_is_accepted_is_sent() -> None:
    throttle, rng = Throttle(Settings(k=2.0, window=10.0)), random.Random(7)
    sent = 0
    # The callee accepts 10 of 100 a second.
    for n in range(6000):
        if throttle.admit(n / 100, rng):
            sent += n >= 3000
            (throttle.accepted if n % 10 == 0 else throttle.rejected)(n / 100)
    assert sent < 3000 * 0.35


def test_a_slice_leaves_the_window_when_twenty_newer_ones_began() -> None:
    throttle = Throttle(Settings(window=20.0))
    throttle.rejected(0.5)
    throttle.rejected(1.5)
    assert throttle.probability(19.5) == pytest.approx(2 / 3)
    assert throttle.probability(20.5) == pytest.approx(1 / 2)
    assert throttle.probability(21.5) == 0.0


def test_a_long_silence_clears_the_past() -> None:
    throttle = Throttle(Settings(window=10.0))
    for _ in range(100):
        throttle.rejected(5.0)
    assert throttle.probability(5.0) > 0.9
    assert throttle.probability(14.5) > 0.9
    assert throttle.probability(1000.0) == 0.0
