"""Guarded functions, attempts and picks of a fake mesh, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from trimtab.errors import CircuitOpen
from trimtab.testing import FakeAsyncMesh, FakeMesh


@pytest.fixture
def mesh(fake_mesh: FakeMesh) -> FakeMesh:
    fake_mesh.add("orders", "10.0.0.1:8000", "10.0.0.2:8000")
    return fake_mesh


def test_a_guarded_function_falls_back_and_recovers(mesh: FakeMesh) -> None:
    mesh.policy(
        "orders", "default: {retry: off, breaker: {scope: service, open_when: 2 in a row, open_for: 15s, probes: 1}}"
    )
    well = False

    @mesh.guard("orders", method="Charge", fallback=lambda: "later")
    def charge() -> str:
        if not well:
            raise ConnectionResetError
        return "paid"

    assert [charge() for _ in range(3)] == ["later"] * 3
    assert [call.refused for call in mesh.calls("orders")] == ["", "", "breaker"]
    well = True
    mesh.clock.advance(20)
    assert charge() == "paid"
    assert [call.fallback for call in mesh.calls("orders")] == ["function", "function", "function", ""]
    assert {call.method for call in mesh.calls("orders")} == {"Charge"}


def test_a_generator_function_is_refused_when_it_is_guarded(mesh: FakeMesh) -> None:
    def lines() -> Iterator[str]:
        yield "one"

    async def awaited_lines() -> AsyncIterator[str]:
        yield "one"

    for function in (lines, awaited_lines):
        with pytest.raises(
            TypeError, match=r"lines cannot be guarded: .* Guard what it calls, or loop over mesh\.attempts"
        ):
            mesh.guard("orders")(function)


@pytest.mark.parametrize("policy", ["default: {}", "default: {fallback: {cache: {max_age: 1m}}}"])
def test_the_endpoint_is_the_meshs_to_say_by_whatever_way_a_call_goes(mesh: FakeMesh, policy: str) -> None:
    mesh.policy("orders", policy)

    @mesh.guard("orders")
    def charge(*, endpoint: object) -> object:
        return endpoint

    for call in (charge, charge.traced):  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="multiple values for keyword argument 'endpoint'"):
            call(endpoint="mine")


def test_a_service_that_is_forgotten_while_it_is_discovered_is_not_remembered(mesh: FakeMesh) -> None:
    callee = mesh._engine.discover("orders")
    mesh.unsubscribe("orders")
    mesh._engine.remember("orders", None, callee)
    with mesh.pick("orders") as pick:
        assert pick.call.pipeline is not callee.pipeline("")
    assert mesh.callee("orders") is not callee


def test_threads_that_call_and_one_that_changes_the_mesh_do_not_wait_for_each_other(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {breaker: {scope: service, open_when: 1 in a row}}")
    with mesh._engine.lock, ThreadPoolExecutor(1) as other:

        def fail() -> None:
            with mesh.pick("orders") as pick:
                pick.done(False)

        other.submit(fail).result(10)
    with pytest.raises(CircuitOpen):
        mesh.pick("orders")


def test_attempts_wait_in_virtual_time(mesh: FakeMesh) -> None:
    mesh.policy("orders", "default: {timeout: 5m, retry: {attempts: 3, on: [reset], backoff: 10s..60s}}")
    left = [ConnectionResetError(), ConnectionResetError(), None]
    for attempt in mesh.attempts("orders", idempotent=True):
        with attempt as endpoint:
            error = left.pop(0)
            if error is not None:
                raise error
    assert endpoint.id in ("10.0.0.1-8000", "10.0.0.2-8000")
    (call,) = mesh.calls("orders")
    assert len(call.attempts) == 3
    assert mesh.clock.now() > call.began


def test_a_pick_takes_as_long_as_the_test_says(mesh: FakeMesh) -> None:
    with mesh.pick("orders") as pick:
        mesh.clock.advance(0.5)
        assert mesh.in_flight == (0, 1)
    assert pick.call.seconds == 0.5
    assert mesh.in_flight == (0, 0)


def test_every_fake_mesh_with_one_seed_makes_the_same_choices() -> None:
    def chosen(seed: int) -> list[str]:
        with FakeMesh(seed=seed) as mesh:
            mesh.add("orders", *(f"10.0.0.{number}:8000" for number in range(1, 9)))
            return [mesh.pick("orders").endpoint.id for _ in range(20)]

    assert chosen(0) == chosen(0)
    assert chosen(0) != chosen(1)


async def test_an_awaited_function_ends_with_its_attempts_time(fake_async_mesh: FakeAsyncMesh) -> None:
    mesh = fake_async_mesh
    mesh.add("orders", "10.0.0.1:8000")
    mesh.policy("orders", "default: {timeout: {total: 10s, attempt: 2s}, retry: off}")

    @mesh.guard("orders")
    async def hang() -> None:
        await mesh.clock.pause(60)

    with pytest.raises(TimeoutError):
        await hang()
    assert mesh.clock.now() == 1002.0
    assert mesh.calls("orders")[0].outcome.condition == "timeout"  # type: ignore[union-attr]


async def test_awaited_attempts_wait_in_virtual_time(fake_async_mesh: FakeAsyncMesh) -> None:
    mesh = fake_async_mesh
    mesh.add("orders", "10.0.0.1:8000")
    mesh.policy("orders", "default: {timeout: 5m, retry: {attempts: 2, on: [reset], backoff: 10s..60s}}")
    with pytest.raises(ConnectionResetError):
        async for attempt in mesh.attempts("orders", idempotent=True):
            with attempt:
                raise ConnectionResetError
    assert len(mesh.calls("orders")[0].attempts) == 2


async def test_tasks_live_through_a_pause_of_the_test(fake_async_mesh: FakeAsyncMesh) -> None:
    mesh = fake_async_mesh
    mesh.add("orders", "10.0.0.1:8000")
    mesh.policy("orders", "default: {retry: off, breaker: {scope: service, open_when: 3 in a row, open_for: 15s}}")

    @mesh.guard("orders")
    async def poll() -> None:
        raise ConnectionResetError

    async def poll_every_second() -> int:
        made = 0
        try:
            while True:
                made += 1
                try:
                    await poll()
                except ConnectionResetError:
                    await mesh.clock.pause(1)
        except CircuitOpen:
            return made

    task = asyncio.create_task(poll_every_second())
    await mesh.clock.pause(10)
    assert await task == 4
    assert mesh.clock.now() == 1010.0
