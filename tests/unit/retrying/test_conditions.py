"""What may be tried again: what was never sent always, the rest where it is safe and asked for."""

from __future__ import annotations

import pytest
from trimtab.core.retrying.conditions import IDEMPOTENT_METHODS, OK, Outcome, Retryable, idempotent, outcome_of
from trimtab.policy.sections import EVENTS, GRPC_CODES, Retry

DEFAULT = Retryable(Retry())
OFF = Retryable(None)


class TestNeverSent:
    @pytest.mark.parametrize("retryable", [DEFAULT, OFF, Retryable(Retry(on=("503",)))])
    @pytest.mark.parametrize("safe", [True, False])
    def test_may_always_be_tried_again(self, retryable: Retryable, safe: bool) -> None:
        assert retryable.allows(outcome_of("connect-failure"), safe)
        assert retryable.allows(Outcome("reset", sent=False), safe)  # refused stream, GOAWAY before the stream

    def test_unless_its_caller_gave_it_up(self) -> None:
        assert not DEFAULT.allows(Outcome("CANCELLED", failed=False, sent=False, counted=False), True)


class TestSent:
    @pytest.mark.parametrize("condition", ["reset", "503", "UNAVAILABLE"])
    def test_may_be_tried_again_for_a_condition_that_is_named_where_that_is_safe(self, condition: str) -> None:
        assert DEFAULT.allows(outcome_of(condition), True)
        assert not DEFAULT.allows(outcome_of(condition), False)
        assert Retryable(Retry(when="always")).allows(outcome_of(condition), False)

    @pytest.mark.parametrize("condition", ["500", "timeout", "INTERNAL", "404", "exception"])
    def test_not_for_others(self, condition: str) -> None:
        assert not DEFAULT.allows(outcome_of(condition), True)
        assert not Retryable(Retry(when="always")).allows(outcome_of(condition), True)

    def test_a_good_answer_is_kept(self) -> None:
        assert not Retryable(Retry(when="always", on=("5xx", "reset", "timeout"))).allows(OK, True)

    def test_5xx_stands_for_every_status_of_a_server_error(self) -> None:
        retryable = Retryable(Retry(on=("5xx",)))
        allowed = [status for status in range(400, 600) if retryable.allows(outcome_of(str(status)), True)]
        assert allowed == list(range(500, 600))

    def test_with_retry_off_nothing_that_was_sent_is_sent_again(self) -> None:
        assert not any(OFF.allows(Outcome(condition), True) for condition in (*EVENTS, *GRPC_CODES, "503"))

    def test_a_mistake_of_the_caller_is_retried_where_somebody_asks_for_it(self) -> None:
        assert Retryable(Retry(on=("ABORTED",))).allows(outcome_of("ABORTED"), True)


class TestWhoseFaultItIs:
    @pytest.mark.parametrize("status", ["400", "401", "403", "404", "409", "499"])
    def test_a_callee_that_tells_of_a_mistake_answered_as_it_should(self, status: str) -> None:
        assert outcome_of(status) == Outcome(status, failed=False, sent=True, counted=True)

    def test_a_cancelled_call_says_nothing_of_its_callee(self) -> None:
        assert outcome_of("CANCELLED") == Outcome("CANCELLED", failed=False, sent=True, counted=False)

    @pytest.mark.parametrize("condition", ["429", "500", "503", "599", "reset", "timeout", "exception"])
    def test_too_many_requests_and_server_errors_are_the_callees(self, condition: str) -> None:
        assert outcome_of(condition) == Outcome(condition, failed=True, sent=True, counted=True)

    def test_of_the_grpc_codes_six_are_the_callees(self) -> None:
        assert {code for code in GRPC_CODES if outcome_of(code).failed} == {
            "UNKNOWN", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"
        }  # fmt: skip

    def test_what_never_arrived_was_not_sent(self) -> None:
        assert not outcome_of("connect-failure").sent

    def test_what_the_callee_asks_for_is_kept(self) -> None:
        assert outcome_of("UNAVAILABLE", 1.5).pushback == 1.5


class TestIdempotent:
    def test_by_method(self) -> None:
        # RFC 9110, 9.2.2
        assert {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"} == IDEMPOTENT_METHODS
        assert all(map(idempotent, IDEMPOTENT_METHODS))
        assert not any(map(idempotent, ("POST", "PATCH", "CONNECT", "get")))

    def test_by_an_idempotency_key(self) -> None:
        assert idempotent("POST", {"Idempotency-Key": "42"})
        assert idempotent("POST", ["host", "idempotency-key"])
        assert not idempotent("POST", {"host": "orders"})
