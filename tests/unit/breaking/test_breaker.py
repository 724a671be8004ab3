"""The circuit breaker: what resilience4j's own tests say, and that no sequence of events leaves it stuck."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
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


class Half:
    """No jitter: what is spread from 0.8 to 1.2 becomes 1."""

    def random(self) -> float:
        return 0.5


class Naive:
    """The same by the book: everything that ever happened is kept, and judged after every single completion."""

    def __init__(self, settings: Breaker) -> None:
        self.settings = settings
        self.state = State.CLOSED
        self.period = 0
        self.results: list[tuple[bool, bool]] = []
        self.leases: dict[int, float] = {}
        self.openings = 0
        self.until = 0.0

    def admits(self, now: float) -> bool:
        if self.state is State.OPEN and now >= self.until:
            self.enter(State.HALF_OPEN)
        if self.state is State.HALF_OPEN:
            taken = sum(until > now for until in self.leases.values())
            return taken + len(self.results) < self.settings.probes
        return self.state in (State.CLOSED, State.DISABLED)

    def lease(self, permit: int, now: float) -> None:
        if self.state is State.HALF_OPEN:
            self.leases[permit] = now + self.settings.probe_deadline

    def ended(self, permit: int, period: int, now: float, failed: bool, slow: bool) -> None:
        when = self.settings.open_when
        if period != self.period:
            return
        if self.state is State.CLOSED:
            self.results.append((failed, slow))
            window = self.results[-(when.calls or 0) :]
            row = self.results[-(when.consecutive or 0) :]
            in_a_row = len(row) == when.consecutive and all(failed for failed, _ in row)
            if in_a_row or (len(window) >= when.minimum and self.bad(window)):
                self.open(now)
        elif self.state is State.HALF_OPEN and self.leases.pop(permit, None) is not None:
            self.results.append((failed, slow))
            if len(self.results) == self.settings.probes:
                if self.bad(self.results):
                    self.open(now)
                else:
                    self.openings = 0
                    self.enter(State.CLOSED)

    def bad(self, results: list[tuple[bool, bool]]) -> bool:
        when = self.settings.open_when
        failed, slow = (sum(column) / len(results) for column in zip(*results, strict=True))
        return failed >= (when.failures or 2) or slow >= (when.slow or 2)

    def open(self, now: float) -> None:
        self.until = now + min(self.settings.open_for * 2**self.openings, self.settings.open_limit)
        self.openings += 1
        self.enter(State.OPEN)

    def enter(self, state: State) -> None:
        self.state = state
        self.period += 1
        self.results = []
        self.leases = {}


class AnySequence(RuleBasedStateMachine):
    """Calls begin, end well or badly, are given up or forgotten, time passes, operators have their say."""

    def __init__(self) -> None:
        super().__init__()
        when = OpenWhen(calls=10, minimum=4, failures=0.5, slow=0.75, slow_after=1.0, consecutive=4)
        self.settings = Breaker(open_when=when, open_for=5.0, open_limit=20.0, probes=3, probe_deadline=7.0)
        self.breaker = CircuitBreaker(self.settings, Half())
        self.naive = Naive(self.settings)
        self.now = 0.0
        self.under_way: list[tuple[int, int]] = []

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 5.0, 7.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(calls=st.integers(1, 5))
    def begin(self, calls: int) -> None:
        for _ in range(calls):
            expected = self.naive.admits(self.now)
            given = self.breaker.admit(self.now)
            assert (given is not None) == expected
            if given is not None:
                self.naive.lease(given, self.now)
                self.under_way.append((given, self.naive.period))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 50), failed=st.booleans(), seconds=st.sampled_from([0.1, 1.0, 1.5]))
    def end(self, which: int, failed: bool, seconds: float) -> None:
        given, period = self.under_way.pop(which % len(self.under_way))
        was = self.breaker.state
        self.naive.ended(given, period, self.now, failed, seconds > 1.0)
        assert self.breaker.done(given, self.now, failed, seconds) == (self.breaker.state is not was)

    @rule(failed=st.lists(st.booleans(), min_size=1, max_size=8))
    def calls_that_end_at_once(self, failed: list[bool]) -> None:
        for one in failed:
            self.begin(1)
            if self.breaker.state is State.CLOSED:
                self.end(len(self.under_way) - 1, one, 0.1)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 50))
    def give_up(self, which: int) -> None:
        given, _ = self.under_way.pop(which % len(self.under_way))
        self.breaker.release(given)
        self.naive.leases.pop(given, None)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 50))
    def lose(self, which: int) -> None:
        self.under_way.pop(which % len(self.under_way))

    @rule(will=st.sampled_from(["open", "closed"]))
    def force(self, will: str) -> None:
        self.breaker.force(will)
        state = State.FORCED_OPEN if will == "open" else State.DISABLED
        if self.naive.state is not state:
            self.naive.enter(state)

    @rule()
    def judge_again(self) -> None:
        self.breaker.force(None)
        if self.naive.state in (State.FORCED_OPEN, State.DISABLED):
            self.naive.openings = 0
            self.naive.enter(State.CLOSED)

    @invariant()
    def it_is_where_the_book_says(self) -> None:
        assert self.breaker.state is self.naive.state
        assert self.breaker.transitions == self.naive.period

    @invariant()
    def never_more_probes_than_there_are_places(self) -> None:
        assert sum(until > self.now for until in self.naive.leases.values()) <= self.settings.probes

    @invariant()
    def it_says_when_to_come_back(self) -> None:
        wait = self.breaker.retry_after(self.now)
        assert wait == math.inf if self.breaker.state is State.FORCED_OPEN else 0.0 <= wait <= 20.0

    def teardown(self) -> None:
        """Whatever happened: after silence a call is admitted, and a callee that is well again is called again."""
        forced = self.breaker.state is State.FORCED_OPEN
        self.now += self.settings.open_limit * 1.2 + self.settings.probe_deadline
        assert (self.breaker.admit(self.now) is None) == forced
        self.breaker.force(None)
        for _ in range(3 * self.settings.probes):
            self.now += self.breaker.retry_after(self.now)
            call(self.breaker, self.now)
        assert self.breaker.state in (State.CLOSED, State.DISABLED)


AnySequence.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAnySequence = AnySequence.TestCase
