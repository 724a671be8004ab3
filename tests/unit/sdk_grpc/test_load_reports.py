"""``balance: {weights: load}`` over gRPC: calls of every kind ask for reports, and hear them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from trimtab.core.balancing.load_weight import BLACKOUT
from trimtab.grpc import blocking

from tests.unit.sdk_grpc.shop import AwaitedCaller, BlockingCaller, OrdersStub, Shop
from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at
from tests.unit.sdk_http.neighbours import Neighbours

Caller = BlockingCaller | AwaitedCaller
LOADED = "default: {balance: {algorithm: round_robin, weights: load}, retry: off}"
REPORT = (("endpoint-load-metrics", "TEXT rps_fractional=100,cpu_utilization=0.5"),)
FORMAT = "endpoint-load-metrics-format"


def heard(mesh: KnownMesh) -> dict[str, float]:
    """The weights that will be in use when the blackout is over."""
    pipeline = mesh.service.pipeline("")
    assert pipeline.balancer.loads is not None
    return pipeline.balancer.loads.weights(pipeline.now() + BLACKOUT)


@pytest.fixture(autouse=True)
def reporting(shop: Shop) -> None:
    shop.trailing = REPORT


async def charge(caller: Caller, stub: OrdersStub) -> None:
    assert (await caller.charge(stub, "x"))[0] == "a x"


async def watch(caller: Caller, stub: OrdersStub) -> None:
    assert [message async for message in caller.watch(stub, "x")] == ["a 0", "a 1", "a 2"]


async def upload(caller: Caller, stub: OrdersStub) -> None:
    assert await caller.upload(stub, ["x", "y"]) == "x,y"


async def talk(caller: Caller, stub: OrdersStub) -> None:
    assert await caller.talk(stub, ["x", "y"]) == ["X", "Y"]


async def fail(caller: Caller, stub: OrdersStub) -> None:
    with pytest.raises(grpc.RpcError):
        await caller.charge(stub, "fail with INTERNAL")


async def break_off(caller: Caller, stub: OrdersStub) -> None:
    with pytest.raises(grpc.RpcError):
        assert [message async for message in caller.watch(stub, "break at 1")]


KINDS = [charge, watch, upload, talk, fail, break_off]


@pytest.mark.parametrize("call", KINDS, ids=lambda call: call.__name__)
async def test_calls_of_every_kind_ask_and_hear(
    caller: Caller, shop: Shop, call: Callable[[Caller, OrdersStub], Awaitable[None]]
) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), policy=LOADED)
    async with caller.stub(mesh) as stub:
        await call(caller, stub)
        await call(caller, stub)
    assert shop.seen[0].metadata[FORMAT] == "TEXT"
    assert heard(mesh) == {"a": 200.0}
    assert mesh.in_flight == 0


async def test_nobody_is_asked_under_another_policy(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), policy="default: {balance: round_robin}")
    async with caller.stub(mesh) as stub:
        await charge(caller, stub)
    assert [FORMAT in seen.metadata for seen in shop.seen] == [False]


async def test_an_attempt_that_is_tried_again_is_heard_too(caller: Caller, shop: Shop, other: Shop) -> None:
    policy = LOADED.replace("retry: off", "retry: {attempts: 2, on: [UNAVAILABLE], backoff: 1ms..1ms}")
    mesh = caller.mesh(endpoint_at(shop.port), endpoint_at(other.port, "b"), policy=policy)
    shop.failing = 1
    async with caller.stub(mesh) as stub:
        assert (await caller.charge(stub, "x"))[0] == "b x"
    assert heard(mesh) == {"a": 200.0}
    assert [FORMAT in seen.metadata for seen in (*shop.seen, *other.seen)] == [True, True]


async def test_copies_hear(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), policy=LOADED.replace("retry: off", "hedge: 10s"))
    async with caller.stub(mesh, idempotent={"Charge"}) as stub:
        await charge(caller, stub)
        assert heard(mesh) == {"a": 200.0}
        with pytest.raises(grpc.RpcError):
            await caller.charge(stub, "fail with INTERNAL")


async def test_a_call_that_is_cancelled_hears_nothing(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), policy=LOADED)
    async with caller.stub(mesh) as stub:
        call = caller.begin(stub, "hang")
        assert await asyncio.to_thread(shop.hanging.wait, 10)
        call.cancel()
        assert await caller.told(call.code) is grpc.StatusCode.CANCELLED
    assert heard(mesh) == {}
    assert mesh.in_flight == 0


async def test_a_call_in_the_background_hears(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), policy=LOADED)
    async with caller.stub(mesh) as stub:
        assert await caller.told(caller.begin(stub, "x").code) is grpc.StatusCode.OK
    assert heard(mesh) == {"a": 200.0}


async def test_interceptors_are_no_hindrance(shop: Shop) -> None:
    class Silent(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return await continuation(details, request)

    caller = AwaitedCaller()
    mesh = caller.mesh(endpoint_at(shop.port), policy=LOADED)
    async with caller.stub(mesh, interceptors=[Silent()]) as stub:
        await charge(caller, stub)
    assert heard(mesh) == {"a": 200.0}


def test_who_wants_the_answer_alone_gets_it_alone(shop: Shop) -> None:
    mesh = KnownMesh(endpoint_at(shop.port), policy=LOADED)
    with blocking.channel(mesh, "orders") as channel:
        stub = OrdersStub(channel)
        assert [stub.Charge(StringValue(value="x")).value for _ in range(2)] == ["a x", "a x"]
        assert heard(mesh) == {"a": 200.0}


def test_who_is_answered_by_another_service_gets_that_answer_alone(shop: Shop, other: Shop) -> None:
    orders = KnownMesh(
        endpoint_at(shop.port), policy=LOADED.replace("retry: off", "retry: off, fallback: {service: archive}")
    )
    archive = KnownMesh(endpoint_at(other.port, "b"))
    with blocking.channel(Neighbours(orders=orders, archive=archive), "orders") as channel:
        shop.failing = 1
        assert OrdersStub(channel).Charge(StringValue(value="x")).value == "b x"
    assert heard(orders) == {"a": 200.0}
