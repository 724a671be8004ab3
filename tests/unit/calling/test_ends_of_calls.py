"""Calls that end otherwise than with an answer to their last attempt, and what they must not leave behind."""

from __future__ import annotations

import pytest
from trimtab.core.calling.call import Call
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.calling.statistics import Counters
from trimtab.core.retrying.conditions import Outcome
from trimtab.errors import CircuitOpen, Overloaded, RateLimited
from trimtab.testing import FakeAsyncMesh, FakeMesh

RESET = Outcome("reset")


@pytest.fixture
def mesh(fake_mesh: FakeMesh) -> FakeMesh:
    fake_mesh.add("orders", "10.0.0.1:8000", "10.0.0.2:8000")
    return fake_mesh


def counted(mesh: FakeMesh) -> Counters:
    return mesh.callee("orders").statistics.read()


def fail(mesh: FakeMesh, pipeline: Pipeline, call: Call) -> float | None:
    return pipeline.failed(call, RESET, "reset", mesh.clock.now())


def test_a_call_that_was_sent_keeps_its_place_in_the_rate_whatever_keeps_it_from_going_on(mesh: FakeMesh) -> None:
    mesh.policy(
        "orders",
        "default: {limit: 1/h, retry: {attempts: 3, on: reset}, breaker: {scope: service, open_when: 1 in a row}}",
    )

    @mesh.guard("orders", idempotent=True)
    def charge(*, endpoint: object) -> None:
        raise ConnectionResetError

    with pytest.raises(CircuitOpen) as caught:
        charge()
    assert len(caught.value.__dict__["trimtab"].attempts) == 1
    with pytest.raises(RateLimited):
        charge()


def test_nothing_is_sent_after_the_deadline_also_where_no_connection_could_be_made(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {timeout: 1s, retry: off}")
    sent = []

    @mesh.guard("orders")
    def charge(*, endpoint: object) -> None:
        sent.append(endpoint)
        mesh.clock.advance(2)
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        charge()
    assert len(sent) == 1


def test_a_probe_that_is_given_up_before_it_is_sent_leaves_its_place_to_another_at_once(mesh: FakeMesh) -> None:
    mesh.policy(
        "orders",
        """
default:
  timeout: 1h
  retry: off
  fault: {delay: 5s}
  breaker: {scope: service, open_when: 1 in a row, open_for: 10s, probes: 1, probe_deadline: 1m}
""",
    )
    pipeline = mesh.callee("orders").pipeline("")
    call = pipeline.begin(mesh.clock.now())
    assert fail(mesh, pipeline, call) is None
    pipeline.over(call, mesh.clock.now())
    mesh.clock.advance(11)
    probe = pipeline.begin(mesh.clock.now())
    with pytest.raises(CircuitOpen):
        pipeline.begin(mesh.clock.now())
    pipeline.over(probe, mesh.clock.now())
    pipeline.begin(mesh.clock.now())


async def test_a_call_that_is_given_up_between_two_attempts_is_counted_once(fake_async_mesh: FakeAsyncMesh) -> None:
    mesh = fake_async_mesh
    mesh.add("orders", "10.0.0.1:8000")
    mesh.policy("orders", "default: {timeout: 5m, retry: {attempts: 3, on: reset, backoff: 60s..60s}}")

    @mesh.guard("orders", idempotent=True)
    async def charge(*, endpoint: object) -> None:
        raise ConnectionResetError

    with pytest.raises(TimeoutError), mesh.clock.deadline(mesh.clock.now() + 1):
        await charge()
    counters = counted(mesh.sync)
    assert (counters.calls, counters.attempts, counters.failures, counters.cancelled) == (1, 1, 0, 1)
    assert mesh.in_flight == (0, 0)


def test_a_call_that_went_on_after_it_waited_is_counted_once_too(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {timeout: 5m, retry: {attempts: 3, on: reset, backoff: 1s..1s}}")
    pipeline = mesh.callee("orders").pipeline("")
    call = pipeline.begin(mesh.clock.now())
    assert fail(mesh, pipeline, call) is not None
    pipeline.again(call, mesh.clock.now())
    pipeline.answered(call, mesh.clock.now())
    pipeline.over(call, mesh.clock.now())
    pipeline.over(call, mesh.clock.now())
    counters = counted(mesh)
    assert (counters.calls, counters.attempts, counters.failures) == (1, 2, 0)


def test_a_call_whose_wait_no_clock_can_tell_was_sent_all_the_same(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {retry: off, fault: {delay: 1ms}}")
    pipeline, now = mesh.callee("orders").pipeline(""), 1e15
    call = pipeline.begin(now)
    assert call.wait
    pipeline.go_on(call, now)
    pipeline.answered(call, now)
    pipeline.over(call, now, broke=True)
    counters = counted(mesh)
    assert (counters.calls, counters.attempts, counters.failures, counters.cancelled) == (1, 1, 1, 0)
    assert len(call.attempts) == 1
    assert mesh.in_flight == (0, 0)


def test_a_call_of_before_its_endpoint_was_away_says_nothing_of_the_circuit_that_it_has_now(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {retry: off, outlier: off, breaker: {open_when: 1 in a row}}")
    pipeline = mesh.callee("orders").pipeline("")
    call = pipeline.begin(mesh.clock.now())
    assert call.endpoint is not None
    mesh.remove("orders", call.endpoint.id)
    mesh.add("orders", call.endpoint.target)
    for _ in range(4):
        pipeline.answered(pipeline.begin(mesh.clock.now()), mesh.clock.now(), True)
    assert fail(mesh, pipeline, call) is None
    pipeline.over(call, mesh.clock.now())
    assert counted(mesh).transitions == {}


def test_where_the_circuits_of_the_others_are_open_who_was_tried_is_tried_again(mesh: FakeMesh) -> None:
    mesh.policy(
        "orders",
        """
default:
  balance: round_robin
  outlier: off
  retry: {attempts: 3, on: reset}
  breaker: {scope: endpoint, open_when: 2 in a row, open_for: 1h}
""",
    )
    pipeline = mesh.callee("orders").pipeline("")
    for _ in range(4):
        call = pipeline.begin(mesh.clock.now(), idempotent=False)
        assert call.endpoint is not None
        if call.endpoint.id == "10.0.0.1-8000":
            fail(mesh, pipeline, call)
        else:
            pipeline.answered(call, mesh.clock.now())
        pipeline.over(call, mesh.clock.now())
    call = pipeline.begin(mesh.clock.now())
    assert fail(mesh, pipeline, call) is not None
    pipeline.again(call, mesh.clock.now())
    assert [attempt.endpoint and attempt.endpoint.id for attempt in call.attempts] == ["10.0.0.2-8000"] * 2
    assert fail(mesh, pipeline, call) is not None
    with pytest.raises(CircuitOpen):
        pipeline.again(call, mesh.clock.now())


@pytest.mark.parametrize("limit", ["vegas", "gradient2"])
def test_how_soon_no_connection_was_made_is_no_time_of_the_callee(mesh: FakeMesh, limit: str) -> None:
    mesh.policy("orders", f"default: {{timeout: off, retry: off, concurrency: {{adaptive: {limit}}}}}")
    pipeline = mesh.callee("orders").pipeline("")
    (bulkhead,) = mesh.callee("orders").rules.bulkheads.values()

    def calls(seconds: float, outcome: Outcome | None) -> None:
        under_way = [pipeline.begin(mesh.clock.now()) for _ in range(bulkhead.limit)]
        mesh.clock.advance(seconds)
        for call in under_way:
            if outcome is None:
                pipeline.answered(call, mesh.clock.now())
            else:
                assert pipeline.failed(call, outcome, outcome.condition, mesh.clock.now(), last=True) is None
            pipeline.over(call, mesh.clock.now())
        mesh.clock.advance(0.2)

    for _ in range(20):
        calls(0.0001, Outcome("connect-failure", sent=False))
    assert bulkhead.limit == 20
    for _ in range(20):
        calls(0.02, None)
    assert bulkhead.limit > 30


def test_no_connection_is_no_call_that_was_accepted(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {retry: off, outlier: off, throttle: 2}")
    pipeline = mesh.callee("orders").pipeline("")

    def call(outcome: Outcome) -> bool:
        try:
            call = pipeline.begin(mesh.clock.now())
        except Overloaded:
            return False
        pipeline.failed(call, outcome, outcome.condition, mesh.clock.now(), last=True)
        pipeline.over(call, mesh.clock.now())
        return True

    for _ in range(200):
        call(Outcome("connect-failure", sent=False))
    assert sum(call(Outcome("503")) for _ in range(100)) < 50


@pytest.mark.parametrize(
    ("condition", "pushback", "tried_again"),
    [("500", None, True), ("503", None, False), ("500", -1.0, False)],
)
def test_only_what_is_worth_another_attempt_uses_up_the_retry_throttle(
    mesh: FakeMesh, condition: str, pushback: float | None, tried_again: bool
) -> None:
    mesh.policy("orders", "default: {retry: {on: 503}, outlier: off}")
    pipeline = mesh.callee("orders").pipeline("")

    def fail(outcome: Outcome, *, last: bool) -> float | None:
        call = pipeline.begin(mesh.clock.now())
        delay = pipeline.failed(call, outcome, outcome.condition, mesh.clock.now(), last)
        pipeline.over(call, mesh.clock.now())
        return delay

    for _ in range(5):
        fail(Outcome(condition, pushback=pushback), last=True)
    assert (fail(Outcome("503"), last=False) is not None) is tried_again
