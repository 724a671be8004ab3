"""What only grpc.aio has: writing and reading a stream, cancellation of tasks, interceptors of a channel."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from trimtab.discovery import Callee
from trimtab.errors import MeshClosed
from trimtab.grpc.awaiting import channel

from tests.unit.sdk_grpc.shop import RETRIED, OrdersStub, Shop, handlers, words
from tests.unit.sdk_http.known_mesh import AsyncKnownMesh, endpoint_at, refusing_endpoint

ASKED = StringValue(value="42")


class LateMesh(AsyncKnownMesh):
    """Has to ask for a service when it is first called."""

    found = False

    def known(self, service: str, namespace: str | None = None) -> Callee | None:
        return super().known(service, namespace) if self.found else None

    async def callee(self, service: str, namespace: str | None = None) -> Callee:  # type: ignore[override]
        await asyncio.sleep(0)
        self.found = True
        return await super().callee(service, namespace)


class AioShop:
    """The service for a server of grpc.aio."""

    async def charge(self, request: StringValue, context: Any) -> StringValue:
        return StringValue(value=f"aio {request.value}")

    async def watch(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        for number in range(3):
            yield StringValue(value=str(number))

    async def upload(self, requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        return StringValue(value=",".join([request.value async for request in requests]))

    async def talk(self, requests: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for request in requests:
            yield StringValue(value=request.value.upper())


async def test_the_first_call_waits_for_the_service_to_be_found(shop: Shop) -> None:
    async with channel(LateMesh(endpoint_at(shop.port)), "orders") as orders:
        assert orders.get_state() is grpc.ChannelConnectivity.IDLE
        call = OrdersStub(orders).Charge(ASKED, timeout=20)
        assert call.time_remaining() == 20
        assert (await call).value == "a 42"
        assert [message.value async for message in OrdersStub(orders).Watch(ASKED)] == ["a 0", "a 1", "a 2"]
        assert orders.get_state() is grpc.ChannelConnectivity.READY
    assert orders.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_a_closed_mesh_says_so() -> None:
    class Closed(AsyncKnownMesh):
        def known(self, service: str, namespace: str | None = None) -> Callee | None:
            return None

        async def callee(self, service: str, namespace: str | None = None) -> Callee:  # type: ignore[override]
            raise MeshClosed

    async with channel(Closed(), "orders") as orders:
        call = OrdersStub(orders).Charge(ASKED)
        with pytest.raises(MeshClosed):
            await call
        assert call.done()
        assert await call.code() is grpc.StatusCode.UNKNOWN


async def test_all_four_kinds_work_with_a_server_of_the_same_loop() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers(AioShop()),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with channel(AsyncKnownMesh(endpoint_at(port)), "orders") as orders:
            stub = OrdersStub(orders)
            assert (await stub.Charge(ASKED)).value == "aio 42"
            assert [message.value async for message in stub.Watch(ASKED)] == ["0", "1", "2"]
            assert (await stub.Upload(words(["one", "two"]))).value == "one,two"
            assert [message.value async for message in stub.Talk(words(["one", "two"]))] == ["ONE", "TWO"]
    finally:
        await server.stop(None)


async def test_requests_can_be_written_and_answers_read(shop: Shop) -> None:
    mesh = AsyncKnownMesh(refusing_endpoint("dead"), endpoint_at(shop.port))
    async with channel(mesh, "orders") as orders:
        for _ in range(2):
            call = OrdersStub(orders).Talk()
            await call.write(StringValue(value="one"))
            assert (await call.read()).value == "ONE"
            await call.write(StringValue(value="two"))
            assert (await call.read()).value == "TWO"
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK
        upload = OrdersStub(orders).Upload()
        await upload.wait_for_connection()
        for message in words(["one", "two"]):
            await upload.write(message)
        await upload.done_writing()
        assert (await upload).value == "one,two"
    assert mesh.in_flight == 0
    assert ("dead", False) in mesh.outcomes


async def test_what_cannot_be_written_says_why(shop: Shop) -> None:
    mesh = AsyncKnownMesh(refusing_endpoint("dead"), refusing_endpoint("dead too"))
    async with channel(mesh, "orders") as orders:
        call = OrdersStub(orders).Upload()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.write(ASKED)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError):
            await call.wait_for_connection()
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        assert "Connection refused" in await call.details()
        assert dict(await call.trailing_metadata()) == {}


async def test_a_task_that_is_cancelled_cancels_its_call(shop: Shop) -> None:
    mesh = AsyncKnownMesh(endpoint_at(shop.port))
    async with channel(mesh, "orders") as orders:

        async def charge() -> None:
            await OrdersStub(orders).Charge(StringValue(value="hang"))

        async def watch() -> None:
            async for _ in OrdersStub(orders).Watch(StringValue(value="hang")):
                pass

        for work in (charge, watch):
            shop.hanging.clear()
            shop.left.clear()
            task = asyncio.create_task(work())
            assert await asyncio.to_thread(shop.hanging.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(shop.left.wait, 10)
    assert mesh.in_flight == 0
    assert mesh.outcomes == []


async def test_a_call_that_nobody_awaits_is_made_nevertheless(shop: Shop, other: Shop) -> None:
    shop.failing = 1
    mesh = AsyncKnownMesh(endpoint_at(shop.port), endpoint_at(other.port, "b"), policy=RETRIED)
    async with channel(mesh, "orders") as orders:
        ended = asyncio.Event()
        OrdersStub(orders).Charge(ASKED).add_done_callback(lambda call: ended.set())
        gc.collect()
        await asyncio.wait_for(ended.wait(), 10)
    assert mesh.in_flight == 0
    assert [seen.method for seen in other.seen] == ["Charge"]


async def test_a_stream_that_nobody_reads_any_more_is_cancelled(shop: Shop) -> None:
    mesh = AsyncKnownMesh(endpoint_at(shop.port))
    async with channel(mesh, "orders") as orders:
        async for message in OrdersStub(orders).Watch(StringValue(value="pause at 1")):
            assert message.value == "a 0"
            assert await asyncio.to_thread(shop.hanging.wait, 10)
            break
        gc.collect()
        assert await asyncio.to_thread(shop.left.wait, 10)
        assert mesh.in_flight == 0


async def test_a_call_can_be_awaited_more_than_once(shop: Shop) -> None:
    async with channel(AsyncKnownMesh(endpoint_at(shop.port)), "orders") as orders:
        call = OrdersStub(orders).Charge(ASKED)
        assert (await call) is (await call)
        assert isinstance(call, grpc.aio.UnaryUnaryCall)
        failed = OrdersStub(orders).Charge(StringValue(value="fail with ABORTED"))
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError, match="ABORTED: as asked"):
                await failed


class Interceptor(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Notes what it sees."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.seen: list[bytes | str] = []
        self._breaks = breaks

    async def intercept_unary_unary(self, go_on: Any, details: Any, request: Any) -> Any:
        self.seen.append(details.method)
        details.metadata.add("traceparent", "00-1")
        if self._breaks:
            raise LookupError("the interceptor's own")
        return await go_on(details, request)


async def test_interceptors_of_a_channel_see_each_attempt(shop: Shop, other: Shop) -> None:
    shop.failing = 1
    mesh = AsyncKnownMesh(endpoint_at(shop.port), endpoint_at(other.port, "b"), policy=RETRIED)
    interceptor = Interceptor()
    async with channel(mesh, "orders", interceptors=[interceptor]) as orders:
        call = OrdersStub(orders).Charge(ASKED)
        assert (await call).value == "b 42"
        assert await call.code() is grpc.StatusCode.OK
        assert len(interceptor.seen) == 2
        with pytest.raises(grpc.aio.AioRpcError, match="as asked"):
            await OrdersStub(orders).Charge(StringValue(value="fail with NOT_FOUND"))
    assert mesh.in_flight == 0


async def test_instrumentation_that_adds_interceptors_to_every_channel_sees_calls(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, interceptor = grpc.aio.insecure_channel, Interceptor()

    def instrumented(*arguments: Any, interceptors: Any = None, **options: Any) -> grpc.aio.Channel:
        return make(*arguments, interceptors=[interceptor, *(interceptors or ())], **options)

    monkeypatch.setattr(grpc.aio, "insecure_channel", instrumented)
    async with channel(AsyncKnownMesh(endpoint_at(shop.port)), "orders") as orders:
        for _ in range(3):
            assert (await OrdersStub(orders).Charge(ASKED)).value == "a 42"
    assert len(interceptor.seen) == 3
    assert ["traceparent" in seen.metadata for seen in shop.seen] == [True] * 3


async def test_an_interceptor_that_breaks_is_not_held_against_the_callee(shop: Shop) -> None:
    mesh = AsyncKnownMesh(endpoint_at(shop.port))
    async with channel(mesh, "orders", interceptors=[Interceptor(breaks=True)]) as orders:
        with pytest.raises(LookupError, match="own"):
            await OrdersStub(orders).Charge(ASKED)
    assert mesh.in_flight == 0
    assert mesh.outcomes == []


async def test_a_channel_can_be_waited_for(shop: Shop) -> None:
    mesh = AsyncKnownMesh()
    async with channel(mesh, "orders") as orders:
        waiting = asyncio.create_task(orders.channel_ready())
        await asyncio.sleep(0)
        assert not waiting.done()
        mesh.service.swap(AsyncKnownMesh(endpoint_at(shop.port)).service.state)
        await asyncio.wait_for(waiting, 10)


async def test_no_task_outlives_the_channel(shop: Shop) -> None:
    mesh = AsyncKnownMesh(refusing_endpoint("dead"), endpoint_at(shop.port), policy="default: {fault: {delay: 10s}}")
    async with channel(mesh, "orders") as orders:
        delayed = OrdersStub(orders).Charge(ASKED)
        await asyncio.sleep(0)
        assert not delayed.done()
    with pytest.raises(asyncio.CancelledError):
        await delayed
    assert mesh.in_flight == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_status_can_be_asked_for_while_another_awaits_the_answer(shop: Shop) -> None:
    mesh = AsyncKnownMesh(endpoint_at(shop.port))
    async with channel(mesh, "orders") as orders:
        for _ in range(2):
            call = OrdersStub(orders).Charge(ASKED, timeout=20)
            answer, code = await asyncio.wait_for(asyncio.gather(call, call.code()), 20)
            assert (answer.value, code) == ("a 42", grpc.StatusCode.OK)
    assert mesh.in_flight == 0


async def test_a_call_that_ends_when_nobody_waits_any_more_is_counted_all_the_same(shop: Shop) -> None:
    mesh = AsyncKnownMesh(endpoint_at(shop.port))
    async with channel(mesh, "orders") as orders:
        await OrdersStub(orders).Charge(ASKED, timeout=20)
        for wait in (True, False):
            call = OrdersStub(orders).Charge(ASKED, timeout=20)
            waiting = call.__await__()
            next(waiting)
            while wait and not call._inner.done():
                await asyncio.sleep(0.001)
            waiting.close()
            while not call.done():
                await asyncio.sleep(0.001)
    assert mesh.in_flight == 0
    assert mesh.service.statistics.read().calls == 3
