"""When copies of a slow call are sent: the rules of gRFC A6's hedging policy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.retrying.budget import TokenThrottle
from trimtab.core.retrying.hedging import Hedging
from trimtab.policy import sections
from trimtab.policy.sections import Hedge

# gRFC A6's example: four attempts, half a second apart
EXAMPLE = Hedge(attempts=4, delay=0.5)


def budget() -> TokenThrottle:
    return TokenThrottle(sections.TokenThrottle())


def exhausted() -> TokenThrottle:
    spent = budget()
    for _ in range(10):
        spent.failed(0.0)
    return spent


def test_a_copy_follows_each_delay_until_all_are_sent() -> None:
    # A6: after 1 ms there is one, after 501 ms two, after 1001 ms three, after 1501 ms four
    hedging, tokens = Hedging(EXAMPLE, 0.0), budget()
    under_way = []
    for now in (0.001, 0.501, 1.001, 1.501, 2.001):
        hedging.take(now, tokens)
        under_way.append(hedging.under_way)
    assert under_way == [1, 2, 3, 4, 4]
    assert hedging.due is None


def test_a_late_copy_moves_the_next_ones() -> None:
    hedging = Hedging(EXAMPLE, 0.0)
    assert hedging.take(0.7, budget())
    assert hedging.due == pytest.approx(1.2)


def test_after_a_failure_that_is_not_fatal_the_next_is_due_at_once() -> None:
    hedging, tokens = Hedging(EXAMPLE, 0.0), budget()
    assert not hedging.failed(0.1)
    assert hedging.take(0.1, tokens)
    assert hedging.due == pytest.approx(0.6)


def test_a_fatal_failure_ends_the_call() -> None:
    hedging, tokens = Hedging(EXAMPLE, 0.0), budget()
    hedging.take(0.5, tokens)
    assert hedging.failed(0.6, fatal=True)
    assert hedging.due is None


def test_when_all_copies_have_failed_the_call_has() -> None:
    hedging, tokens = Hedging(Hedge(attempts=2, delay=0.5), 0.0), budget()
    hedging.take(0.5, tokens)
    assert not hedging.failed(0.6)
    assert hedging.failed(0.7)


class TestPushback:
    def test_moves_the_next_copy_and_those_after_it(self) -> None:
        hedging, tokens = Hedging(EXAMPLE, 0.0), budget()
        assert not hedging.failed(0.1, pushback=2.0), "the next one is still to come"
        assert not hedging.take(2.0, tokens)
        assert hedging.take(2.1, tokens)
        assert hedging.due == pytest.approx(2.6)

    def test_not_to_try_again_ends_the_copies_but_not_the_call(self) -> None:
        hedging, tokens = Hedging(EXAMPLE, 0.0), budget()
        hedging.take(0.5, tokens)
        assert not hedging.failed(0.6, pushback=-1.0)
        assert not hedging.take(9.0, tokens)
        assert hedging.failed(9.1)


class TestBudget:
    def test_one_that_refuses_ends_the_copies_but_not_the_call(self) -> None:
        hedging, tokens = Hedging(EXAMPLE, 0.0), exhausted()
        assert not hedging.take(0.5, tokens)
        assert hedging.due is None
        assert hedging.failed(0.6)

    def test_is_not_asked_before_a_copy_is_due(self) -> None:
        hedging = Hedging(EXAMPLE, 0.0)
        assert not hedging.take(0.4, exhausted())
        assert hedging.due == 0.5


@settings(max_examples=100, deadline=None)
@given(
    attempts=st.integers(2, 10),
    delay=st.sampled_from([0.0, 0.1, 1.0]),
    events=st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.05, 0.3, 2.0])), max_size=60),
)
def test_there_are_never_more_copies_than_allowed_and_the_call_ends(
    attempts: int, delay: float, events: list[tuple[bool, float]]
) -> None:
    hedging, now, sent, over = Hedging(Hedge(attempts=attempts, delay=delay), 0.0), 0.0, 1, False
    unlimited = TokenThrottle(sections.TokenThrottle(tokens=1000))
    for fails, wait in events:
        now += wait
        if fails and hedging.under_way:
            over = hedging.failed(now)
        sent += hedging.take(now, unlimited)
        assert sent <= attempts
        assert over == (not hedging.under_way and hedging.due is None)
    while not over:
        sent += hedging.take(now, unlimited)
        over = hedging.failed(now)
    assert sent <= attempts
