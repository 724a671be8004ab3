"""The shapes of the admin API. What an instance reports and what its operator wants are never mixed: both are shown,
and what clients are told carries its origin and why.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from controlplane.core.model import Health, InstanceState
from controlplane.core.validation import CONFIG_FORMATS, MAX_WEIGHT
from controlplane.runtime.breakers import BreakerState

HealthName = Annotated[str, Field(json_schema_extra={"enum": [health.name for health in Health]})]
BreakerStateName = Annotated[str, Field(json_schema_extra={"enum": [state.name for state in BreakerState]})]
StateName = Annotated[str, Field(json_schema_extra={"enum": [state.name for state in InstanceState]})]
Format = Annotated[str, Field(json_schema_extra={"enum": list(CONFIG_FORMATS)})]
Origin = Literal["instance", "operator", "guard"]
Encoding = Literal["utf-8", "base64"]
Weight = Annotated[int, Field(ge=0, le=MAX_WEIGHT, description="Relative share of traffic; 0 is none.", examples=[50])]

INSTANCE_EXAMPLE: dict[str, Any] = {
    "name": "namespaces/default/services/orders/instances/10.0.0.7-8000",
    "namespace": "default",
    "service": "orders",
    "id": "10.0.0.7-8000",
    "reported": {
        "address": "10.0.0.7", "port": 8000, "weight": 100, "zone": "a", "metadata": {"version": "1.4"}, "state": "SERVING",
    },
    "desired": {"drain": True, "weight": None, "by": "ana@desk", "revision": 812},
    "health": {"value": "DRAINING", "origin": "operator", "why": "drained by ana@desk; the instance reports SERVING"},
    "weight": {"value": 100, "origin": "instance", "why": "the instance reports 100"},
    "session": "694d9a1f0c2e4410",
    "created": 640,
    "revision": 812,
}  # fmt: skip
CONFIG_EXAMPLE: dict[str, Any] = {
    "name": "namespaces/default/configs/shop/app.yaml",
    "namespace": "default",
    "app": "shop",
    "file": "app.yaml",
    "format": "yaml",
    "size": 20,
    "author": "ana@desk",
    "created": 12,
    "revision": 901,
}

POLICY_EXAMPLE: dict[str, Any] = {
    "name": "namespaces/shop/policies/orders",
    "namespace": "shop",
    "service": "orders",
    "sections": ["timeout", "breaker", "retry"],
    "routes": 1,
    "author": "ana@desk",
    "created": 12,
    "revision": 901,
}


class Shown(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Named(Shown):
    """A resource with its full name, by which watches tell items apart."""

    volatile: ClassVar[frozenset[str]] = frozenset()  # fields that alone make no change worth telling a watch

    name: str = Field(description="Full resource name, as `namespaces/default/services/orders`.")


NamedT = TypeVar("NamedT", bound=Named)


class Listing(Shown, Generic[NamedT]):
    """One page of a listing."""

    items: list[NamedT]
    next_page_token: str = Field("", description="Pass it as `page_token` for the next page; empty: this was the last.")
    revision: int = Field(description="Store revision that the answer shows.", examples=[812])


class Namespace(Named):
    """A namespace in which something is registered or configured."""

    namespace: str
    services: int
    configs: int
    policies: int


class Service(Named):
    """A service and how its instances fare."""

    namespace: str
    service: str
    instances: int = Field(description="All instances, called or not.")
    healthy: int
    draining: int
    unhealthy: int
    suspect: int
    protected: bool = Field(
        description="The mass-failure guard holds it: so many sessions broke at once that the fault is likelier in between."
    )
    revision: int = Field(description="Store revision of the last change to its endpoints.")


class Reported(Shown):
    """What the instance says of itself."""

    address: str
    port: int
    weight: int
    zone: str
    metadata: dict[str, str]
    state: StateName


class Desired(Shown):
    """What an operator wants of it. Kept apart from the report, and outlives the instance's restarts."""

    drain: bool
    weight: int | None = Field(description="null: no opinion, the instance's own counts.")
    by: str
    revision: int


class EffectiveHealth(Shown):
    """What clients are told, whose word that is, and why."""

    value: HealthName
    origin: Origin
    why: str


class EffectiveWeight(Shown):
    """What clients are told, whose word that is, and why."""

    value: int
    origin: Origin
    why: str


class Instance(Named):
    """One registrant: as reported, as desired, and as clients are told."""

    model_config = ConfigDict(json_schema_extra={"examples": [INSTANCE_EXAMPLE]})

    namespace: str
    service: str
    id: str
    reported: Reported
    desired: Desired | None
    health: EffectiveHealth
    weight: EffectiveWeight
    session: str = Field(description="Public id of the session on which it hangs.")
    created: int = Field(description="Store revision at which it was registered.")
    revision: int = Field(description="Store revision of the newest record shown here.")


class Intent(Shown):
    """The outcome of an operator's write."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"revision": 812, "instance": INSTANCE_EXAMPLE}]})

    revision: int = Field(description="Store revision of the write; this replica already shows it.")
    instance: Instance | None = Field(description="The instance now; null: it is gone, only the intent was changed.")


class Config(Named):
    """A configuration file, without its content."""

    model_config = ConfigDict(json_schema_extra={"examples": [CONFIG_EXAMPLE]})

    namespace: str
    app: str
    file: str
    format: Format
    size: int = Field(description="Bytes of content.")
    author: str
    created: int
    revision: int = Field(description="Store revision of this release; its ETag.")


class ConfigRelease(Config):
    """A configuration file with its content."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [CONFIG_EXAMPLE | {"content": "greeting: good day\n", "encoding": "utf-8"}]}
    )

    content: str = Field(description="As text, or base64 when it is not UTF-8.")
    encoding: Encoding


class Policy(Named):
    """A policy document, without its content."""

    model_config = ConfigDict(json_schema_extra={"examples": [POLICY_EXAMPLE]})

    namespace: str
    service: str = Field(description="The callee, or `*`: what holds for every service of the namespace.")
    sections: list[str] = Field(description="What it says by default.")
    routes: int = Field(description="Routes that say something else for some calls.")
    author: str
    created: int
    revision: int = Field(description="Store revision of its last write; its ETag.")


class PolicyContent(Policy):
    """A policy document with its content."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    document: dict[str, Any] = Field(description="Canonical JSON, as clients get it: every field written out.")
    text: str = Field(description="The same as YAML, without what is at its default.")
    source: str = Field(description="The YAML that its author wrote, comments and all; empty: it was written as JSON.")


class PolicyOutcome(Shown):
    """The outcome of a write."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"revision": 901, "policy": POLICY_EXAMPLE}]})

    revision: int = Field(
        description="Store revision of the document. One that is in force already, word for word, keeps its revision."
        " With `validate_only`, the revision of what is in force; 0: nothing."
    )
    policy: Policy | None = Field(description="What is in force now; null: nothing.")


class Follower(Shown):
    """A connected client that follows a document, and how far it has got with it."""

    node: str
    program: str
    namespace: str
    replica: str
    state: Literal["ACKNOWLEDGED", "BEHIND", "REFUSED"] = Field(
        description="REFUSED: it could not apply the document and keeps the last one that it could."
    )
    reason: str = Field(description="Why it refused.")


class Rollout(Shown):
    """Who follows a document, and has got it."""

    document: str = Field(description="NAMESPACE/SERVICE, or NAMESPACE/*.", examples=["shop/orders"])
    revision: int = Field(description="Store revision of the document; 0: there is none.")
    acknowledged: int
    behind: int
    refused: int
    clients: list[Follower] = Field(description="Worst first, the first thousand.")
    unreachable: list[str] = Field(description="Replicas that did not answer: their clients are missing here.")


class EffectiveSection(Shown):
    """One section: what holds for the call, and where that is said."""

    section: str
    off: bool = Field(description="Switched off for this call.")
    value: Any = Field(description="Every field of it; null: it is off.")
    brief: str = Field(description="The value in one line, without what is at its default.")
    document: str = Field(description="As `shop/orders`, `shop/*`, or `built-in`.")
    place: str = Field(description="As `routes[0]` or `default`.")
    revision: int = Field(description="Store revision of the document; 0 for what is built in.")


class EffectivePolicy(Named):
    """What holds for one kind of call to a service, section by section."""

    namespace: str
    service: str
    caller: str
    method: str
    path: str
    headers: dict[str, str]
    sections: list[EffectiveSection]
    rollouts: list[Rollout] = Field(description="Of the service's document and of the namespace's.")


class Withdrawn(Shown):
    """Something was removed."""

    revision: int = Field(description="Store revision of the removal.")


class Refusal(Shown):
    """A resource that a client could not apply, and why."""

    resource: str
    reason: str


class Load(Shown):
    """Load as the client sees itself; shares of 0 to 1, null: unknown."""

    cpu: float | None
    memory: float | None
    serving: int
    calling: int


class Client(Named):
    """A connected client process."""

    volatile: ClassVar[frozenset[str]] = frozenset({"heartbeat_age", "load"})

    node: str
    program: str
    namespace: str
    state: Literal["SYNCED", "STALE", "NACK"] = Field(
        description="SYNCED: it acknowledged all that it follows. STALE: it is behind. NACK: it refused something."
    )
    acknowledged: int = Field(description="Store revision that it acknowledged last; 0: none yet.")
    refusals: list[Refusal]
    subscriptions: int
    replica: str
    session: str = Field(description="Public id of its session; empty: it only reads.")
    sdk: str
    host: str
    pid: int
    zone: str
    peer: str
    connected_at: float = Field(description="Seconds since the epoch.")
    heartbeat_age: float = Field(description="Seconds since it was last heard.")
    load: Load


class ClientListing(Listing[Client]):
    """Connected clients of every replica that answered."""

    unreachable: list[str] = Field(description="Replicas that did not answer: their clients are missing here.")


class Breaker(Named):
    """A circuit breaker of one client, as it was reported last."""

    volatile: ClassVar[frozenset[str]] = frozenset({"since", "calls", "failure_ratio", "slow_ratio", "retry_after"})

    node: str
    caller: str = Field(description="Name of the calling program.")
    caller_namespace: str
    namespace: str
    service: str = Field(description="The callee.")
    endpoint: str = Field(description="The endpoint that the circuit is for; empty: a method or the whole service.")
    method: str = Field(description="The method that the circuit is for; empty: an endpoint or the whole service.")
    state: BreakerStateName = Field(description="FORCED_OPEN and DISABLED are what a policy's `force` says.")
    since: float = Field(description="When it got into this state, in seconds since the epoch, by the server's clock.")
    calls: int = Field(description="Calls in the window that is judged.")
    failure_ratio: float = Field(description="Share of them that failed, 0 to 1.")
    slow_ratio: float = Field(description="Share of them that were slow, 0 to 1.")
    retry_after: float | None = Field(description="OPEN: seconds until it lets calls try again.")
    replica: str


class BreakerListing(Listing[Breaker]):
    """Circuit breakers of the clients of every replica that answered, worst first."""

    omitted: int = Field(description="How many more there are than replicas tell: 10,000 each. Ask for fewer.")
    unreachable: list[str] = Field(description="Replicas that did not answer: what their clients say is missing here.")


class Traffic(Named):
    """Calls to one endpoint, as clients reported them last: of all that call it, or of one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "traffic/shop/orders/10.0.0.7-8000",
                    "namespace": "shop",
                    "service": "orders",
                    "endpoint": "10.0.0.7-8000",
                    "caller": "",
                    "caller_namespace": "",
                    "node": "",
                    "replica": "",
                    "callers": 12,
                    "calls_per_second": 340.5,
                    "failure_ratio": 0.02,
                    "latency_mean": 0.0123,
                    "in_flight": 4,
                    "ejecting": 1,
                    "ejected_by": ["checkout"],
                    "age": 3.2,
                }
            ]
        }
    )
    volatile: ClassVar[frozenset[str]] = frozenset({"age"})

    namespace: str
    service: str = Field(description="The callee.")
    endpoint: str
    caller: str = Field(description="Name of the calling program; empty without `by=caller`.")
    caller_namespace: str
    node: str = Field(description="The calling client; empty without `by=caller`.")
    replica: str = Field(description="Where that client is connected; empty without `by=caller`.")
    callers: int = Field(description="Clients that report it.")
    calls_per_second: float = Field(description="Calls that ended; each attempt is one.")
    failure_ratio: float = Field(description="Share of them that failed, 0 to 1.")
    latency_mean: float | None = Field(description="Mean seconds of those that ended; null: none did.")
    in_flight: int = Field(description="Calls that have not ended.")
    ejecting: int = Field(description="Clients whose outlier detection keeps calls away from it.")
    ejected_by: list[str] = Field(description="Names of their programs, at most five.")
    age: float = Field(description="Seconds since the oldest of the reports.")


class TrafficListing(Listing[Traffic]):
    """Calls to endpoints of the clients of every replica that answered, by callee and endpoint."""

    omitted: int = Field(
        description="How many more there are than replicas tell: the 10,000 worst each. Ask for fewer."
    )
    unreachable: list[str] = Field(description="Replicas that did not answer: what their clients say is missing here.")


class Probe(Shown):
    """A probe that holds."""

    status: Literal["ok"] = "ok"


class Wanted(BaseModel):
    """Base of every request body: unknown fields and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class WeightWanted(Wanted):
    """An operator's weight for an instance."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"weight": 50}]})

    weight: Weight


class ConfigWanted(Wanted):
    """A release to publish."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"format": "yaml", "content": "greeting: good day\n"}]})

    format: Format
    content: str
    encoding: Encoding = "utf-8"
