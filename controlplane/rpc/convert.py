"""Between the wire's messages and the core's values."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from trimtab.v1 import admin_pb2, mesh_pb2, types_pb2

from controlplane.core import validation
from controlplane.core.model import DEFAULT_NAMESPACE, Instance, SessionRecord
from controlplane.core.resource import ResourceKind, ResourceName
from controlplane.errors import Code, TrimtabError, Violation
from controlplane.runtime.clients import ClientInfo, Load

_MAX_NAME = 256


def instance(message: types_pb2.Instance, default_namespace: str) -> Instance:
    """Raises INVALID with every violation."""
    return validation.instance(
        namespace=message.namespace,
        service=message.service,
        id=message.id,
        address=message.address,
        port=message.port,
        weight=message.weight,
        zone=message.zone,
        metadata=message.metadata,
        state=message.state,
        default_namespace=default_namespace,
    )


def check_node(node: types_pb2.Node) -> None:
    """Raises INVALID when a client introduces itself badly."""
    findings = validation.Findings()
    if not node.id or len(node.id) > 128:
        findings.add("node.id", f"{len(node.id)} characters", "1 to 128, unique to the process")
    if node.namespace:
        findings.name("node.namespace", node.namespace)
    for field in ("name", "sdk", "host", "zone"):
        if len(getattr(node, field)) > _MAX_NAME:
            findings.add(f"node.{field}", "too long", f"at most {_MAX_NAME} characters")
    if len(node.labels) > validation.MAX_METADATA_ENTRIES:
        findings.add(
            "node.labels", f"{len(node.labels)} entries are too many", f"at most {validation.MAX_METADATA_ENTRIES}"
        )
    findings.raise_if_any("the client's introduction")


def session_record(node: types_pb2.Node, *, replica: str, ttl: float) -> SessionRecord:
    """What the store keeps of a session."""
    return SessionRecord(node.id, node.name, node.namespace or DEFAULT_NAMESPACE, replica, ttl)


@lru_cache(4096)  # thousands of clients follow the same names
def resource_name(kind: int, name: str, path: str) -> ResourceName:
    """Raises INVALID, naming ``path``, when it is not the name of a resource of that kind."""
    findings = validation.Findings()
    if kind not in {*ResourceKind}:
        findings.add(f"{path}.kind", f"{kind} is not a kind", "1 endpoints, 2 policy, 3 config")
        findings.raise_if_any("the subscription")
    parts = name.split("/")
    wanted = "NAMESPACE/APP/FILE" if kind == ResourceKind.CONFIG else "NAMESPACE/SERVICE"
    if len(parts) != wanted.count("/") + 1:
        findings.add(f"{path}.name", f"{name[:64]!r} is not a resource name", wanted)
    elif kind == ResourceKind.POLICY:
        findings.name(f"{path}.name", parts[0])
        findings.policy(f"{path}.name", parts[1])
    else:
        for part in parts[:2]:
            findings.name(f"{path}.name", part)
        for part in parts[2:]:
            findings.identifier(f"{path}.name", part)
    findings.raise_if_any("the subscription")
    return ResourceName(ResourceKind(kind), name)


def error(failure: TrimtabError, request_id: int = 0) -> types_pb2.Error:
    """A refusal, for a client."""
    return types_pb2.Error(
        request_id=request_id,
        code=failure.code.code,
        message=failure.message,
        hint=failure.hint,
        violations=[types_pb2.Violation(path=v.path, message=v.message, hint=v.hint) for v in failure.violations],
        retryable=failure.code.retryable,
    )


def load(message: types_pb2.Load) -> Load:
    """A load report."""
    return Load(message.cpu, message.memory, message.serving, message.calling)


def duration(seconds: float) -> Duration:
    """Seconds as the wire has them."""
    converted = Duration()
    converted.FromNanoseconds(round(seconds * 1e9))
    return converted


def client(info: ClientInfo) -> admin_pb2.Client:
    """A client, for an operator."""
    connected_at = Timestamp()
    connected_at.FromNanoseconds(round(info.connected_at * 1e9))
    return admin_pb2.Client(
        node=types_pb2.Node(
            id=info.node_id,
            namespace=info.namespace,
            name=info.name,
            sdk=info.sdk,
            host=info.host,
            pid=info.pid,
            zone=info.zone,
        ),
        peer=info.peer,
        replica=info.replica,
        session=info.session,
        connected_at=connected_at,
        last_heartbeat_age=duration(info.last_heartbeat_age),
        subscriptions=info.subscriptions,
        acked=info.acked,
        behind=info.behind,
        nacks=[admin_pb2.Refused(resource=name, reason=reason) for name, reason in info.nacks],
        load=types_pb2.Load(
            cpu=info.load.cpu, memory=info.load.memory, serving=info.load.serving, calling=info.load.calling
        ),
        followed=[admin_pb2.Followed(resource=_named(name), behind=behind) for name, behind in info.followed],
    )


def client_info(message: admin_pb2.Client) -> ClientInfo:
    """A client, as another replica tells it."""
    node = message.node
    return ClientInfo(
        node_id=node.id,
        name=node.name,
        namespace=node.namespace,
        sdk=node.sdk,
        host=node.host,
        pid=node.pid,
        zone=node.zone,
        peer=message.peer,
        replica=message.replica,
        session=message.session,
        connected_at=message.connected_at.ToNanoseconds() / 1e9,
        last_heartbeat_age=message.last_heartbeat_age.ToNanoseconds() / 1e9,
        subscriptions=message.subscriptions,
        acked=message.acked,
        behind=message.behind,
        nacks=tuple((nack.resource, nack.reason) for nack in message.nacks),
        load=load(message.load),
        followed=tuple((resource, item.behind) for item in message.followed for resource in names([item.resource])),
    )


def names(messages: Iterable[mesh_pb2.ResourceName]) -> tuple[ResourceName, ...]:
    """The resources that are named, in a question among replicas. Raises INVALID."""
    return tuple(resource_name(item.kind, item.name, f"names[{index}]") for index, item in enumerate(messages))


def clients_asked(following: Collection[ResourceName]) -> admin_pb2.ListClientsRequest:
    """The question for one replica's clients."""
    return admin_pb2.ListClientsRequest(local=True, following=[_named(name) for name in following])


def _named(name: ResourceName) -> mesh_pb2.ResourceName:
    return mesh_pb2.ResourceName(kind=int(name.kind), name=name.name)  # type: ignore[arg-type]


def malformed(what: str) -> TrimtabError:
    """For bytes that are not the message they should be."""
    return TrimtabError(
        Code.MALFORMED,
        f"{what} cannot be decoded",
        hint="speak trimtab.v1 as in proto/trimtab/v1",
        violations=[Violation("message", "not a protobuf message of this type")],
    )


def server_message(**field: object) -> bytes:
    """One serialised ServerMessage."""
    return mesh_pb2.ServerMessage(**field).SerializeToString()  # type: ignore[arg-type]
