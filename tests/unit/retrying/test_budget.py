"""The limits of retries: grpc-go's and Finagle's own answers, and that they are never passed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trimtab.core.retrying.budget import RatioBudget, RetryBudget, TokenThrottle, build_budget
from trimtab.policy import sections
from trimtab.policy.sections import Budget, Retry


def call(budget: RetryBudget, results: list[bool], attempts: int, now: float = 0.0) -> bool:
    """One call that takes its attempts' results from the front of ``results``. Returns whether it went well."""
    for made in range(1, attempts + 1):
        ok = results.pop(0)
        if made > 1:
            budget.released()
        if ok:
            budget.succeeded(now)
            return True
        budget.failed(now)
        if made == attempts or not budget.allows(now):
            return False
    raise AssertionError("an attempt returns")


class TestTokenThrottle:
    def test_grpc_go_gives_up_and_comes_back_at_the_known_calls(self) -> None:
        # grpc-go, test/retry_test.go, TestRetryThrottling: status and number of the last request of each call
        good = {0, 3, 6, 10, 11, 12, 13, 14, 16, 18}
        results = [number in good for number in range(30)]
        throttle = TokenThrottle(sections.TokenThrottle(tokens=10, ratio=0.5))
        seen = []
        for _ in range(12):
            ok = call(throttle, results, attempts=4)
            seen.append((ok, 30 - len(results) - 1, throttle.tokens))
        assert seen == [
            (True, 0, 10.0),
            (True, 3, 8.5),
            (True, 6, 7.0),
            (False, 8, 5.0),
            (False, 9, 4.0),
            (True, 10, 4.5),
            (True, 11, 5.0),
            (True, 12, 5.5),
            (True, 13, 6.0),
            (True, 14, 6.5),
            (True, 16, 6.0),
            (False, 17, 5.0),
        ]

    def test_exactly_half_is_not_enough(self) -> None:
        throttle = TokenThrottle(sections.TokenThrottle(tokens=10, ratio=0.1))
        allowed = []
        for _ in range(6):
            throttle.failed(0.0)
            allowed.append(throttle.allows(0.0))
        assert allowed == [True, True, True, True, False, False]

    def test_ten_successes_make_up_for_one_failure_without_drifting(self) -> None:
        throttle = TokenThrottle(sections.TokenThrottle(tokens=10, ratio=0.1))
        for _ in range(5):
            throttle.failed(0.0)
        for _ in range(1_000):
            throttle.failed(0.0)
            for _ in range(10):
                throttle.succeeded(0.0)
        assert throttle.tokens == 5.0
        assert not throttle.allows(0.0)

    @settings(max_examples=100, deadline=None)
    @given(
        tokens=st.floats(1, 1000),
        ratio=st.floats(0.001, 10),
        results=st.lists(st.booleans(), max_size=200),
    )
    def test_tokens_stay_between_none_and_all(self, tokens: float, ratio: float, results: list[bool]) -> None:
        throttle = TokenThrottle(sections.TokenThrottle(tokens=tokens, ratio=ratio))
        for ok in results:
            (throttle.succeeded if ok else throttle.failed)(0.0)
            assert 0.0 <= throttle.tokens <= round(tokens, 3)
            assert throttle.allows(0.0) == (throttle.tokens > round(tokens, 3) / 2)

    def test_an_outage_costs_three_retries_in_all(self) -> None:
        throttle = TokenThrottle(sections.TokenThrottle())
        results = [False] * 1_000
        for _ in range(500):
            call(throttle, results, attempts=4)
        assert 1_000 - len(results) == 500 + 3


class TestRatioBudget:
    # Finagle, RetryBudgetTest: 10,000 requests, each of which would be retried, with no minimum
    @pytest.mark.parametrize("ratio", [0.1, 0.5, 0.25, 0.75, 0.99, 0.999, 0.9999, 0.01, 0.001, 0.0001])
    def test_finagle_allows_a_share_of_the_requests(self, ratio: float) -> None:
        budget, retried = RatioBudget(Budget(ratio=ratio, at_least=0)), 0
        for _ in range(10_000):
            budget.succeeded(0.0)
            if budget.allows(0.0):
                retried += 1
                budget.released()
                budget.failed(0.0)
        assert retried == pytest.approx(10_000 * ratio, abs=1)

    def test_an_empty_budget_allows_nothing(self) -> None:
        budget = RatioBudget(Budget(ratio=0.0, at_least=0))
        for _ in range(100):
            budget.failed(0.0)
        assert not budget.allows(0.0)

    def test_three_may_always_be_under_way(self) -> None:
        # Envoy's min_retry_concurrency
        budget = RatioBudget(Budget())
        assert [budget.allows(0.0) for _ in range(4)] == [True, True, True, False]
        budget.released()
        assert budget.allows(0.0)

    def test_calls_of_more_than_ten_seconds_ago_earn_nothing(self) -> None:
        budget = RatioBudget(Budget(ratio=0.2, at_least=0))
        budget.succeeded(0.0)
        for _ in range(100):
            budget.succeeded(0.4)
        assert budget.allows(10.3)
        assert not budget.allows(10.6)

    def test_retries_of_more_than_ten_seconds_ago_are_forgiven(self) -> None:
        budget = RatioBudget(Budget(ratio=0.2, at_least=0))
        for _ in range(5):
            budget.succeeded(0.0)
        assert budget.allows(0.0)
        for _ in range(5):
            budget.succeeded(8.0)
        assert budget.allows(8.0)
        assert not budget.allows(8.0)
        assert not budget.allows(11.0)
        for _ in range(10):
            budget.succeeded(19.0)
        assert [budget.allows(19.0) for _ in range(3)] == [True, True, False]

    def test_a_retry_earns_no_further_retries(self) -> None:
        budget = RatioBudget(Budget(ratio=1.0, at_least=0))
        budget.failed(0.0)
        assert budget.allows(0.0)
        budget.released()
        budget.failed(0.0)
        assert not budget.allows(0.0)


class NeverTooMany(RuleBasedStateMachine):
    """Calls and retries begin and end in any order, and time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = RatioBudget(Budget(ratio=0.2, at_least=2))
        self.now = 0.0
        self.firsts: list[float] = []
        self.retries: list[float] = []
        self.under_way = 0

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 5.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 30), ok=st.booleans())
    def first_attempts_end(self, count: int, ok: bool) -> None:
        for _ in range(count):
            (self.budget.succeeded if ok else self.budget.failed)(self.now)
            self.firsts.append(self.now)

    @rule(count=st.integers(1, 10))
    def retries_are_asked_for(self, count: int) -> None:
        for _ in range(count):
            # What is surely in the window, and what may be.
            retries = sum(at > self.now - 10.0 for at in self.retries)
            firsts = sum(at > self.now - 10.0 for at in self.firsts)
            most = sum(at > self.now - 10.5 for at in self.firsts)
            older = sum(at > self.now - 10.5 for at in self.retries)
            if self.budget.allows(self.now):
                assert retries + 1 <= 0.2 * most or self.under_way < 2
                self.retries.append(self.now)
                self.under_way += 1
            else:
                assert self.under_way >= 2
                assert older + 1 > 0.2 * firsts

    @precondition(lambda self: self.under_way)
    @rule(ok=st.booleans())
    def a_retry_ends(self, ok: bool) -> None:
        self.budget.released()
        (self.budget.succeeded if ok else self.budget.failed)(self.now)
        self.under_way -= 1

    @invariant()
    def it_knows_how_many_are_under_way(self) -> None:
        assert self.budget.under_way == self.under_way


NeverTooMany.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestNeverTooMany = NeverTooMany.TestCase


class TestWhichOne:
    def test_a_budget_where_it_is_said(self) -> None:
        assert isinstance(build_budget(Retry(budget=Budget(ratio=0.5))), RatioBudget)

    def test_otherwise_a_throttle_with_what_is_said_of_it(self) -> None:
        for retry, tokens in ((Retry(), 10.0), (Retry(throttle=sections.TokenThrottle(tokens=50)), 50.0)):
            budget = build_budget(retry)
            assert isinstance(budget, TokenThrottle)
            assert budget.tokens == tokens
