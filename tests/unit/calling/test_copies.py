"""The copies of one call: where they go, what they cost, and what the call comes to."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.calling.hedged import Copies
from trimtab.core.retrying.budget import RatioBudget
from trimtab.core.retrying.conditions import OK, Outcome, outcome_of

from tests.unit.calling.nouns import HedgedService, hedged

POLICY = "default: {hedge: {delay: 100ms, attempts: 3}}"
HEDGE = "default: {hedge: 100ms}"
RESET, REFUSED = Outcome("reset"), Outcome("connect-failure", sent=False)
CANCELLED = Outcome("cancelled", failed=False, counted=False)


def test_each_copy_goes_to_an_endpoint_of_its_own() -> None:
    with hedged(POLICY) as service:
        _, copies = service.begin()
        sent = [copies.first, service.next_copy(copies), service.next_copy(copies)]
        assert len({copy.endpoint.id for copy in sent if copy.endpoint}) == 3
        assert [tally.in_flight for tally in service.tallies.values()] == [1, 1, 1]
        assert copies.due is None


def test_there_is_no_copy_where_there_is_no_other_endpoint() -> None:
    with hedged(POLICY, "10.0.0.1:80") as service:
        call, copies = service.begin()
        service.clock.advance(0.1)
        assert copies.another(service.clock.now()) is None
        assert copies.due is None
        copies.answered(copies.first, OK, "", service.clock.now())
        assert [attempt.error for attempt in call.attempts] == [""]


def test_an_endpoint_whose_circuit_is_open_gets_no_copy() -> None:
    policy = "default: {hedge: {delay: 0s, attempts: 3}, breaker: {open_when: 1 in a row}, outlier: off}"
    with hedged(policy, "10.0.0.1:80", "10.0.0.2:80") as service:
        _, copies = service.begin()
        copies.failed(copies.first, RESET, "reset", service.clock.now())
        second = service.next_copy(copies)
        copies.answered(second, OK, "", service.clock.now())
        # One circuit is open now, so that all of another call has one endpoint.
        _, copies = service.begin()
        assert copies.another(service.clock.now()) is None
        assert copies.first.endpoint == second.endpoint


def test_the_call_is_told_and_held_as_its_winner_with_the_others_as_earlier_attempts() -> None:
    with hedged(POLICY) as service:
        call, copies = service.begin()
        second = service.next_copy(copies)
        service.clock.advance(0.05)
        copies.answered(second, OK, "", service.clock.now())
        lost, won = call.attempts
        assert (lost.endpoint, lost.error) == (copies.first.endpoint, "cancelled")
        assert (won.endpoint, won.error) == (second.endpoint, "")
        assert (lost.seconds, won.seconds) == (pytest.approx(0.15), pytest.approx(0.05))
        assert service.in_flight == 2, "the answer is still to be read, and the loser to end"
        copies.lost(copies.first, CANCELLED, service.clock.now())
        service.pipeline.over(call, service.clock.now())
        assert service.in_flight == 0


def test_a_call_whose_copies_all_failed_is_in_flight_as_long_as_its_answer_is_read() -> None:
    with hedged("default: {hedge: 100ms}") as service:
        call, copies = service.begin()
        second = service.next_copy(copies)
        for copy in (copies.first, second):
            copies.failed(copy, outcome_of("503"), "503", service.clock.now())
        assert service.in_flight == 0
        copies.exhausted(service.clock.now())
        assert (service.in_flight, call.endpoint) == (1, second.endpoint)
        service.pipeline.over(call, service.clock.now())
        assert service.in_flight == 0


def test_a_loser_counts_neither_as_a_call_nor_as_a_failure_but_is_known_to_be_slow() -> None:
    with hedged(POLICY) as service:
        _, copies = service.begin()
        second = service.next_copy(copies)
        service.clock.advance(0.2)
        copies.answered(second, OK, "", service.clock.now())
        copies.lost(copies.first, CANCELLED, service.clock.now())
        assert copies.first.endpoint is not None
        tally = service.tallies[copies.first.endpoint.id]
        assert (tally.calls, tally.failures) == (0, 0)
        assert tally.cost == pytest.approx(0.3)


def test_a_copy_that_had_no_time_to_be_slow_tells_nothing_of_its_endpoint() -> None:
    with hedged(POLICY) as service:
        _, copies = service.begin()
        second = service.next_copy(copies)
        service.clock.advance(0.01)
        copies.answered(copies.first, OK, "", service.clock.now())
        copies.lost(second, CANCELLED, service.clock.now())
        assert second.endpoint is not None
        assert service.tallies[second.endpoint.id].cost == 0


def test_an_abandoned_copy_that_ended_all_the_same_counts_as_what_it_was() -> None:
    with hedged(POLICY) as service:
        _, copies = service.begin()
        second = service.next_copy(copies)
        copies.answered(second, OK, "", service.clock.now())
        service.clock.advance(3)
        copies.lost(copies.first, RESET, service.clock.now())
        assert copies.first.endpoint is not None
        tally = service.tallies[copies.first.endpoint.id]
        assert (tally.calls, tally.failures, tally.in_flight) == (1, 1, 0)


def test_after_a_failure_of_the_callee_the_next_copy_is_due_at_once() -> None:
    with hedged(POLICY) as service:
        call, copies = service.begin()
        copies.failed(copies.first, outcome_of("503"), "503", service.clock.now())
        assert copies.due == service.clock.now()
        second = service.next_copy(copies)
        copies.answered(second, OK, "", service.clock.now())
        assert [attempt.error for attempt in call.attempts] == ["503", ""]
        assert service.mesh.callee("orders").statistics.read().attempts == 2


def test_an_answer_that_blames_the_caller_settles_the_call() -> None:
    with hedged(POLICY) as service:
        call, copies = service.begin()
        service.next_copy(copies)
        copies.answered(copies.first, outcome_of("404"), "404", service.clock.now())
        assert [attempt.error for attempt in call.attempts] == ["cancelled", "404"]
        assert len(copies.under_way) == 1


def test_a_callee_that_pushes_back_moves_the_next_copy() -> None:
    with hedged(POLICY) as service:
        _, copies = service.begin()
        copies.failed(copies.first, outcome_of("503", 2.0), "503", service.clock.now())
        assert copies.due == service.clock.now() + 2.0
        assert not copies.over


def test_a_callee_that_wants_no_copies_ends_them() -> None:
    with hedged(POLICY) as service:
        call, copies = service.begin()
        copies.failed(copies.first, outcome_of("UNAVAILABLE", -1.0), "UNAVAILABLE", service.clock.now())
        assert copies.over
        copies.exhausted(service.clock.now())
        assert [attempt.error for attempt in call.attempts] == ["UNAVAILABLE"]


def test_a_connection_that_was_never_made_is_not_made_up_for_after_the_deadline() -> None:
    with hedged(POLICY) as service:
        _, copies = service.begin(deadline=service.clock.now() + 1)
        service.clock.advance(2)
        copies.failed(copies.first, REFUSED, "refused", service.clock.now())
        assert copies.due is None
        assert copies.over


def test_a_connection_that_was_never_made_is_made_up_for_elsewhere_beyond_the_number_of_copies() -> None:
    with hedged("default: {hedge: {delay: 100ms, attempts: 2}}", every="default: {retry: {throttle: 1}}") as service:
        call, copies = service.begin()
        for _ in range(2):
            copies.failed(next(iter(copies.under_way)), REFUSED, "refused", service.clock.now())
            service.next_copy(copies)
        copies.answered(next(iter(copies.under_way)), OK, "", service.clock.now())
        assert [attempt.error for attempt in call.attempts] == ["refused", "refused", ""]


def test_no_copy_is_due_after_the_deadline() -> None:
    with hedged(POLICY) as service:
        _, copies = service.begin(deadline=service.clock.now() + 0.1)
        assert copies.due is None
        _, copies = service.begin(deadline=service.clock.now() + 0.15)
        service.next_copy(copies)
        assert copies.due is None


def test_the_attempt_timeout_is_each_copys_own() -> None:
    with hedged("default: {hedge: {delay: 100ms}, timeout: {total: 1s, attempt: 300ms}}") as service:
        _, copies = service.begin()
        second = service.next_copy(copies)
        assert second.timeout(service.clock.now()) == pytest.approx(0.3)
        service.clock.advance(0.8)
        second.start(service.clock.now())
        assert second.timeout(service.clock.now()) == pytest.approx(0.1)


class TestBudget:
    def test_a_copy_that_it_refuses_is_not_sent_and_the_call_goes_on(self) -> None:
        with hedged(HEDGE, every="default: {retry: {budget: {ratio: 10%, at_least: 0}}}") as service:
            _, copies = service.begin()
            service.clock.advance(0.1)
            assert copies.another(service.clock.now()) is None
            assert copies.due is None
            assert not copies.over

    def test_copies_have_one_also_where_retries_are_off(self) -> None:
        with hedged("default: {hedge: {delay: 0s}}", every="default: {retry: off}") as service:
            for _ in range(5):
                call, copies = service.begin()
                copies.failed(copies.first, RESET, "reset", service.clock.now())
                copies.cancelled("", service.clock.now())
                service.pipeline.over(call, service.clock.now())
            _, copies = service.begin()
            assert copies.another(service.clock.now()) is None, "half of the ten tokens are gone"

    def test_one_attempt_of_each_call_counts_as_its_first_whichever_wins(self) -> None:
        with hedged(HEDGE, every="default: {retry: {budget: {ratio: 10%, at_least: 10}}}") as service:
            budget = service.pipeline._budget
            assert isinstance(budget, RatioBudget)
            for copy_wins in [True, False] * 5:
                call, copies = service.begin()
                second = service.next_copy(copies)
                winner, loser = (second, copies.first) if copy_wins else (copies.first, second)
                copies.answered(winner, OK, "", service.clock.now())
                copies.lost(loser, CANCELLED, service.clock.now())
                service.pipeline.over(call, service.clock.now())
            assert (budget._firsts, budget._retries, budget._returned, budget.under_way) == (10, 10, 0, 0)


def test_a_call_is_admitted_once_however_many_copies_it_has() -> None:
    with hedged("default: {hedge: {delay: 0s, attempts: 3}, concurrency: 1}") as service:
        for _ in range(3):
            call, copies = service.begin()
            service.next_copy(copies)
            service.next_copy(copies)
            copies.answered(copies.first, OK, "", service.clock.now())
            service.pipeline.over(call, service.clock.now())


def test_hedging_holds_only_where_repeating_does_no_harm() -> None:
    with hedged(POLICY) as service:
        call, _ = service.begin(idempotent=False)
        assert not service.hedged.holds_for(call)
        service.mesh.policy("orders", "default: {hedge: {delay: 100ms, when: always}}")
        call, _ = service.begin(idempotent=False)
        assert service.hedged.holds_for(call)
        call.once = True
        assert not service.hedged.holds_for(call)


OUTCOMES = [OK, outcome_of("404"), outcome_of("503"), outcome_of("503", 0.2), outcome_of("503", -1.0), RESET, REFUSED]


@settings(max_examples=300, deadline=None)
@given(
    attempts=st.integers(2, 5),
    endpoints=st.integers(1, 4),
    every=st.sampled_from(["", "retry: off", "breaker: 2 in a row", "retry: {budget: {ratio: 50%, at_least: 1}}"]),
    events=st.lists(
        st.tuples(
            st.sampled_from(["end", "end", "send", "wait", "cancel"]), st.integers(0, 9), st.sampled_from(OUTCOMES)
        ),
        max_size=25,
    ),
    late=st.lists(st.sampled_from([*OUTCOMES, CANCELLED]), min_size=5, max_size=5),
)
def test_whatever_happens_in_whatever_order_nothing_is_held_in_the_end(
    attempts: int, endpoints: int, every: str, events: list[tuple[str, int, Outcome]], late: list[Outcome]
) -> None:
    policy = f"default: {{hedge: {{delay: 100ms, attempts: {attempts}}}, concurrency: 1}}"
    with hedged(policy, *(f"10.0.0.{n}:80" for n in range(endpoints)), every=f"default: {{{every}}}") as service:
        call, copies = service.begin()
        settled = _play(service, copies, events)
        if not settled:
            copies.cancelled("cancelled", service.clock.now())
        for copy, outcome in zip(list(copies.under_way), late, strict=False):
            copies.lost(copy, outcome, service.clock.now())
            copies.lost(copy, outcome, service.clock.now())
        pipeline = service.pipeline
        pipeline.over(call, service.clock.now())
        assert service.in_flight == 0
        assert len(call.attempts) <= max(attempts, 3)
        assert service.mesh.callee("orders").statistics.read().attempts == len(call.attempts)
        if isinstance(pipeline._budget, RatioBudget):
            assert pipeline._budget.under_way == 0
        # The one place is free again, and no circuit waits for a probe.
        pipeline.over(pipeline.begin(service.clock.now() + 1000, deadline=inf), service.clock.now() + 1000)


def _play(service: HedgedService, copies: Copies, events: list[tuple[str, int, Outcome]]) -> bool:
    """What may happen to a call until it is settled."""
    clock = service.clock
    for kind, number, outcome in events:
        left = sorted(copies.under_way, key=lambda copy: copy.sent_at)
        if kind == "cancel":
            return False
        if kind == "wait":
            clock.advance(number / 20)
        elif kind == "end" and left:
            copy = left[number % len(left)]
            if not outcome.failed:
                copies.answered(copy, outcome, "", clock.now())
                return True
            copies.failed(copy, outcome, outcome.condition, clock.now())
        elif kind == "send" and copies.due is not None and copies.due <= clock.now():
            copies.another(clock.now())
        if copies.over:
            copies.exhausted(clock.now())
            return True
    return False
