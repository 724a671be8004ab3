"""``AsyncMesh.grpc_channel``: a channel of ``grpc.aio`` over all endpoints of a service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

import grpc

from trimtab.core.endpoints import Endpoint, ServiceState
from trimtab.discovery import Callee
from trimtab.grpc.awaited_calls import StreamStreamCall, StreamUnaryCall, UnaryStreamCall, UnaryUnaryCall
from trimtab.grpc.blocking import Serializer, is_secure
from trimtab.grpc.meaning import Entries
from trimtab.grpc.method import Deserializer, Method, Methods
from trimtab.grpc.subchannels import OPTIONS, SubChannels

_aio: Any = grpc.aio


class Calls(Protocol):
    """What a channel needs of a mesh."""

    def known(self, service: str, namespace: str | None = ...) -> Callee | None:
        """Return the service as calls see it, None when ``callee`` would have to wait."""
        ...

    async def callee(self, service: str, namespace: str | None = ...) -> Callee:
        """Return the service as calls see it. Raises MeshClosed."""
        ...


class AsyncMeshChannel(_aio.Channel):  # type: ignore[misc]
    """A channel to a service, for one loop. Use ``channel`` to make one."""

    def __init__(
        self,
        mesh: Calls,
        service: str,
        namespace: str | None,
        make: Callable[[Endpoint], grpc.aio.Channel],
        idempotent: Collection[str],
        told_apart: bool,
    ) -> None:
        self._mesh = mesh
        self.known = mesh.known
        self.service = service
        self.namespace = namespace
        self._methods = Methods(idempotent, told_apart=told_apart)
        self._closing: set[asyncio.Task[None]] = set()
        self.preparations: set[asyncio.Task[None]] = set()
        self.subchannels: SubChannels[grpc.aio.Channel] = SubChannels(
            make, self._close_soon, lambda: grpc.aio.UsageError("Channel is closed."), quiet=False
        )

    async def callee(self, service: str = "") -> Callee:
        """The service as calls see it, or another one of its namespace. Raises MeshClosed."""
        return await self._mesh.callee(service or self.service, self.namespace)

    # What a channel of gRPC is

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnary:
        """A method with one request and one answer."""
        made = self._methods.get("unary_unary", method, request_serializer, response_deserializer, _registered_method)
        return UnaryUnary(self, made)

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryStream:
        """A method with one request and a stream of answers."""
        made = self._methods.get("unary_stream", method, request_serializer, response_deserializer, _registered_method)
        return UnaryStream(self, made)

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamUnary:
        """A method with a stream of requests and one answer."""
        made = self._methods.get("stream_unary", method, request_serializer, response_deserializer, _registered_method)
        return StreamUnary(self, made)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamStream:
        """A method with a stream of requests and a stream of answers."""
        made = self._methods.get("stream_stream", method, request_serializer, response_deserializer, _registered_method)
        return StreamStream(self, made)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """READY when anybody can be called, TRANSIENT_FAILURE when not, IDLE before the service was looked for."""
        if self.subchannels.closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        callee = self.known(self.service, self.namespace)
        if callee is None:
            return grpc.ChannelConnectivity.IDLE
        return _connectivity(callee.state)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until ``get_state`` says something else."""
        callee = await self.callee()
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def tell(state: ServiceState) -> None:
            # Called by the mesh's own thread; a loop that is gone wants nothing.
            if _connectivity(state) is not last_observed_state and not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        stop = callee.listen(tell)
        try:
            await changed.wait()
        finally:
            stop()

    async def channel_ready(self) -> None:
        """Wait until anybody can be called."""
        await self.callee()
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """Take no further calls, and cancel those that are still under way after ``grace`` seconds. Twice is once."""
        channels = self.subchannels.drain()
        for task in list(self.preparations):
            task.cancel()
        closing = (channel.close(grace) for channel in channels)
        await asyncio.gather(*closing, *self._closing, *self.preparations, return_exceptions=True)

    async def __aenter__(self) -> AsyncMeshChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _close_soon(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.get_running_loop().create_task(channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _Stub:
    """A method of the channel. Its calls take what gRPC's own take: request, timeout, metadata, …"""

    def __init__(self, channel: AsyncMeshChannel, method: Method) -> None:
        self._channel = channel
        self._subchannels = channel.subchannels
        self._method = method


class UnaryUnary(_Stub, _aio.UnaryUnaryMultiCallable):  # type: ignore[misc]
    """A method with one request and one answer."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Entries | None = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> UnaryUnaryCall:
        """Call; the call is to be awaited, and raises grpc.RpcError then."""
        return UnaryUnaryCall(
            self._subchannels, self._method, request, timeout, metadata, credentials, wait_for_ready, compression
        ).launch(self._channel)


class UnaryStream(_Stub, _aio.UnaryStreamMultiCallable):  # type: ignore[misc]
    """A method with one request and a stream of answers."""

    def __call__(self, *arguments: Any, **options: Any) -> UnaryStreamCall:
        """Call; the answers are to be iterated over or read, which raises grpc.RpcError."""
        return UnaryStreamCall(self._subchannels, self._method, *arguments, **options).launch(self._channel)


class StreamUnary(_Stub, _aio.StreamUnaryMultiCallable):  # type: ignore[misc]
    """A method with a stream of requests, an iterable or to be written, and one answer."""

    def __call__(self, *arguments: Any, **options: Any) -> StreamUnaryCall:
        """Call; the call is to be awaited, and raises grpc.RpcError then."""
        return StreamUnaryCall(self._subchannels, self._method, *arguments, **options).launch(self._channel)


class StreamStream(_Stub, _aio.StreamStreamMultiCallable):  # type: ignore[misc]
    """A method with a stream of requests, an iterable or to be written, and a stream of answers."""

    def __call__(self, *arguments: Any, **options: Any) -> StreamStreamCall:
        """Call; the answers are to be iterated over or read, which raises grpc.RpcError."""
        return StreamStreamCall(self._subchannels, self._method, *arguments, **options).launch(self._channel)


def channel(
    mesh: Calls,
    service: str,
    *,
    namespace: str | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    compression: grpc.Compression | None = None,
    options: Iterable[tuple[str, Any]] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    idempotent: Collection[str] = (),
) -> AsyncMeshChannel:
    """The asynchronous twin of ``trimtab.grpc.blocking.channel``. ``interceptors`` see every attempt as a call."""
    arguments = tuple({**OPTIONS, **dict(options)}.items())

    def make(endpoint: Endpoint) -> grpc.aio.Channel:
        trust = credentials
        if trust is None and is_secure(endpoint):
            trust = grpc.ssl_channel_credentials()
        if trust is None:
            return grpc.aio.insecure_channel(endpoint.target, arguments, compression, interceptors=interceptors)
        return grpc.aio.secure_channel(endpoint.target, trust, arguments, compression, interceptors=interceptors)

    # What interceptors add to the metadata of an attempt, as a user's token, is seen by nobody here.
    return AsyncMeshChannel(mesh, service, namespace, make, frozenset(idempotent), told_apart=not interceptors)


def _connectivity(state: ServiceState) -> grpc.ChannelConnectivity:
    able = bool(state.eligible())
    return grpc.ChannelConnectivity.READY if able else grpc.ChannelConnectivity.TRANSIENT_FAILURE
