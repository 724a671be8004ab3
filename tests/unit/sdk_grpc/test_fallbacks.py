"""What stands in for an answer over gRPC, blocking and awaited."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from trimtab.calling.context import Marks, marks
from trimtab.errors import NoEndpoints

from tests.unit.sdk_grpc.shop import (
    NUMBERS,
    UNAVAILABLE,
    AwaitedCaller,
    Caller,
    Shop,
    failure,
)
from tests.unit.sdk_http.known_mesh import endpoint_at


async def test_a_fixed_answer_of_the_policy_becomes_a_message(caller: Caller, shop: Shop) -> None:
    policy = 'default: {retry: off, fallback: {value: "nothing"}}'
    mesh = caller.mesh(endpoint_at(shop.port), policy=policy)
    async with caller.stub(mesh) as stub:
        value, call = await caller.charge(stub, "fail with UNAVAILABLE")
        assert (value, call.trimtab.fallback) == ("nothing", "value")
        assert await caller.told(call.code) is grpc.StatusCode.OK
        assert (await failure(caller, stub, "fail with NOT_FOUND")).code() is grpc.StatusCode.NOT_FOUND
    assert mesh.in_flight == 0
    async with caller.stub(caller.mesh(policy=policy)) as stub:
        assert (await caller.charge(stub, "42"))[0] == "nothing"
        assert await caller.upload(stub, NUMBERS) == "nothing"
    async with caller.stub(caller.mesh(policy="default: {fallback: {value: {no: message}}}")) as stub:
        assert isinstance(await failure(caller, stub, "42"), NoEndpoints)


async def test_the_last_good_answer_to_the_same_request_is_given_again(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), policy="default: {retry: off, fallback: {cache: 1h}}")
    async with caller.stub(mesh) as stub:
        await caller.charge(stub, "42")
        shop.failing = 2
        value, call = await caller.charge(stub, "42")
        assert (value, call.trimtab.fallback) == ("a 42", "cache")
        assert (await failure(caller, stub, "43")).code() is UNAVAILABLE


@pytest.mark.parametrize(
    ("ann", "bob"),
    [
        (("authorization", "Bearer ann"), ("authorization", "Bearer bob")),
        (("x-user", "ann"), ("x-user", "bob")),
        (("x-tenant-bin", b"\x00ann"), ("x-tenant-bin", b"\x00bob")),
    ],
)
async def test_the_last_good_answer_of_one_user_is_no_other_users(
    caller: Caller, shop: Shop, ann: tuple[str, str | bytes], bob: tuple[str, str | bytes]
) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), policy="default: {retry: off, fallback: {cache: 1h}}")
    async with caller.stub(mesh) as stub:
        await caller.charge(stub, "42", metadata=(("version", "2"), ann))
        shop.failing = 3
        assert (await failure(caller, stub, "42", metadata=(("version", "2"), bob))).code() is UNAVAILABLE
        assert (await failure(caller, stub, "42")).code() is UNAVAILABLE
        _, call = await caller.charge(stub, "42", metadata=(ann, ("version", "2"), ("traceparent", "00-1")))
        assert call.trimtab.fallback == "cache"


async def test_the_last_good_answer_over_one_channel_is_no_other_ones_which_may_have_other_credentials(
    caller: Caller, shop: Shop
) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), policy="default: {retry: off, fallback: {cache: 1h}}")
    async with caller.stub(mesh) as stub, caller.stub(mesh) as other:
        await caller.charge(stub, "42")
        shop.failing = 2
        assert (await failure(caller, other, "42")).code() is UNAVAILABLE
        assert (await caller.charge(stub, "42"))[1].trimtab.fallback == "cache"


async def test_nothing_is_kept_where_interceptors_of_asyncio_may_say_unseen_who_asks(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    class Forwarding(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
        user = "ann"

        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return await continuation(details._replace(metadata=grpc.aio.Metadata(("x-user", self.user))), request)

    caller, forwarding = AwaitedCaller(), Forwarding()
    mesh = caller.mesh(endpoint_at(shop.port), policy="default: {retry: off, fallback: {cache: 1h}}")
    async with caller.stub(mesh, interceptors=[forwarding]) as stub:
        await caller.charge(stub, "42")
        assert shop.seen[-1].metadata["x-user"] == "ann"
        forwarding.user, shop.failing = "bob", 1
        assert (await failure(caller, stub, "42")).code() is UNAVAILABLE
    assert "fallback.cache section of its policy has no effect on gRPC channels with interceptors" in caplog.text


async def test_another_service_is_asked_once(caller: Caller, shop: Shop) -> None:
    mesh = caller.mesh(endpoint_at(shop.port), policy="default: {retry: off, fallback: {service: spare}}")
    shop.failing = 1
    async with caller.stub(mesh) as stub:
        value, call = await caller.charge(stub, "42")
        assert (value, call.trimtab.fallback) == ("a 42", "spare")
        assert mesh.asked[-1][0] == "spare"
        shop.failing = 2
        assert (await failure(caller, stub, "42")).code() is UNAVAILABLE
    assert mesh.in_flight == 0


@pytest.mark.parametrize("in_background", [False, True])
async def test_another_service_has_a_time_of_its_own(caller: Caller, shop: Shop, in_background: bool) -> None:
    policy = "default: {timeout: 400ms, retry: off, fallback: {service: spare, on: timeout}}"
    async with caller.stub(caller.mesh(endpoint_at(shop.port), policy=policy)) as stub:
        # Whoever hangs goes on as soon as its first caller has left.
        if in_background:
            call = caller.begin(stub, "hang", timeout=20)
            value = (await caller.result(call)).value
        else:
            value, call = await caller.charge(stub, "hang", timeout=20)
    assert (value, call.trimtab.fallback) == ("a hang", "spare")


async def test_another_service_is_told_how_important_the_call_is(caller: Caller, shop: Shop) -> None:
    policy = "default: {retry: off, fallback: {service: spare}}"
    shop.failing = 1
    token = marks.set(Marks("low"))
    try:
        async with caller.stub(caller.mesh(endpoint_at(shop.port), policy=policy)) as stub:
            await caller.result(caller.begin(stub, "42"))
    finally:
        marks.reset(token)
    assert [seen.metadata["trimtab-priority"] for seen in shop.seen] == ["low", "low"]
