"""A small service over gRPC, its stub as protoc would make it, and callers of both kinds behind one face."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from inspect import signature
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from trimtab.grpc import awaiting, blocking
from trimtab.hooks import Hooks

from tests.unit.sdk_http.known_mesh import AsyncKnownMesh, KnownMesh, endpoint_at

SERVICE = "shop.Orders"
NUMBERS = ["one", "two", "three"]
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
RETRIED = "default: {retry: {attempts: 3, on: [UNAVAILABLE], backoff: 1ms..1ms}}"


# What the newest protoc says of methods, where gRPC itself knows of it.
REGISTERED = (
    {"_registered_method": True} if "_registered_method" in signature(grpc.Channel.unary_unary).parameters else {}
)


class OrdersStub:
    """What the newest protoc makes."""

    def __init__(self, channel: Any) -> None:
        def made(kind: str, name: str) -> Any:
            return getattr(channel, kind)(
                f"/{SERVICE}/{name}",
                request_serializer=StringValue.SerializeToString,
                response_deserializer=StringValue.FromString,
                **REGISTERED,
            )

        self.Charge = made("unary_unary", "Charge")
        self.Watch = made("unary_stream", "Watch")
        self.Upload = made("stream_unary", "Upload")
        self.Talk = made("stream_stream", "Talk")


class Seen(NamedTuple):
    """A call as the service saw it."""

    method: str
    metadata: dict[str, Any]
    remaining: float | None


class Shop:
    """Does what requests ask for: to fail with a code, to hang, to break off in the middle."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[Seen] = []
        self.failing = 0  # so many calls are refused with UNAVAILABLE
        self.trailing: tuple[tuple[str, str], ...] = ()
        self.hanging = threading.Event()
        self.left = threading.Event()
        self.going_on = threading.Event()
        self.port = 0

    def charge(self, request: StringValue, context: Any) -> StringValue:
        self._enter("Charge", request.value, context)
        context.send_initial_metadata((("hello", self.name),))
        context.set_trailing_metadata((("served-by", self.name), *self.trailing))
        return StringValue(value=f"{self.name} {request.value}")

    def watch(self, request: StringValue, context: Any) -> Iterator[StringValue]:
        self._enter("Watch", request.value, context)
        for number in range(3):
            if request.value == f"break at {number}":
                context.abort(grpc.StatusCode.UNAVAILABLE, "broke")
            if request.value == f"pause at {number}":
                self.hanging.set()
                context.add_callback(self.left.set)
                self.going_on.wait(10)
            yield StringValue(value=f"{self.name} {number}")

    def upload(self, requests: Iterator[StringValue], context: Any) -> StringValue:
        self._enter("Upload", "", context)
        return StringValue(value=",".join(request.value for request in requests))

    def talk(self, requests: Iterator[StringValue], context: Any) -> Iterator[StringValue]:
        self._enter("Talk", "", context)
        for request in requests:
            yield StringValue(value=request.value.upper())

    def _enter(self, method: str, asked: str, context: Any) -> None:
        self.seen.append(Seen(method, dict(context.invocation_metadata()), context.time_remaining()))
        if self.trailing:
            context.set_trailing_metadata(self.trailing)
        if self.failing:
            self.failing -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        if asked.startswith("fail with "):
            context.abort(grpc.StatusCode[asked.removeprefix("fail with ")], "as asked")
        if asked == "greet and fail":
            context.send_initial_metadata((("hello", self.name),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "after headers")
        if asked == "hang":
            context.add_callback(self.left.set)
            self.hanging.set()
            self.left.wait(10)


def handlers(shop: Any) -> grpc.GenericRpcHandler:
    """The service, for a server of either kind."""
    codec = {
        "request_deserializer": StringValue.FromString,
        "response_serializer": StringValue.SerializeToString,
    }
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Charge": grpc.unary_unary_rpc_method_handler(shop.charge, **codec),
            "Watch": grpc.unary_stream_rpc_method_handler(shop.watch, **codec),
            "Upload": grpc.stream_unary_rpc_method_handler(shop.upload, **codec),
            "Talk": grpc.stream_stream_rpc_method_handler(shop.talk, **codec),
        },
    )


@contextmanager
def serving(name: str, credentials: grpc.ServerCredentials | None = None) -> Iterator[Shop]:
    """A shop behind a server of its own."""
    shop = Shop(name)
    with ThreadPoolExecutor(60) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((handlers(shop),))
        if credentials is None:
            shop.port = server.add_insecure_port("127.0.0.1:0")
        else:
            shop.port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield shop
        finally:
            shop.left.set()
            shop.going_on.set()
            server.stop(None).wait()


def words(values: list[str]) -> list[StringValue]:
    return [StringValue(value=value) for value in values]


class BlockingCaller:
    """Calls with threads, so that one set of sentences serves both kinds."""

    failed: type[Exception] = grpc.RpcError

    def mesh(self, *endpoints: Any, policy: str = "default: {}", hooks: Sequence[Hooks] = ()) -> KnownMesh:
        return KnownMesh(*endpoints, policy=policy, hooks=hooks)

    @asynccontextmanager
    async def stub(self, mesh: KnownMesh, **options: Any) -> AsyncIterator[OrdersStub]:
        with blocking.channel(mesh, "orders", **options) as channel:
            yield OrdersStub(channel)

    async def charge(self, stub: OrdersStub, asked: str, **options: Any) -> tuple[str, Any]:
        answer, call = await asyncio.to_thread(stub.Charge.with_call, StringValue(value=asked), **options)
        return answer.value, call

    async def watch(self, stub: OrdersStub, asked: str, **options: Any) -> AsyncIterator[str]:
        call = stub.Watch(StringValue(value=asked), **options)
        while (message := await asyncio.to_thread(next, call, None)) is not None:
            yield message.value

    async def upload(self, stub: OrdersStub, values: list[str], **options: Any) -> str:
        answer = await asyncio.to_thread(stub.Upload, iter(words(values)), **options)
        return str(answer.value)

    async def talk(self, stub: OrdersStub, values: list[str], **options: Any) -> list[str]:
        return await asyncio.to_thread(lambda: [message.value for message in stub.Talk(iter(words(values)), **options)])

    async def told(self, value: Any) -> Any:
        """What a call says of itself."""
        return await asyncio.to_thread(value)

    def begin(self, stub: OrdersStub, asked: str, **options: Any) -> Any:
        """A call that is not waited for."""
        return stub.Charge.future(StringValue(value=asked), **options)

    async def result(self, call: Any) -> Any:
        """What came of it."""
        return await asyncio.to_thread(call.result, 10)


class AwaitedCaller:
    """Calls with asyncio."""

    failed: type[Exception] = grpc.aio.AioRpcError

    def mesh(self, *endpoints: Any, policy: str = "default: {}", hooks: Sequence[Hooks] = ()) -> KnownMesh:
        return AsyncKnownMesh(*endpoints, policy=policy, hooks=hooks)

    @asynccontextmanager
    async def stub(self, mesh: Any, **options: Any) -> AsyncIterator[OrdersStub]:
        async with awaiting.channel(mesh, "orders", **options) as channel:
            yield OrdersStub(channel)

    async def charge(self, stub: OrdersStub, asked: str, **options: Any) -> tuple[str, Any]:
        call = stub.Charge(StringValue(value=asked), **options)
        return (await call).value, call

    async def watch(self, stub: OrdersStub, asked: str, **options: Any) -> AsyncIterator[str]:
        async for message in stub.Watch(StringValue(value=asked), **options):
            yield message.value

    async def upload(self, stub: OrdersStub, values: list[str], **options: Any) -> str:
        return str((await stub.Upload(_asked(values), **options)).value)

    async def talk(self, stub: OrdersStub, values: list[str], **options: Any) -> list[str]:
        return [message.value async for message in stub.Talk(_asked(values), **options)]

    async def told(self, value: Any) -> Any:
        return await value()

    def begin(self, stub: OrdersStub, asked: str, **options: Any) -> Any:
        return stub.Charge(StringValue(value=asked), **options)

    async def result(self, call: Any) -> Any:
        return await call


async def _asked(values: list[str]) -> AsyncIterator[StringValue]:
    for message in words(values):
        yield message


Caller = BlockingCaller | AwaitedCaller


def both(shop: Shop, other: Shop) -> tuple[Any, Any]:
    return endpoint_at(shop.port, "a"), endpoint_at(other.port, "b")


async def failure(caller: Caller, stub: Any, asked: str, **options: Any) -> Any:
    with pytest.raises(caller.failed) as caught:
        await caller.charge(stub, asked, **options)
    assert isinstance(caught.value, grpc.RpcError)
    return caught.value
