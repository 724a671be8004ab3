"""One member of the cluster: its channel, and calls by etcd's paths.

One channel for each member, because a channel over several addresses verifies every member's certificate against the
first one's name, and hides which member answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import grpc

from controlplane.store.etcd import rpc_pb2 as pb
from controlplane.store.etcd.failure import CallFailed, Cause, classify
from controlplane.store.etcd.options import EtcdOptions

# etcd builds an answer of any size; whoever asked for it must be able to take it.
NO_LIMIT = -1
CONNECT_TIMEOUT = 2.0

Metadata = tuple[tuple[str, str], ...]


class Message(Protocol):
    """What the calls need of a protobuf message."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The message as bytes."""
        ...


Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """A call of etcd's API."""

    path: str
    request: type[Q]
    answer: type[A]


RANGE = Method("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", pb.CompactionRequest, pb.CompactionResponse)
GRANT = Method("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse)
REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse)
KEEPALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", pb.WatchRequest, pb.WatchResponse)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", pb.AuthenticateRequest, pb.AuthenticateResponse)
STATUS = Method("/etcdserverpb.Maintenance/Status", pb.StatusRequest, pb.StatusResponse)


@contextmanager
def failures_of(address: str) -> Iterator[None]:
    """Turns what gRPC raises into :class:`CallFailed`.

    gRPC cancels whoever waits for a call when its channel is closed or the call is cancelled. That is a failure of the
    call; only when our own task is being cancelled it is a cancellation.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise classify(address, error) from None
    except asyncio.InvalidStateError:
        raise CallFailed(Cause.BROKEN, address, "the stream has ended") from None
    except grpc.aio.UsageError:
        raise CallFailed(Cause.UNREACHABLE, address, "the store is closed") from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise CallFailed(Cause.BROKEN, address, "the call was ended from our side") from None


class Endpoint:
    """A member at ``address``. Its channel is opened with the first call."""

    def __init__(self, address: str, options: EtcdOptions, credentials: grpc.ChannelCredentials | None) -> None:
        self.address = address
        self._options = options
        self._credentials = credentials
        self._opened: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._connecting: asyncio.Task[CallFailed | None] | None = None

    async def connect(self, timeout: float) -> None:
        """Wait until the channel is ready. Raises :class:`CallFailed` (``UNREACHABLE``) after ``timeout`` seconds.

        Only what is sent on a ready channel can have been carried out: everything before is known not to have been.
        """
        with failures_of(self.address):
            if self._channel.get_state() is grpc.ChannelConnectivity.READY:
                return
        # One probe for all that wait: it triggers the connection, and its error says why there is none.
        probe = self._connecting
        if probe is None or probe.done():
            probe = self._connecting = asyncio.create_task(self._probe(), name=f"etcd connect {self.address}")
        done, _ = await asyncio.wait({probe}, timeout=timeout)
        if not done or probe.cancelled():
            raise CallFailed(Cause.UNREACHABLE, self.address, f"no connection within {timeout:.1f} s")
        failure = probe.result()
        if failure is not None:
            raise CallFailed(failure.cause, failure.endpoint, failure.detail)

    async def call(self, method: Method[Q, A], request: Q, *, timeout: float, metadata: Metadata = ()) -> A:
        """One call. Raises :class:`CallFailed`."""
        with failures_of(self.address):
            answer: A = await self._unary(method)(request, timeout=timeout, metadata=metadata)
        return answer

    def stream(self, method: Method[Q, A], *, metadata: Metadata = ()) -> grpc.aio.StreamStreamCall[Q, A]:
        """Open a bidirectional stream. Raises :class:`CallFailed` after :meth:`close`."""
        with failures_of(self.address):
            opened: grpc.aio.StreamStreamCall[Q, A] = self._caller(method, self._channel.stream_stream)(
                metadata=metadata
            )
        return opened

    async def close(self) -> None:
        """Close the channel; calls under way end."""
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        if self._opened is not None:
            await self._opened.close(None)

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> grpc.aio.Channel:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", NO_LIMIT),
            ("grpc.max_send_message_length", NO_LIMIT),
            # Not below 5 s and only with calls under way: etcd ends connections that ping more.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 3_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT * 1000)),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # A channel shared with another store would share its backoff too.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
        ]
        if self._credentials is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        if self._options.server_name:
            options.append(("grpc.ssl_target_name_override", self._options.server_name))
        return grpc.aio.secure_channel(self.address, self._credentials, options=options)

    def _unary(self, method: Method[Q, A]) -> Any:
        return self._caller(method, self._channel.unary_unary)

    def _caller(self, method: Method[Q, A], build: Any) -> Any:
        call = self._calls.get(method.path)
        if call is None:
            call = build(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.answer.FromString,  # type: ignore[attr-defined]
            )
            self._calls[method.path] = call
        return call

    async def _probe(self) -> CallFailed | None:
        try:
            await self.call(STATUS, pb.StatusRequest(), timeout=CONNECT_TIMEOUT)
        except CallFailed as failure:
            # Any answer of the member itself, a refusal too, shows that there is a connection.
            if failure.cause in {Cause.BROKEN, Cause.TIMEOUT, Cause.UNREACHABLE}:
                return CallFailed(Cause.UNREACHABLE, self.address, failure.detail)
        return None
