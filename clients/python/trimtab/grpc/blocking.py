"""``mesh.grpc_channel``: a channel of blocking gRPC over all endpoints of a service."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitedTooLong
from functools import partial
from typing import Any, Protocol

import grpc

from trimtab.calling.context import UNMARKED, marks
from trimtab.calling.context import deadline as inherited
from trimtab.calling.drive import block, run
from trimtab.calling.heed import without
from trimtab.core.calling.call import Call
from trimtab.core.endpoints import Endpoint, ServiceState
from trimtab.discovery import Callee, has_endpoint
from trimtab.errors import MeshClosed, NoEndpoints, TrimtabError
from trimtab.grpc.alarms import Alarms
from trimtab.grpc.background import Background, FutureCall, StreamCall
from trimtab.grpc.copies import BlockingCopies, CopyFailed, mirror_blocking
from trimtab.grpc.failures import CallFailed, Substituted, failure, refusal
from trimtab.grpc.meaning import Entries, injected, status_of
from trimtab.grpc.method import Deserializer, Method, Methods
from trimtab.grpc.outgoing import Outgoing
from trimtab.grpc.subchannels import OPTIONS, SubChannels

_grpc: Any = grpc  # its type stubs differ from it in what is generic
Serializer = Callable[[Any], bytes] | None


class Calls(Protocol):
    """What a channel needs of a mesh."""

    def callee(self, service: str, namespace: str | None = ...) -> Callee:
        """Return the service as calls see it. Raises MeshClosed."""
        ...


class MeshChannel(_grpc.Channel):  # type: ignore[misc]
    """A channel to a service. Use ``channel`` to make one."""

    def __init__(
        self,
        mesh: Calls,
        service: str,
        namespace: str | None,
        make: Callable[[Endpoint], grpc.Channel],
        idempotent: Collection[str],
    ) -> None:
        self._mesh = mesh
        self._namespace = namespace
        # The service as calls see it. Raises MeshClosed.
        self.own: Callable[[], Callee] = partial(mesh.callee, service, namespace)
        self._methods = Methods(idempotent)
        self.subchannels: SubChannels[grpc.Channel] = SubChannels(
            make, _close, lambda: ValueError("Cannot invoke RPC on closed channel!"), quiet=True
        )
        self.alarms = Alarms()
        self.live: weakref.WeakSet[Background] = weakref.WeakSet()
        self.waiting: set[Future[None]] = set()
        self._held: set[Background] = set()
        self._subscribed: dict[Callable[[grpc.ChannelConnectivity], None], Callable[[], None]] = {}

    def callee(self, service: str = "") -> Callee:
        """The service as calls see it, or another one of its namespace. Raises MeshClosed."""
        return self._mesh.callee(service, self._namespace) if service else self.own()

    def hold(self, call: Background) -> None:
        """Somebody waits for a call."""
        self._held.add(call)

    def forget(self, call: Background) -> None:
        """A call is over."""
        self.live.discard(call)
        self._held.discard(call)

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

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        """Have ``callback`` told whether anybody can be called: READY or TRANSIENT_FAILURE. It must not block."""

        def tell(state: ServiceState) -> None:
            able = bool(state.eligible())
            callback(grpc.ChannelConnectivity.READY if able else grpc.ChannelConnectivity.TRANSIENT_FAILURE)

        self._subscribed[callback] = self.callee().listen(tell)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Tell it no more."""
        stop = self._subscribed.pop(callback, None)
        if stop is not None:
            stop()

    def close(self) -> None:
        """Cancel the calls that are under way, and take no further ones. Twice is once."""
        for callback in list(self._subscribed):
            self.unsubscribe(callback)
        channels = self.subchannels.drain()
        for call in list(self.live):
            call.cancel()
        for found in list(self.waiting):
            found.cancel()
        for channel in channels:
            channel.close()

    def __enter__(self) -> MeshChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Stub:
    """A method of the channel. Its calls take what gRPC's own take: request, timeout, metadata, …"""

    def __init__(self, channel: MeshChannel, method: Method) -> None:
        self._channel = channel
        self._method = method


class _WithCall(Outgoing):
    """A call whose caller also wants to know what came with the answer."""

    how = "with_call"


def _begin_later(out: Outgoing, callee: Callee, error: NoEndpoints, waiting: set[Future[None]]) -> Call:
    """Let a call in that found nobody, when there is somebody. Raises ``error`` where it is not to wait, or waits too long.

    ``waiting``: all that wait over this channel, to be cancelled with it.
    """
    if not out.wait_for_ready:
        raise error
    found = callee.when(has_endpoint)
    waiting.add(found)
    try:
        if out.subchannels.closed:
            found.cancel()
        found.result(None if out.deadline is None else out.deadline - out.began)
    except (WaitedTooLong, CancelledError, MeshClosed):
        raise error from None
    finally:
        found.cancel()
        waiting.discard(found)
    return out.begin(callee)


def _complete(out: Outgoing, first: BaseException | None = None) -> Any:
    """Make attempts until one succeeds. Raises what the last one failed with, or what kept a further one from being made.

    ``first``: what the first one failed with, when it was made already.
    """
    call = out.call
    pipeline, now = call.pipeline, call.began
    if call.wait and first is None:
        _sleep(call, call.wait)
        now = pipeline.now()
        pipeline.go_on(call, now)
    while True:
        failed: grpc.RpcError | None = None
        if pipeline.observed:
            out.sending()
        try:
            if first is not None:
                raise first
            if call.abort is None:
                answer = out.start(now, call.timeout(now))
                pipeline.answered(call, pipeline.now(), True)
                return answer
            status = injected(call.abort)
        except grpc.RpcError as error:
            status, failed = status_of(error), error
        except BaseException as error:
            out.mistaken(error)
            raise
        delay = out.ended(status)
        if delay is None:
            told = failure(call, status, CallFailed, failed)
            if told is failed:
                raise told
            raise told from failed
        if delay:
            _sleep(call, delay)
        now = pipeline.now()
        try:
            pipeline.again(call, now)
        except TrimtabError as error:
            pipeline.over(call, now)
            error.__dict__["trimtab"] = call
            raise error from failed
        first = None


def _complete_hearing(out: Outgoing) -> Any:
    """The same for a call whose callee may have something to tell behind its answer, which is all that the caller wants."""
    out.how = "with_call"
    try:
        return _complete(out)[0]
    finally:
        del out.how


def _race(out: Outgoing) -> Any:
    """Have copies race. Raises what the last one failed with."""
    call = out.call
    try:
        inner = block(run(call.pipeline, call, BlockingCopies(out)))
    except CopyFailed as error:
        raise failure(call, error.status, CallFailed) from None
    call.pipeline.over(call, call.pipeline.now())
    return (inner.result(), inner) if out.how else inner.result()


def _sleep(call: Call, seconds: float) -> None:
    try:
        call.pipeline.clock.sleep(seconds)
    except BaseException:
        call.pipeline.over(call, call.pipeline.now())
        raise


class _SingleAnswer(_Stub):
    """A method with one answer."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call, and return the answer. Raises grpc.RpcError."""
        out = Outgoing(self._channel.subchannels, self._method, *arguments, **options)
        answer = self._complete(out, self._channel.own())
        if isinstance(answer, Substituted):
            return answer.answer
        if out.call.pipeline.fallbacks is not None:
            self._method.keep(out, answer)
        return answer

    def with_call(self, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        """Call, and return the answer together with the call. Raises grpc.RpcError."""
        out = _WithCall(self._channel.subchannels, self._method, *arguments, **options)
        answer = self._complete(out, self._channel.own())
        if isinstance(answer, Substituted):
            return answer.answer, answer
        message, told = answer
        told.__dict__["trimtab"] = out.call
        if out.call.pipeline.fallbacks is not None:
            self._method.keep(out, message)
        return message, told

    def future(self, *arguments: Any, **options: Any) -> FutureCall:
        """Call in the background."""
        return FutureCall(self._channel.subchannels, self._method, *arguments, **options).launch(self._channel)

    def _complete(self, out: Outgoing, callee: Callee, *, is_fallback: bool = False) -> Any:
        """What gRPC returns in the end, or what stands in for it. Raises what the call fails with."""
        try:
            try:
                pipeline = out.begin(callee).pipeline
            except NoEndpoints as error:
                pipeline = _begin_later(out, callee, error, self._channel.waiting).pipeline
            if pipeline.plain:
                return _complete(out)
            if self._method.kind != "unary_unary":
                without(pipeline, "gRPC's streams", ("hedge", "mirror"))
            elif pipeline.mirroring is not None and not is_fallback:
                mirror_blocking(out, self._channel.callee)
            if out.races():
                return _race(out)
            asking = pipeline.balancer.loads is not None and not out.how
            return _complete_hearing(out) if asking else _complete(out)
        except (TrimtabError, grpc.RpcError) as error:
            call: Call = error.__dict__["trimtab"]
            found = None if is_fallback else self._method.instead(out, call, error)
            if found is None:
                told = refusal(error, CallFailed)
                if told is error:
                    raise
                raise told from error.__cause__
            if not found.service:
                return Substituted(found.value, call)
            answer = self._complete(out, self._channel.callee(found.service), is_fallback=True)
            call.pipeline.substituted(out.call, found.service)
            return answer


class UnaryUnary(_SingleAnswer, _grpc.UnaryUnaryMultiCallable):  # type: ignore[misc]
    """A method with one request and one answer."""

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Entries | None = None,
        credentials: Any = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> Any:
        """Call, and return the answer. Raises grpc.RpcError."""
        channel, method = self._channel, self._method
        kept = method.kept
        if kept is None or kept.pipeline.retired:
            kept = method.keep_pipeline(channel.own())
        if kept is None or wait_for_ready or marks.get() is not UNMARKED:
            return super().__call__(request, timeout, metadata, credentials, wait_for_ready, compression)
        # The short way, as that of guards: what is rarely needed costs a call nothing.
        pipeline, callee = kept
        now, deadline = pipeline.now(), inherited.get()
        if timeout is not None and (deadline is None or now + timeout < deadline):
            deadline = now + timeout
        try:
            call = pipeline.begin(now, method.name, deadline)
        except TrimtabError as error:
            raise refusal(error, CallFailed) from None
        subchannels = channel.subchannels
        try:
            sub = subchannels.to(call.endpoint, call.tally, callee, now)  # type: ignore[arg-type]  # it was let in
            stub = sub.stubs.get(method) or subchannels.stub(sub, method)
            left = None if call.until is None else call.until - now
            answer = stub(request, left, metadata, credentials, None, compression)
        except BaseException as error:
            failed = error
        else:
            pipeline.answered(call, pipeline.now(), True)
            return answer
        out = Outgoing(subchannels, method, request, timeout, metadata, credentials, wait_for_ready, compression)
        out.began, out.deadline, out.callee, out.call = now, deadline, callee, call
        try:
            return _complete(out, failed)
        except TrimtabError as error:
            raise refusal(error, CallFailed) from error.__cause__


class StreamUnary(_SingleAnswer, _grpc.StreamUnaryMultiCallable):  # type: ignore[misc]
    """A method with a stream of requests and one answer."""


class _StreamedAnswer(_Stub):
    """A method with a stream of answers."""

    def __call__(self, *arguments: Any, **options: Any) -> StreamCall:
        """Call, and return the answers as an iterator, which raises grpc.RpcError."""
        return StreamCall(self._channel.subchannels, self._method, *arguments, **options).launch(self._channel)


class UnaryStream(_StreamedAnswer, _grpc.UnaryStreamMultiCallable):  # type: ignore[misc]
    """A method with one request and a stream of answers."""


class StreamStream(_StreamedAnswer, _grpc.StreamStreamMultiCallable):  # type: ignore[misc]
    """A method with a stream of requests and a stream of answers."""


def channel(
    mesh: Calls,
    service: str,
    *,
    namespace: str | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    compression: grpc.Compression | None = None,
    options: Iterable[tuple[str, Any]] = (),
    idempotent: Collection[str] = (),
) -> MeshChannel:
    """A channel to all endpoints of a service.

    ``credentials``, ``compression`` and ``options`` are those of ``grpc.secure_channel`` and hold for each endpoint; without
    credentials endpoints whose metadata say so ("scheme": "https" or "grpcs") are spoken to over TLS, with the roots that gRPC
    brings. ``idempotent``: methods that may be sent twice without harm, as ``Get`` or ``shop.Orders/Get``.
    """
    arguments = tuple({**OPTIONS, **dict(options)}.items())

    def make(endpoint: Endpoint) -> grpc.Channel:
        trust = credentials
        if trust is None and is_secure(endpoint):
            trust = grpc.ssl_channel_credentials()
        if trust is None:
            return grpc.insecure_channel(endpoint.target, arguments, compression)
        return grpc.secure_channel(endpoint.target, trust, arguments, compression)

    return MeshChannel(mesh, service, namespace, make, frozenset(idempotent))


def is_secure(endpoint: Endpoint) -> bool:
    """Whether an endpoint says of itself that it speaks TLS."""
    return endpoint.metadata.get("scheme") in ("https", "grpcs")


def _close(channel: grpc.Channel) -> None:
    channel.close()
