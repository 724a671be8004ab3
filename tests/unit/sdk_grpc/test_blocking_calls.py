"""What only blocking gRPC has: futures, iterators that are calls, interceptors around a channel."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from trimtab.errors import NoEndpoints, RateLimited
from trimtab.grpc.blocking import channel
from trimtab.grpc.outgoing import Outgoing
from trimtab.v1 import admin_pb2_grpc
from trimtab.v1.admin_pb2 import ListClientsRequest, ListClientsResponse

from tests.unit.sdk_grpc.shop import RETRIED, OrdersStub, Shop, words
from tests.unit.sdk_http.known_mesh import KnownMesh, endpoint_at, refusing_endpoint

ASKED = StringValue(value="42")


def test_a_plain_call_returns_its_message(shop: Shop) -> None:
    with channel(KnownMesh(endpoint_at(shop.port)), "orders") as orders:
        assert OrdersStub(orders).Charge(ASKED).value == "a 42"
        answer, call = OrdersStub(orders).Upload.with_call(iter(words(["one"])))
    assert (answer.value, call.trimtab.endpoint.id) == ("one", "a")


def test_requests_that_cannot_be_made_are_not_the_endpoints_failure(shop: Shop) -> None:
    def requests() -> Iterator[StringValue]:
        yield ASKED
        raise LookupError("mine")

    mesh = KnownMesh(endpoint_at(shop.port))
    with channel(mesh, "orders") as orders:
        stub = OrdersStub(orders)
        for call in (
            stub.Upload,
            lambda asked: stub.Upload.future(asked).result(10),
            lambda asked: [*stub.Talk(asked)],
        ):
            with pytest.raises(grpc.RpcError, match="Exception iterating requests"):
                call(requests())
    assert ("a", False) not in mesh.outcomes  # it may have answered the first request of the last call
    assert mesh.in_flight == 0


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_call_may_be_cancelled_by_another_thread_just_before_it_is_sent(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, attempt: int
) -> None:
    shop.failing, mesh = 1, KnownMesh(endpoint_at(shop.port), policy=RETRIED)
    start, ended, attempts = Outgoing.start, threading.Event(), []

    def cancelled_meanwhile(call: Any, now: float, timeout: float | None) -> Any:
        attempts.append(call)
        if len(attempts) == attempt:
            with ThreadPoolExecutor(1) as other:
                other.submit(call.cancel).result(10)
        return start(call, now, timeout)

    monkeypatch.setattr(Outgoing, "start", cancelled_meanwhile)
    with channel(mesh, "orders") as orders:
        call = OrdersStub(orders).Charge.future(ASKED)
        call.add_done_callback(lambda _: ended.set())
        assert ended.wait(10)
        assert call.cancelled()
    assert (mesh.in_flight, caplog.text) == (0, "")


def test_a_call_that_waits_for_an_endpoint_is_let_go_when_its_channel_is_closed() -> None:
    mesh = KnownMesh()
    with ThreadPoolExecutor(1) as pool:
        with channel(mesh, "orders") as orders:
            waiting = pool.submit(OrdersStub(orders).Charge, ASKED, wait_for_ready=True)
            while not mesh.service._waiting and not waiting.done():
                time.sleep(0.005)
        with pytest.raises(NoEndpoints):
            waiting.result(10)


def test_a_future_is_a_call_and_a_future_of_grpc(shop: Shop, other: Shop) -> None:
    shop.failing = 1
    mesh = KnownMesh(endpoint_at(shop.port), endpoint_at(other.port, "b"), policy=RETRIED)
    with channel(mesh, "orders") as orders:
        future = OrdersStub(orders).Charge.future(ASKED, timeout=20)
        assert isinstance(future, grpc.Future)
        assert isinstance(future, grpc.Call)
        assert 0 < future.time_remaining() <= 20
        assert future.result(10).value == "b 42"
        assert future.exception() is None
        assert future.traceback() is None
        assert not future.running()
        assert not future.is_active()
        assert not future.add_callback(lambda: None)
        assert dict(future.initial_metadata())["hello"] == "b"
        assert dict(future.trailing_metadata())["served-by"] == "b"
        uploaded = OrdersStub(orders).Upload.future(iter(words(["one", "two"])))
        assert uploaded.result(10).value == "one,two"


def test_a_future_that_fails_tells_so_in_every_way(shop: Shop) -> None:
    with channel(KnownMesh(endpoint_at(shop.port)), "orders") as orders:
        future = OrdersStub(orders).Charge.future(StringValue(value="fail with NOT_FOUND"))
        with pytest.raises(grpc.RpcError):
            future.result(10)
        error = future.exception()
        assert error.code() is future.code() is grpc.StatusCode.NOT_FOUND
        assert future.details() == "as asked"
        assert future.traceback() is error.__traceback__
        assert error.trimtab is future.trimtab
        with pytest.raises(grpc.RpcError):
            error.result()


def test_a_future_is_waited_for_only_as_long_as_one_likes(shop: Shop) -> None:
    with channel(KnownMesh(endpoint_at(shop.port)), "orders") as orders:
        future = OrdersStub(orders).Charge.future(StringValue(value="hang"))
        for wait in (future.result, future.exception, future.traceback):
            with pytest.raises(grpc.FutureTimeoutError):
                wait(0.01)
        future.cancel()
        for wait in (future.result, future.exception, future.traceback):
            with pytest.raises(grpc.FutureCancelledError):
                wait(10)


def test_a_stream_is_a_call_of_grpc(shop: Shop) -> None:
    with channel(KnownMesh(endpoint_at(shop.port)), "orders") as orders:
        call = OrdersStub(orders).Watch(StringValue(value="all"))
        ended = threading.Event()
        call.add_done_callback(lambda call: ended.set())
        assert isinstance(call, grpc.Call)
        assert call.is_active()
        assert [message.value for message in call] == ["a 0", "a 1", "a 2"]
        assert ended.wait(10)
        assert call.code() is grpc.StatusCode.OK
        assert call.details() == ""
        assert next(call, None) is None


def test_who_has_seen_the_headers_of_a_stream_stays_with_it(shop: Shop, other: Shop) -> None:
    mesh = KnownMesh(endpoint_at(shop.port), endpoint_at(other.port, "b"), policy=RETRIED)
    shop.failing = 1
    with channel(mesh, "orders") as orders:
        call = OrdersStub(orders).Watch(StringValue(value="all"))
        call.initial_metadata()  # of the second attempt: the first one had none
        assert [message.value for message in call] == ["b 0", "b 1", "b 2"]
        assert call.trimtab.once


def test_a_stream_that_nobody_reads_any_more_is_cancelled(shop: Shop) -> None:
    mesh = KnownMesh(endpoint_at(shop.port))
    with channel(mesh, "orders") as orders:
        for message in OrdersStub(orders).Watch(StringValue(value="pause at 1")):
            assert message.value == "a 0"
            assert shop.hanging.wait(10)
            break
        gc.collect()
        assert shop.left.wait(10)
        assert mesh.in_flight == 0


def test_a_cancelled_stream_raises_what_grpc_raises(shop: Shop) -> None:
    mesh = KnownMesh(endpoint_at(shop.port))
    with channel(mesh, "orders") as orders:
        call = OrdersStub(orders).Watch(StringValue(value="hang"))
        assert shop.hanging.wait(10)
        call.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED  # type: ignore[attr-defined]
    assert mesh.in_flight == 0


class Interceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Notes what it sees."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    def _intercept(self, go_on: Any, details: Any, request: Any) -> Any:
        self.methods.append(details.method)
        return go_on(details, request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = _intercept


def test_interceptors_stand_around_the_channel_and_see_each_call_once(shop: Shop, other: Shop) -> None:
    shop.failing = 1
    mesh = KnownMesh(endpoint_at(shop.port), endpoint_at(other.port, "b"), policy=RETRIED)
    seen = Interceptor()
    with channel(mesh, "orders") as orders:
        stub = OrdersStub(grpc.intercept_channel(orders, seen))
        assert stub.Charge(ASKED).value == "b 42"
        assert stub.Charge.future(ASKED).result(10).value.endswith("42")
        assert len(list(stub.Watch(ASKED))) == 3
        assert stub.Upload(iter(words(["one"]))).value == "one"
        assert [message.value for message in stub.Talk(iter(words(["one"])))] == ["ONE"]
        with pytest.raises(grpc.RpcError) as caught:
            stub.Charge(StringValue(value="fail with NOT_FOUND"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    names = ["Charge", "Charge", "Watch", "Upload", "Talk", "Charge"]
    assert seen.methods == [f"/shop.Orders/{name}" for name in names]
    empty = OrdersStub(grpc.intercept_channel(channel(KnownMesh(), "orders"), seen))
    with pytest.raises(NoEndpoints):
        empty.Charge(ASKED)


def test_what_the_caller_does_wrong_is_not_held_against_the_callee(shop: Shop) -> None:
    mesh = KnownMesh(endpoint_at(shop.port))
    with channel(mesh, "orders") as orders:
        stub = OrdersStub(orders)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Charge("no message")
        assert caught.value.code() is grpc.StatusCode.INTERNAL  # type: ignore[attr-defined]
        with pytest.raises(TypeError):
            stub.Charge(ASKED, metadata=((1, 2),))
        with pytest.raises(TypeError):
            stub.Charge(ASKED, nonsense=True)
    assert mesh.in_flight == 0


def test_a_channel_tells_whether_anybody_can_be_called(shop: Shop) -> None:
    mesh = KnownMesh()
    mesh.service.settle()
    told: list[grpc.ChannelConnectivity] = []
    with channel(mesh, "orders") as orders:
        orders.subscribe(told.append)
        ready = grpc.channel_ready_future(orders)
        mesh.service.swap(KnownMesh(endpoint_at(shop.port)).service.state)
        ready.result(10)
        orders.unsubscribe(told.append)
        mesh.service.swap(KnownMesh().service.state)
    assert told == [grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.READY]


def test_no_thread_outlives_the_channel(shop: Shop) -> None:
    before = set(threading.enumerate())
    mesh = KnownMesh(refusing_endpoint("dead"), endpoint_at(shop.port), policy=RETRIED)
    with channel(mesh, "orders") as orders:
        stub = OrdersStub(orders)
        assert stub.Charge.future(ASKED).result(10).value == "a 42"
        assert len(list(stub.Watch(ASKED))) == 3
        hanging = stub.Watch(StringValue(value="hang"))
        assert shop.hanging.wait(10)
    assert hanging.cancelled()
    ours = {thread for thread in set(threading.enumerate()) - before if "ThreadPool" not in thread.name}
    for thread in ours:
        thread.join(10)
    assert not any(thread.is_alive() for thread in ours)


def test_a_rate_limit_makes_futures_wait_for_their_turn(shop: Shop) -> None:
    policy = "default: {limit: {rate: 100/s, burst: 1, wait: 15ms}}"
    with channel(KnownMesh(endpoint_at(shop.port), policy=policy), "orders") as orders:
        futures = [OrdersStub(orders).Charge.future(ASKED) for _ in range(5)]
        errors = [future.exception(10) for future in futures]
    assert errors[:2] == [None, None]
    assert isinstance(errors[-1], RateLimited)


class Clients(admin_pb2_grpc.AdminServicer):
    """A service of the mesh itself."""

    def ListClients(self, request: ListClientsRequest, context: Any) -> ListClientsResponse:  # noqa: N802 -- gRPC's name
        return ListClientsResponse()


def test_a_stub_that_protoc_made_works_unchanged() -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    admin_pb2_grpc.add_AdminServicer_to_server(Clients(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with channel(KnownMesh(endpoint_at(port)), "admin") as admin:
            answer = admin_pb2_grpc.AdminStub(admin).ListClients(ListClientsRequest())
    finally:
        server.stop(None).wait()
    assert answer == ListClientsResponse()
