"""Calls that end otherwise than with an answer to their last attempt, and what they must not leave behind."""

from __future__ import annotations

import pytest
from trimtab.core.calling.call import Call
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.calling.statistics import Counters
from trimtab.core.retrying.conditions import Outcome
from trimtab.errors import CircuitOpen, RateLimited
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
