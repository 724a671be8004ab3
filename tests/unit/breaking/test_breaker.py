"""The circuit breaker: what resilience4j's own tests say."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from trimtab.core.breaking.breaker import CircuitBreaker, State
from trimtab.policy.sections import Breaker
from trimtab.policy.sentences import OpenWhen

# resilience4j, CircuitBreakerStateMachineTest: 50 % of at least 5 failed, or took longer than 4 s; 4 probes; open for 5 s
UPSTREAM = Breaker(
    open_when=OpenWhen(failures=0.5, slow=0.5, slow_after=4.0, minimum=5, seconds=20.0), probes=4, open_for=5.0
)
FIVE = Breaker(open_when=OpenWhen(failures=0.5, minimum=5, calls=5), probes=1, open_for=5.0, open_limit=30.0)


def breaker_of(settings: Breaker) -> CircuitBreaker:
    return CircuitBreaker(settings, random.Random(1))


def permit(breaker: CircuitBreaker, now: float) -> int:
    given = breaker.admit(now)
    assert given is not None
    return given


def call(breaker: CircuitBreaker, now: float, *, failed: bool = False, seconds: float = 0.0) -> bool:
    return breaker.done(permit(breaker, now), now, failed=failed, seconds=seconds)


def opened(settings: Breaker = UPSTREAM) -> CircuitBreaker:
    breaker = breaker_of(settings)
    for _ in range(5):
        call(breaker, 0.0, failed=True)
    assert breaker.state is State.OPEN
    return breaker


class TestClosed:
    def test_it_opens_at_the_call_that_makes_enough_of_them_be_it_a_success(self) -> None:
        # shouldOpenAfterFailureRateThresholdExceeded
        breaker = breaker_of(UPSTREAM)
        states = []
        for failed in (True, True, True, False, False):
            call(breaker, 1.0, failed=failed)
            states.append(breaker.state)
        assert states == [State.CLOSED] * 4 + [State.OPEN]

    def test_slow_calls_open_it_however_they_end(self) -> None:
        # shouldOpenAfterSlowCallRateThresholdExceeded
        breaker = breaker_of(UPSTREAM)
        for failed, seconds in ((True, 5.0), (False, 5.0), (True, 0.1), (False, 0.1), (False, 5.0)):
            assert breaker.state is State.CLOSED
            call(breaker, 1.0, failed=failed, seconds=seconds)
        assert breaker.state is State.OPEN

    @pytest.mark.parametrize("window", [{"calls": 10}, {"seconds": 10.0}])
    def test_calls_that_become_slow_open_it(self, window: dict[str, Any]) -> None:
        breaker = breaker_of(Breaker(open_when=OpenWhen(slow=0.5, slow_after=1.0, minimum=5, **window)))
        for _ in range(10):
            call(breaker, 0.0, seconds=0.1)
        slow = 0
        while breaker.state is State.CLOSED:
            call(breaker, 0.0, seconds=1.1)
            slow += 1
        assert slow == (5 if "calls" in window else 10)

    def test_a_call_of_exactly_the_limit_is_not_slow(self) -> None:
        breaker = breaker_of(UPSTREAM)
        for _ in range(20):
            call(breaker, 1.0, seconds=4.0)
        assert breaker.state is State.CLOSED

    def test_half_of_the_calls_is_enough_and_less_is_not(self) -> None:
        settings = Breaker(open_when=OpenWhen(failures=0.5, minimum=10, calls=10))
        for failures, state in ((4, State.CLOSED), (5, State.OPEN)):
            breaker = breaker_of(settings)
            for number in range(10):
                call(breaker, 0.0, failed=number < failures)
            assert breaker.state is state

    def test_what_left_the_window_is_forgiven(self) -> None:
        breaker = breaker_of(UPSTREAM)
        for _ in range(4):
            call(breaker, 0.0, failed=True)
        for _ in range(5):
            call(breaker, 22.0)
        assert breaker.state is State.CLOSED

    def test_a_success_opens_it_when_older_successes_have_left_the_window(self) -> None:
        breaker = breaker_of(Breaker(open_when=OpenWhen(failures=0.5, minimum=5, seconds=10.0)))
        for _ in range(10):
            call(breaker, 0.0)
        for _ in range(5):
            call(breaker, 8.0, failed=True)
        assert breaker.state is State.CLOSED, "5 of 15"
        call(breaker, 11.0)
        assert breaker.state is State.OPEN, "5 of 6"

    def test_failures_in_a_row_open_it_before_there_are_enough_calls(self) -> None:
        breaker = breaker_of(Breaker(open_when=OpenWhen(consecutive=3)))
        for failed in (True, True, False, True, True):
            call(breaker, 0.0, failed=failed)
        assert breaker.state is State.CLOSED
        call(breaker, 0.0, failed=True)
        assert breaker.state is State.OPEN

    def test_a_window_that_is_smaller_than_the_minimum_is_judged_when_it_is_full(self) -> None:
        breaker = breaker_of(Breaker(open_when=OpenWhen(failures=0.5, minimum=20, calls=4)))
        for _ in range(4):
            call(breaker, 0.0, failed=True)
        assert breaker.state is State.OPEN

    def test_what_is_not_judged_never_opens_it(self) -> None:
        breaker = breaker_of(Breaker(open_when=OpenWhen(slow=0.5, slow_after=1.0, minimum=1)))
        for _ in range(50):
            call(breaker, 0.0, failed=True)
        assert breaker.state is State.CLOSED

    def test_a_call_that_says_nothing_does_not_count(self) -> None:
        breaker = breaker_of(UPSTREAM)
        for _ in range(100):
            breaker.release(permit(breaker, 0.0))
        for _ in range(4):
            call(breaker, 0.0, failed=True)
        assert breaker.state is State.CLOSED


class TestOpen:
    def test_calls_are_refused_until_it_is_time_to_try(self) -> None:
        # shouldTransitionToHalfOpenAfterWaitDuration
        breaker = opened()
        assert breaker.admit(3.0) is None
        assert breaker.admit(4.9) is None
        assert breaker.retry_after(3.0) == pytest.approx(2.0)
        assert breaker.admit(5.0) is not None
        assert breaker.state is State.HALF_OPEN

    def test_what_was_under_way_when_it_opened_has_no_say(self) -> None:
        breaker = breaker_of(UPSTREAM)
        late = [permit(breaker, 0.0) for _ in range(9)]
        for _ in range(5):
            call(breaker, 0.0, failed=True)
        probe = permit(breaker, 5.0)
        assert not any(breaker.done(one, 5.0, failed=True, seconds=0.0) for one in late)
        assert not breaker.done(probe, 5.0, failed=False, seconds=0.0)
        assert breaker.state is State.HALF_OPEN, "one of four probes has ended"

    def test_each_time_it_opens_again_it_stays_open_longer_up_to_a_limit(self) -> None:
        breaker = opened(FIVE)
        waits, now = [], 0.0
        for _ in range(6):
            waits.append(breaker.retry_after(now))
            now += waits[-1]
            call(breaker, now, failed=True)
        assert waits[0] == pytest.approx(5.0)
        for wait, middle in zip(waits[1:], (10.0, 20.0, 30.0, 30.0, 30.0), strict=True):
            assert 0.8 * middle <= wait <= 1.2 * middle
        assert len(set(waits[3:])) == 3, "callers do not come back together"

    def test_having_been_closed_it_starts_with_the_first_time_again(self) -> None:
        breaker = opened(FIVE)
        call(breaker, 5.0, failed=True)
        now = 5.0 + breaker.retry_after(5.0)
        call(breaker, now)
        for _ in range(5):
            call(breaker, now, failed=True)
        assert breaker.retry_after(now) == pytest.approx(5.0)

    def test_a_time_above_the_limit_is_kept(self) -> None:
        breaker = opened(Breaker(open_when=OpenWhen(consecutive=5), probes=1, open_for=60.0, open_limit=1.0))
        assert breaker.retry_after(0.0) == pytest.approx(60.0)
        call(breaker, 60.0, failed=True)
        assert 48.0 <= breaker.retry_after(60.0) <= 72.0


class TestHalfOpen:
    def test_four_are_admitted_and_a_fifth_is_not(self) -> None:
        # shouldOnlyPermitFourCallsInHalfOpenState
        breaker = opened()
        assert [breaker.admit(5.0) is not None for _ in range(6)] == [True, True, True, True, False, False]

    @pytest.mark.parametrize(
        ("failed", "state"),
        [(0, State.CLOSED), (1, State.CLOSED), (2, State.OPEN), (4, State.OPEN)],
    )
    def test_it_decides_when_all_have_ended(self, failed: int, state: State) -> None:
        # shouldTransitionBackToClosedStateWhenFailureIsBelowThreshold, …ToOpenStateWhenFailureRateIsAboveThreshold
        breaker = opened()
        probes = [permit(breaker, 5.0) for _ in range(4)]
        for number, probe in enumerate(probes):
            assert breaker.state is State.HALF_OPEN
            assert breaker.done(probe, 6.0, failed=number < failed, seconds=0.0) == (number == 3)
        assert breaker.state is state

    def test_three_slow_probes_of_four_open_it_again(self) -> None:
        # shouldTransitionBackToOpenStateWhenSlowCallRateIsAboveThreshold
        breaker = opened()
        for seconds in (5.0, 5.0, 5.0, 1.0):
            call(breaker, 5.0, seconds=seconds)
        assert breaker.state is State.OPEN

    def test_a_probe_that_says_nothing_gives_its_place_to_another(self) -> None:
        # shouldIncreaseCounterOnReleasePermission
        breaker = opened()
        probes = [permit(breaker, 5.0) for _ in range(4)]
        breaker.release(probes[0])
        assert breaker.admit(5.0) is not None
        assert breaker.admit(5.0) is None

    def test_ignored_probes_do_not_decide(self) -> None:
        # shouldIgnoreExceptionsAndThenTransitionToClosed
        breaker = opened()
        for _ in range(4):
            breaker.release(permit(breaker, 5.0))
        for _ in range(4):
            assert breaker.state is State.HALF_OPEN
            call(breaker, 5.0)
        assert breaker.state is State.CLOSED

    def test_a_lost_probe_gives_its_place_to_another_at_its_deadline(self) -> None:
        breaker = opened()
        lost = [permit(breaker, 5.0) for _ in range(4)]
        assert breaker.retry_after(6.0) == pytest.approx(9.0)
        assert breaker.admit(14.9) is None
        for _ in range(4):
            call(breaker, 15.0)
        assert breaker.state is State.CLOSED
        assert not breaker.done(lost[0], 16.0, failed=True, seconds=11.0)

    def test_a_late_probe_counts_while_nobody_has_taken_its_place(self) -> None:
        breaker = opened(FIVE)
        probe = permit(breaker, 5.0)
        assert breaker.done(probe, 100.0, failed=False, seconds=95.0)
        assert breaker.state is State.CLOSED

    @pytest.mark.parametrize(("failed", "state"), [(False, State.CLOSED), (True, State.OPEN)])
    def test_probes_that_all_take_longer_than_their_deadline_decide_all_the_same(
        self, failed: bool, state: State
    ) -> None:
        breaker = opened()
        under_way: list[tuple[float, int]] = []
        for second in range(5, 60):
            while under_way and under_way[0][0] <= second:
                breaker.done(under_way.pop(0)[1], second, failed, 35.0 if failed else 3.0)
            if breaker.state is not State.HALF_OPEN and second > 5:
                break
            given = breaker.admit(second)
            if given is not None:
                under_way.append((second + 35.0, given))
        assert breaker.state is state

    def test_probes_that_are_late_free_no_place_that_others_took(self) -> None:
        breaker = opened()
        late = [permit(breaker, 5.0) for _ in range(4)]
        assert [breaker.admit(15.0) is not None for _ in range(5)] == [True] * 4 + [False]
        for given in (late[0], late[0], late[1]):
            assert not breaker.done(given, 16.0, failed=False, seconds=0.0)
        assert breaker.admit(16.0) is None
        assert breaker.retry_after(16.0) == pytest.approx(9.0)
        breaker.release(late[2])
        assert not breaker.done(late[2], 17.0, failed=True, seconds=0.0)
        assert breaker.counts(17.0) == (2, 0, 0)

    def test_of_probes_that_never_end_not_all_are_remembered(self) -> None:
        breaker = opened(FIVE)
        lost = [permit(breaker, 5.0 + 10.0 * number) for number in range(2000)]
        assert not breaker.done(lost[0], 20_000.0, failed=False, seconds=0.0)
        assert breaker.done(lost[-500], 20_000.0, failed=False, seconds=0.0)

    def test_ending_twice_is_ending_once(self) -> None:
        breaker = opened()
        probe = permit(breaker, 5.0)
        for _ in range(4):
            breaker.done(probe, 5.0, failed=False, seconds=0.0)
        assert breaker.state is State.HALF_OPEN

    @pytest.mark.parametrize("also", [OpenWhen(consecutive=5), OpenWhen(consecutive=5, slow=0.5, slow_after=1.0)])
    def test_where_failures_only_count_in_a_row_every_probe_must_succeed(self, also: OpenWhen) -> None:
        breaker = opened(Breaker(open_when=also, probes=3, open_for=1.0))
        for failed in (False, True, False):
            call(breaker, 1.0, failed=failed)
        assert breaker.state is State.OPEN

    def test_the_window_begins_anew_when_it_closes(self) -> None:
        breaker = opened(FIVE)
        call(breaker, 5.0)
        assert breaker.state is State.CLOSED
        for _ in range(4):
            call(breaker, 5.0, failed=True)
        assert breaker.state is State.CLOSED


class TestOperators:
    def test_forced_open_refuses_whatever_the_time(self) -> None:
        # shouldForceOpenCircuitBreaker
        breaker = breaker_of(UPSTREAM)
        assert breaker.force("open")
        assert breaker.admit(1e9) is None
        assert math.isinf(breaker.retry_after(1e9))
        assert breaker.force(None)
        assert breaker.admit(0.0) is not None

    def test_forced_closed_lets_everything_through_and_learns_nothing(self) -> None:
        # shouldDisableCircuitBreaker
        breaker = opened()
        breaker.force("closed")
        for _ in range(100):
            assert not call(breaker, 0.0, failed=True)
        assert breaker.state is State.DISABLED
        breaker.force(None)
        assert breaker.state is State.CLOSED

    def test_what_was_admitted_by_force_has_no_say_later(self) -> None:
        breaker = breaker_of(Breaker(open_when=OpenWhen(consecutive=1), force="closed"))
        late = permit(breaker, 0.0)
        breaker.force(None)
        assert not breaker.done(late, 0.0, failed=True, seconds=0.0)
        assert breaker.state is State.CLOSED

    def test_probes_of_before_have_no_say_later(self) -> None:
        breaker = opened()
        probes = [permit(breaker, 5.0) for _ in range(4)]
        breaker.force("closed")
        assert not any(breaker.done(probe, 5.0, failed=True, seconds=0.0) for probe in probes)
        breaker.force(None)
        for _ in range(5):
            call(breaker, 6.0, failed=True)
        assert [breaker.admit(11.0) is not None for _ in range(5)] == [True, True, True, True, False]

    def test_it_can_be_born_forced(self) -> None:
        assert breaker_of(Breaker(force="open")).state is State.FORCED_OPEN
        assert breaker_of(Breaker(force="closed")).state is State.DISABLED

    def test_no_force_leaves_a_circuit_that_judges_alone(self) -> None:
        breaker = opened()
        assert not breaker.force(None)
        assert breaker.state is State.OPEN

    def test_other_words_are_errors(self) -> None:
        with pytest.raises(ValueError, match="half-open"):
            breaker_of(UPSTREAM).force("half-open")


def test_every_change_of_the_state_is_counted() -> None:
    breaker = opened(FIVE)
    assert breaker.transitions == 1
    assert call(breaker, 5.0)
    assert breaker.transitions == 3, "half-open, and closed by its one probe"
