"""gRPC servers, blocking and asynchronous, in all four kinds of calls: one set of sentences for both."""

from __future__ import annotations

import asyncio
import socket
import threading
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from h2.connection import H2Connection
from h2.events import TrailersReceived
from trimtab.calling import context as calling
from trimtab.core.orca import LoadReport
from trimtab.grpc.meaning import load_of
from trimtab.servers.grpc import AsyncMeshInterceptor, MeshInterceptor

from tests.unit.serving.served import ServedMesh, until

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
ONE_PLACE = "default: {server: {concurrency: 1, queue: 2, wait: 20s}}"
NO_QUEUE = "default: {server: {concurrency: 1, queue: 0}}"
TELL = "/shop.Orders/Tell"


def told() -> bytes:
    left = calling.remaining()
    copy = "copy " if calling.marks.get().mirrored else ""
    return f"{copy}{'-' if left is None else round(left, 3)} {calling.marks.get().priority or '-'}".encode()


class Orders:
    """Handlers for each kind, as functions that block or are awaited. ``open`` releases those that hold."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.served: list[str] = []

    # Blocking

    def tell(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return told()

    def tell_streaming(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield told()
        yield told()

    def collect(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b"".join(requests) + b" " + told()

    def echo(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield request + b" " + told()

    def hold(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.served.append(request.decode())
        self.open.wait(10)
        return b"held"

    def trickle(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"first"
        while not self.open.wait(0.005):
            yield b""
        yield b"last"

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        raise AssertionError

    def break_(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        raise RuntimeError("it broke")

    def refuse(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_code(grpc.StatusCode.UNAVAILABLE)
        return b""

    def sign(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("signed", "yes"),))
        return b""

    # Awaited

    async def tell_async(self, request: bytes, context: Any) -> bytes:
        return told()

    async def tell_streaming_async(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield told()
        yield told()

    async def collect_async(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"".join([request async for request in requests]) + b" " + told()

    async def echo_async(self, requests: AsyncIterator[bytes], context: Any) -> None:
        # The other way to answer with a stream.
        async for request in requests:
            await context.write(request + b" " + told())

    async def hold_async(self, request: bytes, context: Any) -> bytes:
        self.served.append(request.decode())
        while not self.open.is_set():
            await asyncio.sleep(0.005)
        return b"held"

    async def trickle_async(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        while not self.open.is_set():
            await asyncio.sleep(0.005)
            yield b""
        yield b"last"

    async def fail_async(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        raise AssertionError

    async def break_async(self, request: bytes, context: Any) -> bytes:
        raise RuntimeError("it broke")

    async def refuse_async(self, request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.UNAVAILABLE)
        return b""

    async def sign_async(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("signed", "yes"),))
        return b""

    def handlers(self, awaited: bool) -> list[grpc.GenericRpcHandler]:
        def pick(name: str) -> Any:
            return getattr(self, f"{name.rstrip('_')}_async" if awaited else name)

        makers: dict[str, tuple[Callable[..., Any], str]] = {
            "Tell": (grpc.unary_unary_rpc_method_handler, "tell"),
            "TellStreaming": (grpc.unary_stream_rpc_method_handler, "tell_streaming"),
            "Collect": (grpc.stream_unary_rpc_method_handler, "collect"),
            "Echo": (grpc.stream_stream_rpc_method_handler, "echo"),
            "Hold": (grpc.unary_unary_rpc_method_handler, "hold"),
            "Trickle": (grpc.unary_stream_rpc_method_handler, "trickle"),
            "Fail": (grpc.unary_unary_rpc_method_handler, "fail"),
            "Break": (grpc.unary_unary_rpc_method_handler, "break_"),
            "Refuse": (grpc.unary_unary_rpc_method_handler, "refuse"),
            "Sign": (grpc.unary_unary_rpc_method_handler, "sign"),
        }
        methods = {name: make(pick(function)) for name, (make, function) in makers.items()}
        check = {"Check": grpc.unary_unary_rpc_method_handler(pick("tell"))}
        return [
            grpc.method_handlers_generic_handler("shop.Orders", methods),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", check),
        ]


@contextmanager
def blocking_server(orders: Orders, mesh: ServedMesh, **options: Any) -> Iterator[int]:
    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool, interceptors=[MeshInterceptor(mesh, "orders", **options)])
    server.add_generic_rpc_handlers(orders.handlers(awaited=False))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        orders.open.set()
        server.stop(2).wait()
        pool.shutdown()


@contextmanager
def asyncio_server(orders: Orders, mesh: ServedMesh, awaited: bool = True, **options: Any) -> Iterator[int]:
    ports: futures.Future[int] = futures.Future()
    stop: futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = futures.Future()

    async def serve() -> None:
        ended = asyncio.Event()
        pool = ThreadPoolExecutor(8)
        server = grpc.aio.server(pool, interceptors=[AsyncMeshInterceptor(mesh, "orders", **options)])
        server.add_generic_rpc_handlers(orders.handlers(awaited))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stop.set_result((asyncio.get_running_loop(), ended))
        ports.set_result(port)
        await ended.wait()
        await server.stop(2)
        pool.shutdown()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        yield ports.result(10)
    finally:
        orders.open.set()
        loop, ended = stop.result(10)
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)


class House:
    """The orders behind gRPC, and a channel to them."""

    def __init__(self, orders: Orders, mesh: ServedMesh, channel: grpc.Channel, port: int) -> None:
        self.orders, self.mesh, self.channel, self.port = orders, mesh, channel, port

    def call(self, method: str = TELL, request: bytes = b"", priority: str = "", timeout: float | None = 10.0) -> bytes:
        metadata = [("trimtab-priority", priority)] if priority else []
        return self.channel.unary_unary(method)(request, timeout=timeout, metadata=metadata)  # type: ignore[no-any-return]

    def start(self, request: str = "", priority: str = "") -> Any:
        metadata = [("trimtab-priority", priority)] if priority else []
        return self.channel.unary_unary("/shop.Orders/Hold").future(request.encode(), timeout=15, metadata=metadata)

    def hold_the_only_place(self) -> Any:
        held = self.start("first")
        until(lambda: self.orders.served == ["first"])
        return held

    def each_kind(self, timeout: float | None, priority: str = "", mirrored: bool = False) -> list[bytes]:
        """The last answer of a call of each kind."""
        options: dict[str, Any] = {"timeout": timeout, "metadata": [("trimtab-priority", priority)] if priority else []}
        if mirrored:
            options["metadata"].append(("trimtab-mirrored", "1"))
        return [
            self.channel.unary_unary(TELL)(b"", **options),
            list(self.channel.unary_stream("/shop.Orders/TellStreaming")(b"", **options))[-1],
            self.channel.stream_unary("/shop.Orders/Collect")(iter([b"a", b"b"]), **options),
            list(self.channel.stream_stream("/shop.Orders/Echo")(iter([b"a", b"b"]), **options))[-1],
        ]


@pytest.fixture(params=["blocking", "asyncio"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    with house_of(request.param == "blocking") as house:
        yield house


@contextmanager
def house_of(blocking: bool, awaited: bool = True, **options: Any) -> Iterator[House]:
    orders, mesh = Orders(), ServedMesh()
    server = blocking_server(orders, mesh, **options) if blocking else asyncio_server(orders, mesh, awaited, **options)
    with server as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield House(orders, mesh, channel, port)
        orders.open.set()
        until(lambda: mesh.at_rest)


def test_calls_of_every_kind_inherit_deadline_and_priority_and_hand_nothing_on(house: House) -> None:
    for policy in (None, "default: {server: {concurrency: 5}}"):
        house.mesh.enact(policy)
        for answer in house.each_kind(5.0, "high"):
            left, priority = answer.decode().split()[-2:]
            assert 3.0 < float(left) < 5.1  # gRPC rounds to milliseconds of another clock
            assert priority == "high"
        assert [answer.decode().split()[-2:] for answer in house.each_kind(None)] == [["-", "-"]] * 4


def test_calls_of_every_kind_inherit_that_they_are_copies_and_hand_nothing_on(house: House) -> None:
    for mirrored in (True, False):
        answers = [answer.decode() for answer in house.each_kind(5.0, mirrored=mirrored)]
        assert ["copy" in answer for answer in answers] == [mirrored] * 4


def test_a_call_that_finds_no_place_is_told_when_to_come_back(house: House) -> None:
    house.mesh.enact(NO_QUEUE)
    held = house.hold_the_only_place()
    with pytest.raises(grpc.RpcError) as caught:
        house.call()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert "call.overloaded" in caught.value.details()  # type: ignore[attr-defined]
    trailing = dict(caught.value.trailing_metadata())  # type: ignore[attr-defined]
    assert int(trailing["grpc-retry-pushback-ms"]) > 0
    house.orders.open.set()
    assert held.result() == b"held"


def test_calls_of_every_kind_are_refused_beyond_the_rate(house: House) -> None:
    house.mesh.enact("default: {server: {limit: {rate: 1/m}}}")
    house.call()
    calls: list[Callable[[], Any]] = [
        lambda: house.channel.unary_unary(TELL)(b""),
        lambda: list(house.channel.unary_stream("/shop.Orders/TellStreaming")(b"")),
        lambda: house.channel.stream_unary("/shop.Orders/Collect")(iter([b"a"])),
        lambda: list(house.channel.stream_stream("/shop.Orders/Echo")(iter([b"a"]))),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
        pushback = int(dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"])  # type: ignore[attr-defined]
        assert 50_000 < pushback <= 60_000


def test_important_calls_are_served_first_and_unimportant_ones_refused_first(house: House) -> None:
    house.mesh.enact(ONE_PLACE)
    first = house.hold_the_only_place()
    low = house.start("low", "low")
    until(lambda: house.mesh.waiting == 1)
    normal = house.start("normal")
    until(lambda: house.mesh.waiting == 2)
    critical = house.start("critical", "critical")
    assert low.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    house.orders.open.set()
    assert [call.result() for call in (first, critical, normal)] == [b"held"] * 3
    assert house.orders.served == ["first", "critical", "normal"]


def test_a_client_that_gives_up_while_it_waits_leaves_the_queue(house: House) -> None:
    house.mesh.enact(ONE_PLACE)
    held = house.hold_the_only_place()
    second = house.start("second")
    until(lambda: house.mesh.waiting == 1)
    second.cancel()
    until(lambda: house.mesh.waiting == 0)
    until(lambda: int(house.mesh.serving) == 1)
    assert house.orders.served == ["first"]
    assert not held.done()


def test_a_call_that_waits_until_its_deadline_is_never_served(house: House) -> None:
    house.mesh.enact(ONE_PLACE)
    held = house.hold_the_only_place()
    with pytest.raises(grpc.RpcError) as caught:
        house.call(timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    until(lambda: house.mesh.waiting == 0)
    assert not held.done()


def test_a_stream_holds_its_place_until_its_end(house: House) -> None:
    house.mesh.enact(NO_QUEUE)
    answers = house.channel.unary_stream("/shop.Orders/Trickle")(b"", timeout=15)
    assert next(answers) == b"first"
    with pytest.raises(grpc.RpcError):
        house.call()
    house.orders.open.set()
    assert list(answers)[-1] == b"last"
    until(lambda: house.mesh.at_rest)
    assert house.call()


def test_a_client_that_vanishes_in_a_stream_gives_its_place_back(house: House) -> None:
    house.mesh.enact(NO_QUEUE)
    answers = house.channel.unary_stream("/shop.Orders/Trickle")(b"", timeout=15)
    assert next(answers) == b"first"
    answers.cancel()
    until(lambda: house.mesh.at_rest)
    assert house.call()


def test_an_error_of_the_handler_is_its_own_and_gives_its_place_back(house: House) -> None:
    house.mesh.enact(NO_QUEUE)
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            house.call("/shop.Orders/Fail")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
        until(lambda: house.mesh.at_rest)


def test_health_is_told_whatever_else_is_going_on(house: House) -> None:
    house.mesh.enact(NO_QUEUE)
    held = house.hold_the_only_place()
    assert house.call("/grpc.health.v1.Health/Check")
    assert not held.done()


def test_a_method_that_there_is_not_stays_unknown(house: House) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        house.call("/shop.Orders/Guess")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_a_policy_goes_by_method_and_metadata_and_is_changed_live(house: House) -> None:
    house.mesh.enact("""
routes:
  - match: {method: Tell, header: {trimtab-priority: low}}
    server: {limit: {rate: 1/m}}
""")
    house.call(priority="low")
    with pytest.raises(grpc.RpcError):
        house.call(priority="low")
    house.call(priority="high")
    house.mesh.enact(None)
    house.call(priority="low")


def test_who_waits_begins_when_the_policy_gives_it_a_place(house: House) -> None:
    house.mesh.enact(ONE_PLACE)
    held = house.hold_the_only_place()
    second = house.start("second")
    until(lambda: house.mesh.waiting == 1)
    house.mesh.enact("default: {server: {concurrency: 2}}")
    until(lambda: house.orders.served == ["first", "second"])
    house.orders.open.set()
    assert (held.result(), second.result()) == (b"held", b"held")


def test_handlers_that_block_are_let_into_an_asyncio_server_but_for_streams() -> None:
    with house_of(blocking=False, awaited=False) as house:
        assert [answer.decode().split()[-1] for answer in house.each_kind(5.0, "high")] == ["high", "-", "high", "-"]
        house.mesh.enact(NO_QUEUE)
        held = house.hold_the_only_place()
        with pytest.raises(grpc.RpcError) as caught:
            house.start("second").result()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
        house.orders.open.set()
        assert held.result() == b"held"
        assert house.orders.served == ["first"]


# Load reports


ASKING = (("endpoint-load-metrics-format", "TEXT"),)


def reports_of_each_kind(channel: grpc.Channel, metadata: Any = ASKING) -> list[LoadReport | None]:
    """What calls of each kind end with."""
    streams = [
        channel.unary_stream("/shop.Orders/TellStreaming")(b"", metadata=metadata),
        channel.stream_stream("/shop.Orders/Echo")(iter([b"a"]), metadata=metadata),
    ]
    assert all(list(stream) for stream in streams)
    calls: list[Any] = [
        channel.unary_unary(TELL).with_call(b"", metadata=metadata)[1],
        channel.stream_unary("/shop.Orders/Collect").with_call(iter([b"a"]), metadata=metadata)[1],
        *streams,
    ]
    return [load_of(call.trailing_metadata()) for call in calls]


def test_calls_of_every_kind_end_with_a_report_of_the_load_if_they_ask_for_it(house: House) -> None:
    assert reports_of_each_kind(house.channel, ()) == [None] * 4
    assert not house.mesh.load_meter.counting
    assert reports_of_each_kind(house.channel) == [LoadReport(cpu=0.25, memory=0.5)] * 4
    house.mesh.load_clock.advance(2.0)
    reports = reports_of_each_kind(house.channel)
    assert [(report.qps, report.eps) for report in reports if report is not None] == [(2.0, 0.0)] * 4


def test_a_call_that_fails_ends_with_a_report_too_and_counts_by_whose_fault_it_was(house: House) -> None:
    for method in ("Fail", "Break", "Refuse"):
        with pytest.raises(grpc.RpcError) as caught:
            house.channel.unary_unary(f"/shop.Orders/{method}")(b"", metadata=ASKING)
        assert load_of(caught.value.trailing_metadata()) == LoadReport(cpu=0.25, memory=0.5)  # type: ignore[attr-defined]
    until(lambda: house.mesh.at_rest)
    house.mesh.load_clock.advance(1.0)
    # NOT_FOUND is the caller's; an exception and UNAVAILABLE are not.
    assert reports_of_each_kind(house.channel)[0] == LoadReport(3.0, 2.0, 0.25, 0.5)


def test_what_an_application_has_to_tell_at_the_end_stays(house: House) -> None:
    _, call = house.channel.unary_unary("/shop.Orders/Sign").with_call(b"", metadata=ASKING)
    assert dict(call.trailing_metadata())["signed"] == "yes"
    assert load_of(call.trailing_metadata()) == LoadReport(cpu=0.25, memory=0.5)


def test_calls_that_are_refused_are_none_that_was_served(house: House) -> None:
    house.mesh.enact("default: {server: {limit: {rate: 1/m}}}")
    house.channel.unary_unary(TELL)(b"", metadata=ASKING)
    with pytest.raises(grpc.RpcError):
        house.channel.unary_unary(TELL)(b"", metadata=ASKING)
    house.mesh.enact(None)
    house.mesh.load_clock.advance(1.0)
    assert reports_of_each_kind(house.channel)[0] == LoadReport(1.0, 0.0, 0.25, 0.5)


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asyncio"])
def test_a_server_may_report_to_everybody_in_the_form_of_grpc_itself(blocking: bool) -> None:
    with house_of(blocking, load_reports=True) as house:
        trailers = trailers_on_the_wire(house.port, TELL)
        assert trailers["grpc-status"] == "0"
        told = trailers["endpoint-load-metrics-bin"]
        assert b64decode(told + "=" * (-len(told) % 4)) == LoadReport(cpu=0.25, memory=0.5).to_bytes()
        assert "endpoint-load-metrics" not in trailers
        assert reports_of_each_kind(house.channel) == [LoadReport(cpu=0.25, memory=0.5)] * 4


def trailers_on_the_wire(port: int, method: str) -> dict[str, str]:
    """What an RPC ends with. gRPC's own client in Python keeps some of that to itself."""
    wire = H2Connection()
    wire.initiate_connection()
    asked = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "orders", "te": "trailers"}
    wire.send_headers(1, [*asked.items(), ("content-type", "application/grpc")])
    wire.send_data(1, bytes(5), end_stream=True)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        while True:
            connection.sendall(wire.data_to_send())
            received = connection.recv(65_536)
            assert received, "the server hung up"
            for event in wire.receive_data(received):
                if isinstance(event, TrailersReceived):
                    return {name.decode(): value.decode() for name, value in event.headers}


def test_functions_that_block_in_an_asyncio_server_report_their_load() -> None:
    with house_of(blocking=False, awaited=False) as house:
        _, call = house.channel.unary_unary(TELL).with_call(b"", metadata=ASKING)
        assert load_of(call.trailing_metadata()) == LoadReport(cpu=0.25, memory=0.5)
