"""What a policy means to those who speak to an endpoint themselves: ``mesh.pick`` and ``mesh.attempts``."""

from __future__ import annotations

import asyncio
import logging

import pytest
from trimtab.errors import DeadlineExceeded, FaultInjected, RateLimited
from trimtab.testing import FakeAsyncMesh, FakeMesh


@pytest.fixture
def mesh(fake_mesh: FakeMesh) -> FakeMesh:
    fake_mesh.add("orders", *(f"10.0.0.{number}:8000" for number in range(1, 9)))
    return fake_mesh


@pytest.fixture
def async_mesh(fake_async_mesh: FakeAsyncMesh) -> FakeAsyncMesh:
    fake_async_mesh.add("orders", "10.0.0.1:8000", "10.0.0.2:8000")
    return fake_async_mesh


def failures(mesh: FakeMesh) -> int:
    return sum(tally.failures for tally in mesh.callee("orders").state.tallies.values())


def test_a_pick_waits_for_its_turn(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {timeout: 1m, limit: {rate: 1/s, wait: 10s}}")
    began = mesh.clock.now()
    for _ in range(5):
        mesh.pick("orders").done()
    assert mesh.clock.now() == pytest.approx(began + 4)


async def test_an_awaited_pick_waits_while_others_run(async_mesh: FakeAsyncMesh) -> None:
    async_mesh.policy("orders", "default: {timeout: 1m, limit: {rate: 1/s, wait: 10s}}")
    began = async_mesh.clock.now()
    await asyncio.gather(*(async_mesh.pick("orders") for _ in range(5)))
    assert async_mesh.clock.now() == pytest.approx(began + 4)


async def test_an_awaited_pick_that_is_given_up_holds_nothing(async_mesh: FakeAsyncMesh) -> None:
    async_mesh.policy("orders", "default: {timeout: 1h, concurrency: 1, fault: {delay: 10m}}")
    with pytest.raises(TimeoutError), async_mesh.clock.deadline(async_mesh.clock.now() + 1):
        await async_mesh.pick("orders")
    assert async_mesh.in_flight == (0, 0)
    async_mesh.policy("orders", "default: {timeout: 1h, concurrency: 1}")
    (await async_mesh.pick("orders")).done()


def test_a_pick_that_would_wait_too_long_is_refused(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {timeout: 1s, limit: {rate: 2/m, wait: 1m}}")
    mesh.pick("orders").done()
    with pytest.raises(DeadlineExceeded):
        mesh.pick("orders")


@pytest.mark.parametrize("condition", ["503", "UNAVAILABLE", "connect-failure"])
def test_a_pick_fails_where_the_policy_injects_a_fault(mesh: FakeMesh, condition: str) -> None:
    mesh.policy("orders", f"default: {{retry: 3, fault: {{abort: {condition}}}}}")
    with pytest.raises(FaultInjected) as caught:
        mesh.pick("orders")
    assert caught.value.condition == condition
    assert len(caught.value.__dict__["trimtab"].attempts) == 1
    counters = mesh.callee("orders").statistics.read()
    assert (counters.calls, counters.attempts, counters.failures) == (1, 1, 1)
    assert mesh.in_flight == (0, 0)


def test_attempts_fail_and_are_tried_again_where_the_policy_injects_a_fault(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {retry: {attempts: 3, on: '503'}, fault: {abort: 503}}")
    with pytest.raises(FaultInjected):
        for attempt in mesh.attempts("orders", idempotent=True):
            with attempt:
                pytest.fail("an attempt that a fault takes the place of was made")
    (call,) = mesh.calls("orders")
    assert len(call.attempts) == 3
    assert mesh.in_flight == (0, 0)


def test_attempts_that_nobody_makes_hold_nothing(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {concurrency: 1}")
    unused = mesh.attempts("orders")
    assert mesh.in_flight == (0, 0)
    mesh.pick("orders").done()
    with next(unused):
        assert mesh.in_flight == (0, 1)


def test_a_cancelled_pick_says_nothing_of_its_endpoint(mesh: FakeMesh) -> None:
    with pytest.raises(asyncio.CancelledError), mesh.pick("orders"):
        raise asyncio.CancelledError
    assert failures(mesh) == 0
    with pytest.raises(ConnectionResetError), mesh.pick("orders"):
        raise ConnectionResetError
    assert failures(mesh) == 1
    assert mesh.calls("orders")[1].attempts[0].error == "ConnectionResetError"


def test_a_key_keeps_picks_and_attempts_with_one_endpoint(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {balance: {algorithm: ring_hash, hash: {argument: user}}}")

    def tried(key: object) -> str:
        for attempt in mesh.attempts("orders", key=key):
            with attempt as endpoint:
                found = endpoint.id
        return found

    homes = {user: mesh.pick("orders", key=user).endpoint.id for user in range(50)}
    assert {user: mesh.pick("orders", key=user).endpoint.id for user in range(50)} == homes
    assert {user: tried(user) for user in range(50)} == homes
    assert len(set(homes.values())) > 4


def test_a_key_has_a_rate_of_its_own(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {limit: {rate: 1/m, per: key, key: {argument: user}}}")
    mesh.pick("orders", key="ann")
    mesh.pick("orders", key="bob")
    with pytest.raises(RateLimited):
        mesh.pick("orders", key="ann")


async def test_awaited_picks_and_attempts_have_keys_too(async_mesh: FakeAsyncMesh) -> None:
    async_mesh.policy("orders", "default: {limit: {rate: 1/m, per: key, key: {argument: user}}}")
    await async_mesh.pick("orders", key="ann")
    with pytest.raises(RateLimited):
        async for attempt in async_mesh.attempts("orders", key="ann"):
            with attempt:
                pass


def test_sections_without_effect_are_told_of_once(mesh: FakeMesh, caplog: pytest.LogCaptureFixture) -> None:
    mesh.add("papers", "10.0.1.1:8000")
    mesh.policy("papers", "default: {hedge: 1s, mirror: orders, fallback: {value: none}}")

    @mesh.guard("papers")
    def read(*, endpoint: object) -> str:
        return "read"

    with caplog.at_level(logging.WARNING, "trimtab"):
        for _ in range(3):
            mesh.pick("papers").done()
            read()
    told = [record.getMessage() for record in caplog.records]
    assert sorted(told) == [
        "policy.no_effect: default/papers: the fallback section of its policy has no effect on mesh.pick",
        "policy.no_effect: default/papers: the hedge section of its policy has no effect on mesh.pick",
        "policy.no_effect: default/papers: the mirror section of its policy has no effect on guarded functions",
        "policy.no_effect: default/papers: the mirror section of its policy has no effect on mesh.pick",
    ]
