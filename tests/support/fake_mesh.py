"""A mesh server of real gRPC for tests of the SDK: keeps its truth in memory and can be scripted to misbehave.

Replicas share one ``FakeStore``. What the SDK sent is kept in ``FakeMesh.messages``; ``refusals`` maps a service to the Error
that its requests get; ``send`` puts any message on all open streams.
"""

from __future__ import annotations

import itertools
import queue
import secrets
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from trimtab.v1 import mesh_pb2_grpc
from trimtab.v1.mesh_pb2 import (
    ClientMessage,
    Committed,
    Delta,
    GoAway,
    Hello,
    ServerMessage,
    Session,
    Subscription,
    Welcome,
)
from trimtab.v1.types_pb2 import (
    HEALTH_DRAINING,
    HEALTH_HEALTHY,
    HEALTH_UNHEALTHY,
    INSTANCE_STATE_DRAINING,
    INSTANCE_STATE_SERVING,
    KIND_CONFIG,
    KIND_ENDPOINTS,
    KIND_POLICY,
    Config,
    Endpoint,
    Endpoints,
    Error,
    Health,
    Instance,
    Resource,
)

Key = tuple[int, str]


def healthy_of(instance: Instance) -> Health:
    if instance.state == INSTANCE_STATE_SERVING:
        return HEALTH_HEALTHY
    return HEALTH_DRAINING if instance.state == INSTANCE_STATE_DRAINING else HEALTH_UNHEALTHY


def digest(resource: Resource) -> int:
    body = Resource(kind=resource.kind, name=resource.name)
    body.MergeFrom(resource)
    body.version = 0
    if body.HasField("endpoints"):
        body.endpoints.base = 0
    return zlib.crc32(body.SerializeToString(deterministic=True)) + 1


class FakeStore:
    """The truth that replicas share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.revision = 100
        self.endpoints: dict[str, dict[str, Endpoint]] = {}
        self.versions: dict[str, int] = {}
        self.protected: set[str] = set()
        self.configs: dict[str, tuple[int, str, bytes]] = {}
        self.policies: dict[str, tuple[int, bytes]] = {}
        self.sessions: dict[str, set[tuple[str, str]]] = {}
        self.streams: list[FakeStream] = []

    def put(self, service: str, *endpoints: Endpoint) -> None:
        """Add or replace endpoints and tell everyone."""
        with self.lock:
            held = self.endpoints.setdefault(service, {})
            for endpoint in endpoints:
                held[endpoint.id] = endpoint
            self._changed(service, changed=endpoints)

    def remove(self, service: str, *ids: str) -> None:
        with self.lock:
            for id_ in ids:
                self.endpoints.get(service, {}).pop(id_, None)
            self._changed(service, removed=ids)

    def publish(self, name: str, format_: str, content: bytes) -> None:
        """Release a configuration file, NAMESPACE/APP/FILE."""
        with self.lock:
            self.revision += 1
            self.configs[name] = (self.revision, format_, content)
            for stream in list(self.streams):
                if (KIND_CONFIG, name) in stream.held:
                    stream.deliver(self.resource((KIND_CONFIG, name)))

    def enact(self, name: str, document: bytes | None) -> int:
        """Put a policy into force, NAMESPACE/SERVICE or NAMESPACE/*, as canonical JSON; None: end it. Returns its revision."""
        with self.lock:
            self.revision += 1
            if document is None:
                self.policies.pop(name, None)
            else:
                self.policies[name] = self.revision, document
            for stream in list(self.streams):
                if (KIND_POLICY, name) in stream.held:
                    stream.deliver(self.resource((KIND_POLICY, name)))
            return self.revision

    def expire(self, handle: str) -> None:
        """End a session with everything it holds."""
        with self.lock:
            for service, id_ in self.sessions.pop(handle, set()):
                self.remove(service, id_)

    def ids(self, service: str) -> set[str]:
        with self.lock:
            return set(self.endpoints.get(service, {}))

    def resource(self, key: Key) -> Resource:
        """Return a resource as a whole."""
        kind, name = key
        with self.lock:
            resource = Resource(kind=kind, name=name)  # type: ignore[arg-type]
            if kind == KIND_ENDPOINTS and name in self.versions:
                known = list(self.endpoints[name].values())
                resource.version = self.versions[name]
                protected = name in self.protected
                resource.endpoints.CopyFrom(Endpoints(full=True, changed=known, total=len(known), protected=protected))
                resource.digest = digest(resource)
            if kind == KIND_CONFIG and name in self.configs:
                version, format_, content = self.configs[name]
                resource.version = version
                resource.config.CopyFrom(Config(format=format_, content=content))
                resource.digest = digest(resource)
            if kind == KIND_POLICY:
                resource.version = max(1, self.revision)
                if name in self.policies:
                    resource.version, resource.policy.document = self.policies[name]
                    resource.digest = digest(resource)
            return resource

    def _changed(self, service: str, changed: Any = (), removed: Any = ()) -> None:
        self.revision += 1
        base, self.versions[service] = self.versions.get(service, 0), self.revision
        whole = self.resource((KIND_ENDPOINTS, service))
        for stream in list(self.streams):
            if (KIND_ENDPOINTS, service) not in stream.held:
                continue
            if base == 0 or stream.held[KIND_ENDPOINTS, service] != base:
                stream.deliver(whole)
                continue
            news = Endpoints(base=base, changed=changed, removed=removed, total=whole.endpoints.total)
            news.protected = whole.endpoints.protected
            stream.deliver(
                Resource(kind=KIND_ENDPOINTS, name=service, version=whole.version, digest=whole.digest, endpoints=news)
            )


@dataclass(eq=False)
class FakeStream:
    """One open stream of a replica."""

    replica: FakeMesh
    metadata: dict[str, Any]
    outbox: queue.SimpleQueue[ServerMessage | grpc.StatusCode | None] = field(default_factory=queue.SimpleQueue)
    held: dict[Key, int] = field(default_factory=dict)
    handle: str = ""
    hello: Hello = field(default_factory=Hello)
    nonces: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def deliver(self, resource: Resource) -> None:
        self.held[int(resource.kind), resource.name] = resource.version
        delta = Delta(nonce=next(self.nonces), version=self.replica.store.revision, resources=[resource])
        self.outbox.put(ServerMessage(delta=delta))


class FakeMesh(mesh_pb2_grpc.MeshServicer):
    """One replica on a port of its own (or a given one)."""

    def __init__(
        self,
        store: FakeStore | None = None,
        *,
        port: int = 0,
        name: str = "fake",
        heartbeat: float = 0.2,
        max_subscriptions: int = 1000,
        credentials: grpc.ServerCredentials | None = None,
        token: str = "",
        pending_resumes: bool = False,
    ) -> None:
        self.store = store or FakeStore()
        self.name = name
        self.token = token
        self.messages: list[ClientMessage] = []
        self.streams: list[FakeStream] = []
        self.refusals: dict[str, Error] = {}
        self.mute = False
        self.pending_resumes = pending_resumes
        self.status: tuple[grpc.StatusCode, Error] | None = None
        self.intercept: Callable[[FakeStream, ClientMessage], bool] = lambda stream, message: False
        self._welcome = Welcome(
            replica=name,
            server_version="fake",
            heartbeat_interval=_duration(heartbeat),
            heartbeat_window=_duration(heartbeat * 4),
            grace=_duration(5),
            max_subscriptions=max_subscriptions,
        )
        self._server = grpc.server(
            futures.ThreadPoolExecutor(64),
            options=[("grpc.http2.min_ping_interval_without_data_ms", 1000), ("grpc.so_reuseport", 0)],
        )
        mesh_pb2_grpc.add_MeshServicer_to_server(self, self._server)
        address = f"127.0.0.1:{port}"
        bound = (
            self._server.add_secure_port(address, credentials)
            if credentials
            else self._server.add_insecure_port(address)
        )
        self.port = bound
        self.address = f"127.0.0.1:{bound}"
        self._server.start()

    def __enter__(self) -> FakeMesh:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Cut every stream, as a crash does, and free the port."""
        for stream in list(self.streams):
            stream.outbox.put(None)
        self._server.stop(None).wait(5)

    def send(self, message: ServerMessage) -> None:
        """Put a message on every open stream."""
        for stream in list(self.streams):
            stream.outbox.put(message)

    def cut(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        """End every stream with a status; the server stays."""
        for stream in list(self.streams):
            stream.outbox.put(code)

    def go_away(self, spread: float = 0.0) -> None:
        self.send(ServerMessage(go_away=GoAway(reason="test", spread=_duration(spread), deadline=_duration(5))))

    def sent(self, kind: str) -> list[Any]:
        """Return all messages of a kind that clients sent, in order."""
        return [getattr(m, kind) for m in list(self.messages) if m.WhichOneof("message") == kind]

    # The wire

    def Connect(  # noqa: N802 - the name is the wire contract's
        self, request_iterator: Iterator[ClientMessage], context: grpc.ServicerContext
    ) -> Iterator[ServerMessage]:
        stream = FakeStream(self, dict(context.invocation_metadata()))
        if self.token and stream.metadata.get("authorization") != f"Bearer {self.token}":
            self._refuse(
                context, grpc.StatusCode.UNAUTHENTICATED, Error(code="access.unauthenticated", message="wrong token")
            )
        if self.status is not None:
            self._refuse(context, *self.status)
        reader = threading.Thread(target=self._read, args=(stream, request_iterator), daemon=True)
        reader.start()
        self.streams.append(stream)
        try:
            while (message := stream.outbox.get()) is not None:
                if isinstance(message, grpc.StatusCode):
                    context.abort(message, "cut by the test")
                assert isinstance(message, ServerMessage)
                yield message
        finally:
            self.streams.remove(stream)
            with self.store.lock:
                if stream in self.store.streams:
                    self.store.streams.remove(stream)

    def _refuse(self, context: grpc.ServicerContext, code: grpc.StatusCode, error: Error) -> None:
        context.set_trailing_metadata((("trimtab-error-bin", error.SerializeToString()),))
        context.abort(code, error.message)

    def _read(self, stream: FakeStream, requests: Iterator[ClientMessage]) -> None:
        try:
            for message in requests:
                self.messages.append(message)
                if not self.mute and not self.intercept(stream, message):
                    self._take(stream, message)
        except Exception:
            stream.outbox.put(None)
        else:
            stream.outbox.put(None)

    def _take(self, stream: FakeStream, message: ClientMessage) -> None:
        with self.store.lock:
            match message.WhichOneof("message"):
                case "hello":
                    stream.hello = message.hello
                    self.store.streams.append(stream)
                    stream.outbox.put(ServerMessage(welcome=self._welcome))
                    if message.hello.resume:
                        self._resume(stream, message.hello.resume)
                    self._subscribe(stream, list(message.hello.subscriptions))
                case "subscribe":
                    self._subscribe(stream, list(message.subscribe.subscriptions))
                case "unsubscribe":
                    for name in message.unsubscribe.names:
                        stream.held.pop((int(name.kind), name.name), None)
                case "register":
                    self._store(stream, message.register.request_id, message.register.instance)
                case "update":
                    self._store(stream, message.update.request_id, message.update.instance)
                case "deregister":
                    gone = message.deregister
                    service = f"{gone.namespace}/{gone.service}"
                    if gone.id in self.store.ids(service):
                        self.store.sessions[stream.handle].discard((service, gone.id))
                        self.store.remove(service, gone.id)
                        stream.outbox.put(_committed(gone.request_id, gone.id, self.store.revision))
                    else:
                        error = Error(request_id=gone.request_id, code="instance.not_found", message=gone.id)
                        stream.outbox.put(ServerMessage(error=error))
                case "nack":
                    for refusal in message.nack.refusals:
                        if refusal.resend:
                            stream.deliver(self.store.resource((int(refusal.kind), refusal.name)))
                case "goodbye":
                    self.store.expire(stream.handle)
                    stream.outbox.put(None)

    def _resume(self, stream: FakeStream, handle: str) -> None:
        if self.pending_resumes:
            stream.outbox.put(ServerMessage(session=Session(state=Session.STATE_PENDING)))
            stream.handle = handle
        elif handle in self.store.sessions:
            stream.handle = handle
            stream.outbox.put(
                ServerMessage(session=Session(state=Session.STATE_ATTACHED, handle=handle, id=handle[:6]))
            )
        else:
            stream.outbox.put(ServerMessage(session=Session(state=Session.STATE_LOST)))

    def _subscribe(self, stream: FakeStream, subscriptions: list[Subscription]) -> None:
        for wanted in subscriptions:
            key = int(wanted.kind), wanted.name
            resource = self.store.resource(key)
            stream.held[key] = resource.version
            if not wanted.version or wanted.digest != resource.digest:
                stream.deliver(resource)

    def _store(self, stream: FakeStream, request_id: int, instance: Instance) -> None:
        service = f"{instance.namespace}/{instance.service}"
        if service in self.refusals:
            error = Error()
            error.CopyFrom(self.refusals[service])
            error.request_id = request_id
            stream.outbox.put(ServerMessage(error=error))
            return
        if not stream.handle:
            stream.handle = secrets.token_hex(8)
            self.store.sessions[stream.handle] = set()
            attached = Session(state=Session.STATE_ATTACHED, handle=stream.handle, id=stream.handle[:6])
            stream.outbox.put(ServerMessage(session=attached))
        id_ = instance.id or f"{instance.address}-{instance.port}"
        self.store.sessions[stream.handle].add((service, id_))
        endpoint = Endpoint(
            id=id_,
            address=instance.address,
            port=instance.port,
            weight=instance.weight or 100,
            health=healthy_of(instance),
            zone=instance.zone,
            metadata=instance.metadata,
        )
        self.store.put(service, endpoint)
        stream.outbox.put(_committed(request_id, id_, self.store.revision))


def _committed(request_id: int, id_: str, revision: int) -> ServerMessage:
    return ServerMessage(committed=Committed(request_id=request_id, instance_id=id_, revision=revision))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration


def endpoint(id_: str, port: int = 8000, *, weight: int = 100, health: Health = HEALTH_HEALTHY) -> Endpoint:
    """Return an endpoint for ``FakeStore.put``."""
    return Endpoint(id=id_, address="127.0.0.1", port=port, weight=weight, health=health)
