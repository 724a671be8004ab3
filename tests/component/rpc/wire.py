"""A client that speaks the raw stream and checks nothing by itself: tests say what must come."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import grpc
from trimtab.v1 import mesh_pb2 as pb
from trimtab.v1 import types_pb2 as types
from trimtab.v1.mesh_pb2_grpc import MeshStub

TIMEOUT = 15.0
EOF = grpc.aio.EOF  # type: ignore[attr-defined] # missing in the stubs


class Wire:
    """One stream. ``async with Wire(address) as wire: …``"""

    def __init__(
        self,
        address: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        token: str = "",
        options: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1), *options)
        self._channel = (
            grpc.aio.insecure_channel(address, options)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options)
        )
        metadata = (("authorization", f"Bearer {token}"),) if token else None
        self.call: Any = MeshStub(self._channel).Connect(metadata=metadata)  # type: ignore[no-untyped-call]
        self._beating: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()  # gRPC takes one message at a time
        self._requests = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        self.call.cancel()
        await self._channel.close(None)

    # -- up ---------------------------------------------------------------------------------------------------------

    async def send(self, **field: Any) -> None:
        async with self._writing, asyncio.timeout(TIMEOUT):
            await self.call.write(pb.ClientMessage(**field))

    async def hello(
        self,
        node: str = "client",
        *,
        resume: str = "",
        namespace: str = "",
        follow: tuple[pb.Subscription, ...] = (),
        beat: float = 0.2,
    ) -> pb.Welcome:
        """Greet; the Welcome. Beats from then on, unless ``beat`` is 0."""
        node_message = types.Node(id=node, namespace=namespace, name="test", sdk="raw/0")
        await self.send(hello=pb.Hello(node=node_message, resume=resume, subscriptions=follow))
        welcome = (await self.take("welcome")).welcome
        if beat:
            self.beat(beat)
        return welcome

    def beat(self, every: float) -> None:
        async def beating() -> None:
            while not self.call.done():
                await asyncio.sleep(every)
                await self.send(heartbeat=pb.Heartbeat())

        self._beating = asyncio.create_task(beating())

    def stop_beating(self) -> None:
        assert self._beating is not None
        self._beating.cancel()

    async def register(self, id: str = "a", *, port: int = 8000, service: str = "orders", **more: Any) -> int:
        """Ask for a registration; the number of the request."""
        self._requests += 1
        instance = types.Instance(service=service, id=id, address="10.0.0.1", port=port, **more)
        await self.send(register=pb.Register(request_id=self._requests, instance=instance))
        return self._requests

    async def enrol(self, id: str = "a", **more: Any) -> pb.Session:
        """Register the first instance; the session that it brought."""
        await self.register(id, **more)
        session = (await self.take("session")).session
        assert (await self.take("committed")).committed.instance_id == id
        return session

    async def ack(self, delta: pb.Delta) -> None:
        await self.send(ack=pb.Ack(nonce=delta.nonce))

    # -- down -------------------------------------------------------------------------------------------------------

    async def receive(self) -> pb.ServerMessage:
        """The next message. Raises AioRpcError when the stream ended with a failure, EOFError when with OK."""
        message = await asyncio.wait_for(self.call.read(), TIMEOUT)
        if message is EOF:
            if await self.call.code() is not grpc.StatusCode.OK:
                raise await failure_of(self.call)
            raise EOFError
        assert isinstance(message, pb.ServerMessage)
        return message

    async def take(self, kind: str) -> pb.ServerMessage:
        """The next message, which must be a ``kind``."""
        message = await self.receive()
        assert message.WhichOneof("message") == kind, f"{kind} expected, came {message}"
        return message

    async def take_until(self, kind: str) -> pb.ServerMessage:
        """The next ``kind``, whatever comes before."""
        while True:
            message = await self.receive()
            if message.WhichOneof("message") == kind:
                return message

    async def delta(self, *, ack: bool = True) -> pb.Delta:
        """The next delta, acknowledged."""
        delta = (await self.take_until("delta")).delta
        if ack:
            await self.ack(delta)
        return delta

    async def ended(self) -> tuple[grpc.StatusCode, types.Error]:
        """Read to the end; the status and the error in its trailer."""
        return await ending(self.call)


async def ending(call: Any) -> tuple[grpc.StatusCode, types.Error]:
    """Read a call to its end; the status and the error in its trailer."""
    async with asyncio.timeout(TIMEOUT):
        try:
            while await call.read() is not EOF:
                continue
        except grpc.aio.AioRpcError as error:
            return error.code(), error_in(error)
        return await call.code(), types.Error()


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        await call.code(), grpc.aio.Metadata(), await call.trailing_metadata(), await call.details(), None
    )


def error_in(failure: Any) -> types.Error:
    """The Error that a status carries; an empty one when it carries none."""
    trailer = dict(failure.trailing_metadata() or ())
    return types.Error.FromString(trailer.get("trimtab-error-bin", b""))


def endpoints(name: str = "default/orders", *, version: int = 0, digest: int = 0) -> pb.Subscription:
    return pb.Subscription(kind=types.KIND_ENDPOINTS, name=name, version=version, digest=digest)


def config(name: str = "default/orders/app") -> pb.Subscription:
    return pb.Subscription(kind=types.KIND_CONFIG, name=name)
