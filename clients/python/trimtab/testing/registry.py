"""What a control plane would know, in memory: answers what a stream sends, and tells of changes, at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from trimtab.v1.mesh_pb2 import ClientMessage, Committed, Delta, Refusal, ServerMessage, Session, Subscription, Welcome
from trimtab.v1.types_pb2 import (
    HEALTH_DRAINING,
    HEALTH_HEALTHY,
    HEALTH_UNHEALTHY,
    INSTANCE_STATE_DRAINING,
    INSTANCE_STATE_SERVING,
    Config,
    Endpoint,
    Error,
    Instance,
    Kind,
    Policy,
    Resource,
)

Key = tuple[int, str]
_HANDLE = "fake"
_HEALTH = {INSTANCE_STATE_SERVING: HEALTH_HEALTHY, INSTANCE_STATE_DRAINING: HEALTH_DRAINING}
DEFAULT_WEIGHT = 100


def instance_id(address: str, port: int) -> str:
    """The id of an instance that gives itself none."""
    return f"{address}-{port}"


class Registry:
    """Endpoints, policies and configuration by full names. ``tell`` hands a message to the stream.

    ``refusals``: why the client could not use what it was told, by kind and name. Not thread-safe: its stream locks.
    """

    def __init__(self) -> None:
        self.endpoints: dict[str, dict[str, Endpoint]] = {}
        self.registered: dict[str, set[str]] = {}
        self.refusals: dict[Key, str] = {}
        self.tell: Callable[[ServerMessage], None] | None = None
        self._policies: dict[str, bytes] = {}
        self._configs: dict[str, Config] = {}
        self._versions: dict[Key, int] = {}
        self._followed: set[Key] = set()
        self._revision = 0
        self._nonces = itertools.count(1)
        self._attached = False

    # What changes

    def put(self, service: str, endpoints: Iterable[Endpoint]) -> None:
        """Add or replace endpoints."""
        self.endpoints.setdefault(service, {}).update({endpoint.id: endpoint for endpoint in endpoints})
        self._changed((Kind.KIND_ENDPOINTS, service))

    def remove(self, service: str, ids: Iterable[str]) -> None:
        """Take endpoints away. Raises KeyError for one that is not there."""
        held = self.endpoints.get(service, {})
        for id_ in ids:
            del held[id_]
            self.registered.get(service, set()).discard(id_)
        self._changed((Kind.KIND_ENDPOINTS, service))

    def enact(self, name: str, document: bytes | None) -> None:
        """Put a policy into force; None: end it."""
        if document is None:
            self._policies.pop(name, None)
        else:
            self._policies[name] = document
        self._changed((Kind.KIND_POLICY, name))

    def publish(self, name: str, config: Config) -> None:
        """Release a configuration file."""
        self._configs[name] = config
        self._changed((Kind.KIND_CONFIG, name))

    def _changed(self, key: Key) -> None:
        self._revision += 1
        self._versions[key] = self._revision
        self.refusals.pop(key, None)
        if key in self._followed and self.tell is not None:
            self.tell(self._delta(key))

    # The wire

    def take(self, message: ClientMessage) -> Iterator[ServerMessage]:
        """Take a message and return what a server answers."""
        match message.WhichOneof("message"):
            case "hello":
                self._followed.clear()
                yield ServerMessage(welcome=Welcome(replica="fake", server_version="fake"))
                if message.hello.resume:
                    yield self._session()
                yield from self._subscribe(message.hello.subscriptions)
            case "subscribe":
                yield from self._subscribe(message.subscribe.subscriptions)
            case "unsubscribe":
                self._followed.difference_update((int(name.kind), name.name) for name in message.unsubscribe.names)
            case "nack":
                self.refusals.update({_key(refusal): refusal.reason for refusal in message.nack.refusals})
            case "register":
                yield from self._store(message.register.request_id, message.register.instance)
            case "update":
                yield from self._store(message.update.request_id, message.update.instance)
            case "deregister":
                gone = message.deregister
                service = f"{gone.namespace}/{gone.service}"
                if gone.id in self.endpoints.get(service, {}):
                    self.remove(service, [gone.id])
                    yield self._committed(gone.request_id, gone.id)
                else:
                    error = Error(request_id=gone.request_id, code="instance.not_found", message=gone.id)
                    yield ServerMessage(error=error)
            case "goodbye":
                self.tell = None
                for service, ids in self.registered.items():
                    self.remove(service, list(ids))

    def _subscribe(self, subscriptions: Iterable[Subscription]) -> Iterator[ServerMessage]:
        for key in [(int(wanted.kind), wanted.name) for wanted in subscriptions]:
            self._followed.add(key)
            yield self._delta(key)

    def _store(self, request_id: int, instance: Instance) -> Iterator[ServerMessage]:
        if not self._attached:
            self._attached = True
            yield self._session()
        service = f"{instance.namespace}/{instance.service}"
        endpoint = Endpoint(
            id=instance.id or instance_id(instance.address, instance.port),
            address=instance.address,
            port=instance.port,
            weight=instance.weight or DEFAULT_WEIGHT,
            health=_HEALTH.get(instance.state, HEALTH_UNHEALTHY),
            zone=instance.zone,
            metadata=instance.metadata,
        )
        self.registered.setdefault(service, set()).add(endpoint.id)
        self.put(service, [endpoint])
        yield self._committed(request_id, endpoint.id)

    def _session(self) -> ServerMessage:
        return ServerMessage(session=Session(state=Session.STATE_ATTACHED, handle=_HANDLE, id=_HANDLE))

    def _committed(self, request_id: int, id_: str) -> ServerMessage:
        return ServerMessage(committed=Committed(request_id=request_id, instance_id=id_, revision=self._revision))

    def _delta(self, key: Key) -> ServerMessage:
        kind, name = key
        version = self._versions.get(key, 0)
        resource = Resource(kind=kind, name=name, version=version, digest=version)  # type: ignore[arg-type]
        if kind == Kind.KIND_ENDPOINTS and name in self.endpoints:
            known = self.endpoints[name].values()
            resource.endpoints.full, resource.endpoints.total = True, len(known)
            resource.endpoints.changed.extend(known)
        elif kind == Kind.KIND_POLICY and name in self._policies:
            resource.policy.CopyFrom(Policy(document=self._policies[name]))
        elif kind == Kind.KIND_CONFIG and name in self._configs:
            resource.config.CopyFrom(self._configs[name])
        return ServerMessage(delta=Delta(nonce=next(self._nonces), version=self._revision, resources=[resource]))


def _key(refusal: Refusal) -> Key:
    return int(refusal.kind), refusal.name
