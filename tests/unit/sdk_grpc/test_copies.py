"""Hedged and mirrored calls over real gRPC, blocking and asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from trimtab.errors import DeadlineExceeded, RetriesExhausted
from trimtab.grpc import awaiting, blocking

from tests.unit.sdk_grpc.shop import AwaitedCaller, BlockingCaller, OrdersStub, Shop
from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at, refusing_endpoint
from tests.unit.sdk_http.neighbours import AsyncNeighbours, Neighbours

Caller = BlockingCaller | AwaitedCaller
HEDGED = "default: {hedge: {delay: 50ms, when: always}}"
IDEMPOTENT = "default: {hedge: 50ms}"


async def until_idle(mesh: KnownMesh) -> None:
    async with asyncio.timeout(10):
        while mesh.in_flight:
            await asyncio.sleep(0.005)


def errors(call: Any) -> list[str]:
    return [attempt.error.partition(":")[0] for attempt in call.trimtab.attempts]


class SlowShop(Shop):
    """Hangs whatever it is asked, until its caller leaves."""

    def _enter(self, method: str, asked: str, context: Any) -> None:
        super()._enter(method, "hang", context)


@pytest.fixture
def slow(shop: Shop) -> Shop:
    """The first of two shops, which hangs."""
    shop.__class__ = SlowShop
    return shop


async def test_a_copy_overtakes_an_endpoint_that_hangs_and_which_is_cancelled(
    caller: Caller, slow: Shop, other: Shop
) -> None:
    mesh = caller.mesh(endpoint_at(slow.port), endpoint_at(other.port, "b"), policy=HEDGED)
    async with caller.stub(mesh) as stub:
        answer, call = await caller.charge(stub, "tea", metadata=(("x-user", "7"),))
        assert answer == "b tea"
        assert errors(call) == ["cancelled", ""]
        assert dict(iter(await _said(caller, call.trailing_metadata)))["served-by"] == "b"
        assert await _said(caller, call.code) is grpc.StatusCode.OK
        assert await asyncio.to_thread(slow.left.wait, 10)
        assert [seen.metadata["x-user"] for seen in (*slow.seen, *other.seen)] == ["7", "7"]
        await until_idle(mesh)
        assert mesh.outcomes == [("b", True)]


async def _said(caller: Caller, what: Any) -> Any:
    return what() if isinstance(caller, BlockingCaller) else await what()


async def test_only_what_may_be_sent_twice_is_raced(caller: Caller, shop: Shop, other: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), endpoint_at(other.port, "b"), policy=IDEMPOTENT)
    async with caller.stub(mesh) as stub:
        hanging = asyncio.create_task(caller.charge(stub, "hang"))
        assert await asyncio.to_thread(shop.hanging.wait, 10)
        await asyncio.sleep(0.2)
        shop.left.set()
        answer, call = await hanging
        assert (answer, errors(call)) == ("a hang", [""])
        assert not other.seen


async def test_a_key_says_that_a_call_may_be_sent_twice(caller: Caller, shop: Shop, other: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), endpoint_at(other.port, "b"), policy=IDEMPOTENT)
    other.left.set()
    async with caller.stub(mesh) as stub:
        answer, call = await caller.charge(stub, "hang", metadata=(("idempotency-key", "7"),))
        assert (answer, errors(call)) == ("b hang", ["cancelled", ""])


async def test_a_failure_is_followed_by_the_next_copy_at_once(caller: Caller, shop: Shop, other: Shop) -> None:
    shop.failing = 1
    mesh = caller.mesh(
        endpoint_at(shop.port), endpoint_at(other.port, "b"), policy="default: {hedge: {delay: 1m, when: always}}"
    )
    async with caller.stub(mesh) as stub:
        answer, call = await caller.charge(stub, "tea")
    assert (answer, errors(call)) == ("b tea", ["UNAVAILABLE", ""])


async def test_a_mistake_of_the_caller_ends_the_race(caller: Caller, shop: Shop, other: Shop) -> None:
    # A failure of the callee's would send another copy at once; the time for one never comes.
    mesh = caller.mesh(
        endpoint_at(shop.port), endpoint_at(other.port, "b"), policy="default: {hedge: {delay: 1m, when: always}}"
    )
    async with caller.stub(mesh) as stub:
        with pytest.raises(caller.failed) as caught:
            await caller.charge(stub, "fail with NOT_FOUND")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    assert not other.seen
    assert mesh.in_flight == 0


async def test_when_all_fail_the_error_tells_each(caller: Caller, shop: Shop, other: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), endpoint_at(other.port, "b"), refusing_endpoint("dead"), policy=HEDGED)
    async with caller.stub(mesh) as stub:
        with pytest.raises(RetriesExhausted) as caught:
            await caller.charge(stub, "fail with UNAVAILABLE")
    assert isinstance(caught.value, caller.failed)
    assert len(caught.value.attempts) == 2
    assert mesh.in_flight == 0


async def test_the_deadline_ends_all_copies(caller: Caller, slow: Shop, other: Shop) -> None:
    other.__class__ = SlowShop
    mesh = caller.mesh(endpoint_at(slow.port), endpoint_at(other.port, "b"), policy=HEDGED)
    async with caller.stub(mesh) as stub:
        with pytest.raises(DeadlineExceeded):
            await caller.charge(stub, "tea", timeout=1.0)
        await until_idle(mesh)
    assert len(slow.seen) == len(other.seen) == 1


async def test_an_awaited_call_that_is_cancelled_takes_all_copies_along(slow: Shop, other: Shop) -> None:
    other.__class__ = SlowShop
    caller = AwaitedCaller()
    mesh = caller.mesh(endpoint_at(slow.port), endpoint_at(other.port, "b"), policy=HEDGED)
    async with caller.stub(mesh) as stub:
        call = caller.begin(stub, "tea")
        assert await asyncio.to_thread(other.hanging.wait, 10)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until_idle(mesh)
        assert await asyncio.to_thread(slow.left.wait, 10)
        assert await asyncio.to_thread(other.left.wait, 10)


async def test_streams_and_futures_do_not_race(caller: Caller, shop: Shop, other: Shop) -> None:
    policy = "default: {hedge: {delay: 0s, when: always}}"
    mesh = caller.mesh(endpoint_at(shop.port), endpoint_at(other.port, "b"), policy=policy)
    async with caller.stub(mesh) as stub:
        assert [message async for message in caller.watch(stub, "all")] == ["a 0", "a 1", "a 2"]
        assert await caller.upload(stub, ["one", "two"]) == "one,two"
    assert [len(shop.seen), len(other.seen)] == [1, 1]


async def test_another_service_gets_a_copy_as_it_was_when_it_was_sent(caller: Caller, shop: Shop, other: Shop) -> None:
    orders = KnownMesh(endpoint_at(shop.port), policy="default: {mirror: shadow}")
    shadow = KnownMesh(endpoint_at(other.port, "b"))
    request = StringValue(value="tea")
    if isinstance(caller, BlockingCaller):
        with blocking.channel(Neighbours(orders=orders, shadow=shadow), "orders") as channel:
            stub = OrdersStub(channel)
            assert stub.Charge(request, metadata=(("x-user", "7"),)).value == "a tea"
            assert stub.Charge.future(request).result(10).value == "a tea"
            request.value = "changed"
            await _copied(orders)
    else:
        async with awaiting.channel(AsyncNeighbours(orders=orders, shadow=shadow), "orders") as channel:
            stub = OrdersStub(channel)
            assert (await stub.Charge(request, metadata=(("x-user", "7"),))).value == "a tea"
            assert (await stub.Charge(request)).value == "a tea"
            request.value = "changed"
            await _copied(orders)
    assert len(other.seen) == 2
    assert [seen.metadata["trimtab-mirrored"] for seen in other.seen] == ["1", "1"]
    assert {seen.metadata.get("x-user") for seen in other.seen} == {"7", None}
    assert not any("trimtab-mirrored" in seen.metadata for seen in shop.seen)
    assert shadow.in_flight == 0


async def _copied(orders: KnownMesh) -> None:
    mirroring = orders.service.pipeline("shop.Orders/Charge").mirroring
    assert mirroring is not None
    async with asyncio.timeout(10):
        while mirroring.under_way:
            await asyncio.sleep(0.005)


async def test_a_copy_that_fails_is_nobodys_business(caller: Caller, shop: Shop) -> None:
    orders = KnownMesh(endpoint_at(shop.port), policy="default: {mirror: shadow}")
    shadow = KnownMesh(refusing_endpoint("dead"))
    if isinstance(caller, BlockingCaller):
        with blocking.channel(Neighbours(orders=orders, shadow=shadow), "orders") as channel:
            assert OrdersStub(channel).Charge(StringValue(value="tea")).value == "a tea"
            await _copied(orders)
    else:
        async with awaiting.channel(AsyncNeighbours(orders=orders, shadow=shadow), "orders") as channel:
            assert (await OrdersStub(channel).Charge(StringValue(value="tea"))).value == "a tea"
            await _copied(orders)
    assert shadow.in_flight == 0
