"""The nouns: what is reported, what is desired, and what clients are told. Immutable values, compared by content."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

from controlplane.core.defaults import DEFAULT_NAMESPACE as DEFAULT_NAMESPACE
from controlplane.core.defaults import DEFAULT_WEIGHT as DEFAULT_WEIGHT


class InstanceState(IntEnum):
    """What an instance says of itself; the numbers are the wire's."""

    STARTING = 1
    SERVING = 2
    DRAINING = 3
    UNHEALTHY = 4


class Health(IntEnum):
    """True health of an endpoint; the numbers are the wire's."""

    HEALTHY = 1
    DRAINING = 2
    UNHEALTHY = 3
    SUSPECT = 4


class Kind(StrEnum):
    """The kinds of record that the store keeps; each is one branch of the key space."""

    INSTANCE = "instances"
    DESIRED = "desired"
    PROTECTION = "protection"
    CONFIG = "configs"
    POLICY = "policies"
    REPLICA = "replicas"
    SESSION = "sessions"


# Sessions are written often and read only by the replica that resumes one: no watch covers them.
WATCHED = tuple(kind for kind in Kind if kind is not Kind.SESSION)


class Ref(NamedTuple):
    """Identity of a record: its kind and its path below it, as ``Ref(Kind.INSTANCE, ("default", "orders", "a"))``."""

    kind: Kind
    path: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind.value}/{'/'.join(self.path)}"


class ServiceName(NamedTuple):
    """A service within its namespace."""

    namespace: str
    service: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}"


@dataclass(frozen=True, slots=True)
class Instance:
    """One registrant of a service, as it reports itself."""

    namespace: str
    service: str
    id: str
    address: str
    port: int
    weight: int = DEFAULT_WEIGHT
    zone: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    state: InstanceState = InstanceState.SERVING

    @property
    def ref(self) -> Ref:
        """Identity of its record."""
        return Ref(Kind.INSTANCE, (self.namespace, self.service, self.id))

    @property
    def name(self) -> ServiceName:
        """The service it belongs to."""
        return ServiceName(self.namespace, self.service)


@dataclass(frozen=True, slots=True)
class Desired:
    """An operator's intent for an instance. It outlives the instance's restarts. None: no opinion."""

    drain: bool = False
    weight: int | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Protection:
    """A replica's claim that sessions of a service broke together, so that the instances may well be alive."""

    replica: str
    suspects: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The current release of a configuration file."""

    format: str
    content: bytes
    author: str = ""


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """A resilience policy of one callee, canonical JSON; ``source`` is the YAML that people gave for it, if they did."""

    document: bytes
    source: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class Replica:
    """A control-plane process and where its peers reach it."""

    id: str
    grpc_address: str
    http_address: str
    version: str
    started_at: float


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What the store keeps of a session. Its epoch is the store revision of its last write."""

    node: str
    name: str
    namespace: str
    replica: str
    ttl: float


Record = Instance | Desired | Protection | ConfigFile | PolicyDocument | Replica | SessionRecord


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as the store holds it.

    ``lease`` is the session (lease id) on which it hangs, 0 when it stays by itself; revisions are the store's.
    """

    ref: Ref
    record: Record
    created: int
    revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """A record was written (``stored``) or is gone (``None``) at ``revision``."""

    ref: Ref
    stored: Stored | None
    revision: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What clients dial: the instance as reported, merged with the operator's intent."""

    id: str
    address: str
    port: int
    weight: int
    health: Health
    zone: str
    metadata: dict[str, str]
