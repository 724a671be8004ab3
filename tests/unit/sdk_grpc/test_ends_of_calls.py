"""How calls over gRPC come to their end, blocking and awaited."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from trimtab.errors import NoEndpoints

from tests.unit.sdk_grpc.shop import (
    RETRIED,
    UNAVAILABLE,
    Caller,
    Shop,
    both,
    failure,
)
from tests.unit.sdk_http.known_mesh import endpoint_at


async def test_a_cancelled_call_is_cancelled_at_its_callee(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port))
    async with caller.stub(mesh) as stub:
        call = caller.begin(stub, "hang")
        assert await asyncio.to_thread(shop.hanging.wait, 10)
        assert not call.done()
        assert call.cancel()
        assert await asyncio.to_thread(shop.left.wait, 10)
        assert not call.cancel()
        assert call.cancelled()
        assert call.done()
        assert await caller.told(call.code) is grpc.StatusCode.CANCELLED
    assert mesh.in_flight == 0
    assert mesh.outcomes == []
    counted = mesh.service.statistics.read()
    assert (counted.calls, counted.failures, counted.cancelled) == (1, 0, 1)


async def test_a_call_that_is_cancelled_between_two_attempts_is_a_cancelled_one(caller: Caller, shop: Shop) -> None:
    shop.failing = 1
    mesh = caller.mesh(endpoint_at(shop.port), policy=RETRIED.replace("1ms..1ms", "10s..10s"))
    async with caller.stub(mesh) as stub:
        call = caller.begin(stub, "42", timeout=60)
        async with asyncio.timeout(10):
            while mesh.outcomes != [("a", False)]:
                await asyncio.sleep(0.01)
        assert call.cancel()
        async with asyncio.timeout(10):
            while not mesh.service.statistics.read().cancelled:
                await asyncio.sleep(0.01)
    counted = mesh.service.statistics.read()
    assert (counted.calls, counted.failures, counted.cancelled, counted.attempts) == (1, 0, 1, 1)
    assert mesh.in_flight == 0


async def test_callbacks_are_called_at_the_end_of_the_last_attempt(caller: Caller, shop: Shop, other: Shop) -> None:
    shop.failing = 1
    told: list[Any] = []
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(call: Any) -> None:
        told.append(call)
        loop.call_soon_threadsafe(ended.set)

    async with caller.stub(caller.mesh(*both(shop, other), policy=RETRIED)) as stub:
        call = caller.begin(stub, "42")
        call.add_done_callback(tell)
        await asyncio.wait_for(ended.wait(), 10)
        assert told == [call]
        assert len(call.trimtab.attempts) == 2
        call.add_done_callback(tell)
        assert told == [call, call]


async def test_a_call_that_waits_for_readiness_waits_no_longer_than_there_is_a_mesh(caller: Caller) -> None:
    mesh = caller.mesh()
    async with caller.stub(mesh) as stub:
        waiting = asyncio.ensure_future(failure(caller, stub, "42", wait_for_ready=True))
        call = caller.begin(stub, "43", wait_for_ready=True)
        async with asyncio.timeout(10):
            while len(mesh.service._waiting) < 2:
                await asyncio.sleep(0.01)
        mesh.service.close()
        assert isinstance(await asyncio.wait_for(waiting, 10), NoEndpoints)
        assert await asyncio.wait_for(caller.told(call.code), 10) is UNAVAILABLE
        assert isinstance(await failure(caller, stub, "44", wait_for_ready=True), NoEndpoints)


async def test_a_call_that_waits_for_readiness_waits_for_an_endpoint_to_appear(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh()
    state = caller.mesh(endpoint_at(shop.port)).service.state
    async with caller.stub(mesh) as stub:
        call = caller.begin(stub, "42", wait_for_ready=True, timeout=20)
        waiting = asyncio.ensure_future(caller.charge(stub, "43", wait_for_ready=True, timeout=20))
        late = caller.begin(stub, "44", wait_for_ready=True, timeout=0.01)
        assert await caller.told(late.code) is UNAVAILABLE
        assert isinstance(await failure(caller, stub, "45", wait_for_ready=True, timeout=0.01), NoEndpoints)
        assert not call.done()
        mesh.service.swap(state)
        assert await caller.told(call.code) is grpc.StatusCode.OK
        assert (await waiting)[0] == "a 43"


async def test_a_closed_channel_ends_its_calls_and_takes_no_others(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port))
    async with caller.stub(mesh) as stub:
        call = caller.begin(stub, "hang")
        assert await asyncio.to_thread(shop.hanging.wait, 10)
    assert await caller.told(call.code) is grpc.StatusCode.CANCELLED
    with pytest.raises((ValueError, grpc.aio.UsageError)):
        await caller.charge(stub, "42")
    assert mesh.in_flight == 0
