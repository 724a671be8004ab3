"""Calls that their callers give up: counted as what they are, whenever that happens, and no failure of their callee."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from trimtab.core.calling.statistics import Counters
from trimtab.core.retrying.conditions import CANCELLED, outcome_of
from trimtab.discovery import Callee
from trimtab.prometheus import MeshCollector
from trimtab.testing import FakeAsyncMesh, FakeMesh

from tests.unit.hooks.heard import Heard

ONE = "10.0.0.1-80"
RETRIED = "default: {retry: {attempts: 3, on: ['503', exception], backoff: 10s..10s}}"
IN_TURN = "default: {limit: {rate: 1/m, burst: 1, wait: 1m}, timeout: 2m}"


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def mesh(heard: Heard) -> AsyncIterator[FakeAsyncMesh]:
    async with FakeAsyncMesh(hooks=[heard]) as mesh:
        mesh.add("orders", "10.0.0.1:80")
        yield mesh


async def service(mesh: FakeAsyncMesh) -> Callee:
    return await mesh.callee("orders")


def in_flight(callee: Callee) -> int:
    return sum(tally.in_flight for tally in callee.state.tallies.values())


def told(counted: Counters) -> tuple[int, int, int, int]:
    """Calls, failures, cancelled and attempts."""
    return counted.calls, counted.failures, counted.cancelled, counted.attempts


def interrupted(seconds: float) -> None:
    raise KeyboardInterrupt


async def give_up(mesh: FakeAsyncMesh, call: Awaitable[Any]) -> None:
    """After a second."""
    task = asyncio.ensure_future(call)
    await mesh.clock.pause(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_in_an_attempt(mesh: FakeAsyncMesh, heard: Heard) -> None:
    @mesh.guard("orders")
    async def work(*, endpoint: Any) -> None:
        await mesh.clock.pause(5.0)

    await give_up(mesh, work())
    callee = await service(mesh)
    counted = callee.statistics.read()
    assert told(counted) == (1, 0, 1, 1)
    assert (sum(counted.latencies), counted.seconds) == (0, 0.0), "nobody knows how long it would have taken"
    assert heard.moments == ["call", f"attempt to {ONE}", "came to cancelled", "over"]
    assert heard.calls[0].outcome == CANCELLED


async def test_between_two_attempts(mesh: FakeAsyncMesh, heard: Heard) -> None:
    mesh.policy("orders", RETRIED)
    mesh.respond("orders", 503)
    async with mesh.http_client() as http:
        await give_up(mesh, http.get("mesh://orders/"))
    callee = await service(mesh)
    assert told(callee.statistics.read()) == (1, 0, 1, 1)
    assert in_flight(callee) == 0
    assert heard.moments == ["call GET", f"http to {ONE}", "came to 503 503", "over"]
    call = heard.calls[0]
    assert call.outcome == CANCELLED
    assert [attempt.error for attempt in call.attempts] == ["503"]


async def test_before_its_turn(mesh: FakeAsyncMesh, heard: Heard) -> None:
    mesh.policy("orders", IN_TURN)
    mesh.respond("orders", 200)
    async with mesh.http_client() as http:
        await http.get("mesh://orders/")
        await give_up(mesh, http.get("mesh://orders/"))
    callee = await service(mesh)
    assert told(callee.statistics.read()) == (2, 0, 1, 1)
    assert in_flight(callee) == 0
    assert heard.moments[-2:] == ["call GET", "over"]
    assert (heard.calls[1].outcome, heard.calls[1].attempts) == (CANCELLED, ())


async def test_before_its_turn_as_the_probe_of_a_circuit_which_the_next_one_is_instead(mesh: FakeAsyncMesh) -> None:
    breaker = "breaker: {scope: service, open_when: 1 in a row, open_for: 1s, probes: 1}"
    mesh.policy("orders", f"default: {{retry: off, limit: {{rate: 0.1/s, burst: 1, wait: 1m}}, {breaker}}}")
    mesh.respond("orders", [500, 200])
    async with mesh.http_client() as http:
        await http.get("mesh://orders/")
        await mesh.clock.pause(2.0)
        await give_up(mesh, http.get("mesh://orders/"))
        assert (await http.get("mesh://orders/")).status_code == 200


async def test_in_a_race(mesh: FakeAsyncMesh) -> None:
    mesh.policy("orders", "default: {hedge: {delay: 300ms, attempts: 2, when: always}}")
    mesh.add("orders", "10.0.0.2:80")

    @mesh.guard("orders")
    async def work(*, endpoint: Any) -> None:
        await mesh.clock.pause(5.0)

    await give_up(mesh, work())
    callee = await service(mesh)
    assert told(callee.statistics.read()) == (1, 0, 1, 2)


def test_twice_is_once() -> None:
    with FakeMesh() as mesh:
        mesh.add("orders", "10.0.0.1:80")
        mesh.policy("orders", RETRIED)
        callee = mesh.callee("orders")
        pipeline = callee.pipeline("")
        call = pipeline.begin(mesh.clock.now())
        assert pipeline.failed(call, outcome_of("503"), "503", mesh.clock.now()) == pytest.approx(10.0, rel=0.2)
        for _ in range(2):
            pipeline.over(call, mesh.clock.now())
        assert told(callee.statistics.read()) == (1, 0, 1, 1)


def test_by_leaving_a_loop_of_attempts_between_two_of_them() -> None:
    with FakeMesh() as mesh:
        mesh.add("orders", "10.0.0.1:80")
        mesh.policy("orders", RETRIED)
        mesh.clock.sleep = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            for attempt in mesh.attempts("orders", idempotent=True):
                with attempt:
                    raise RuntimeError("not now")
        assert told(mesh.callee("orders").statistics.read()) == (1, 0, 1, 1)


async def test_which_prometheus_is_told_of(mesh: FakeAsyncMesh) -> None:
    registry = CollectorRegistry()
    MeshCollector(mesh, registry=registry)
    mesh.policy("orders", RETRIED)
    mesh.respond("orders", [200, 503])
    async with mesh.http_client() as http:
        await http.get("mesh://orders/")
        await give_up(mesh, http.get("mesh://orders/"))
    text = generate_latest(registry).decode()
    for outcome, count in (("success", 1.0), ("failure", 0.0), ("cancelled", 1.0)):
        assert f'trimtab_client_calls_total{{outcome="{outcome}",service="default/orders"}} {count}' in text
    assert 'trimtab_client_call_duration_seconds_count{service="default/orders"} 1.0' in text


def test_a_pick_that_failed_is_a_failure_whatever_might_be_tried_again() -> None:
    with FakeMesh() as mesh:
        mesh.add("orders", "10.0.0.1:80")
        mesh.policy("orders", RETRIED)
        mesh.pick("orders").done(ok=False)
        assert told(mesh.callee("orders").statistics.read()) == (1, 1, 0, 1)


def test_before_its_turn_although_it_needs_no_endpoint() -> None:
    with FakeMesh() as mesh:
        mesh.policy("orders", IN_TURN)
        pipeline = mesh.callee("orders").pipeline("Charge")
        now = mesh.clock.now()
        pipeline.answered(pipeline.begin(now, "Charge", local=True), now, True)
        for _ in range(2):
            call = pipeline.begin(now, "Charge", local=True)
            assert call.wait == pytest.approx(60.0), "whoever gave up before has given the turn back"
            pipeline.over(call, now)
            assert (call.sent, call.attempts) == (False, ())
