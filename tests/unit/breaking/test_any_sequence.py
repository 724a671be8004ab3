"""No sequence of events leaves a circuit breaker stuck, or otherwise than the book has it."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trimtab.core.breaking.breaker import CircuitBreaker, State
from trimtab.policy.sections import Breaker
from trimtab.policy.sentences import OpenWhen

from tests.unit.breaking.test_breaker import call


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
