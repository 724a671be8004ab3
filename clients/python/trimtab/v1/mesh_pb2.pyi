from google.protobuf import duration_pb2 as _duration_pb2
from trimtab.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClientMessage(_message.Message):
    __slots__ = ("hello", "register", "update", "deregister", "heartbeat", "subscribe", "unsubscribe", "ack", "nack", "report", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    DEREGISTER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    UNSUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    NACK_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    register: Register
    update: Update
    deregister: Deregister
    heartbeat: Heartbeat
    subscribe: Subscribe
    unsubscribe: Unsubscribe
    ack: Ack
    nack: Nack
    report: Report
    goodbye: Goodbye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., register: _Optional[_Union[Register, _Mapping]] = ..., update: _Optional[_Union[Update, _Mapping]] = ..., deregister: _Optional[_Union[Deregister, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., subscribe: _Optional[_Union[Subscribe, _Mapping]] = ..., unsubscribe: _Optional[_Union[Unsubscribe, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., nack: _Optional[_Union[Nack, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("delta", "welcome", "session", "committed", "error", "go_away", "quota")
    DELTA_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    delta: Delta
    welcome: Welcome
    session: Session
    committed: Committed
    error: _types_pb2.Error
    go_away: GoAway
    quota: Quota
    def __init__(self, delta: _Optional[_Union[Delta, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., committed: _Optional[_Union[Committed, _Mapping]] = ..., error: _Optional[_Union[_types_pb2.Error, _Mapping]] = ..., go_away: _Optional[_Union[GoAway, _Mapping]] = ..., quota: _Optional[_Union[Quota, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("node", "resume", "subscriptions")
    NODE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.Node
    resume: str
    subscriptions: _containers.RepeatedCompositeFieldContainer[Subscription]
    def __init__(self, node: _Optional[_Union[_types_pb2.Node, _Mapping]] = ..., resume: _Optional[str] = ..., subscriptions: _Optional[_Iterable[_Union[Subscription, _Mapping]]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("replica", "server_version", "heartbeat_interval", "heartbeat_window", "grace", "max_subscriptions", "abilities")
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_WINDOW_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    MAX_SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    ABILITIES_FIELD_NUMBER: _ClassVar[int]
    replica: str
    server_version: str
    heartbeat_interval: _duration_pb2.Duration
    heartbeat_window: _duration_pb2.Duration
    grace: _duration_pb2.Duration
    max_subscriptions: int
    abilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, replica: _Optional[str] = ..., server_version: _Optional[str] = ..., heartbeat_interval: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., heartbeat_window: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., grace: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_subscriptions: _Optional[int] = ..., abilities: _Optional[_Iterable[str]] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("state", "handle", "id")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Session.State]
        STATE_ATTACHED: _ClassVar[Session.State]
        STATE_LOST: _ClassVar[Session.State]
        STATE_PENDING: _ClassVar[Session.State]
    STATE_UNSPECIFIED: Session.State
    STATE_ATTACHED: Session.State
    STATE_LOST: Session.State
    STATE_PENDING: Session.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    state: Session.State
    handle: str
    id: str
    def __init__(self, state: _Optional[_Union[Session.State, str]] = ..., handle: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("request_id", "instance")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    instance: _types_pb2.Instance
    def __init__(self, request_id: _Optional[int] = ..., instance: _Optional[_Union[_types_pb2.Instance, _Mapping]] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("request_id", "instance")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    instance: _types_pb2.Instance
    def __init__(self, request_id: _Optional[int] = ..., instance: _Optional[_Union[_types_pb2.Instance, _Mapping]] = ...) -> None: ...

class Deregister(_message.Message):
    __slots__ = ("request_id", "namespace", "service", "id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    namespace: str
    service: str
    id: str
    def __init__(self, request_id: _Optional[int] = ..., namespace: _Optional[str] = ..., service: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class Committed(_message.Message):
    __slots__ = ("request_id", "instance_id", "revision")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    instance_id: str
    revision: int
    def __init__(self, request_id: _Optional[int] = ..., instance_id: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("load",)
    LOAD_FIELD_NUMBER: _ClassVar[int]
    load: _types_pb2.Load
    def __init__(self, load: _Optional[_Union[_types_pb2.Load, _Mapping]] = ...) -> None: ...

class Subscription(_message.Message):
    __slots__ = ("kind", "name", "version", "digest")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    kind: _types_pb2.Kind
    name: str
    version: int
    digest: int
    def __init__(self, kind: _Optional[_Union[_types_pb2.Kind, str]] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[int] = ...) -> None: ...

class Subscribe(_message.Message):
    __slots__ = ("subscriptions",)
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    subscriptions: _containers.RepeatedCompositeFieldContainer[Subscription]
    def __init__(self, subscriptions: _Optional[_Iterable[_Union[Subscription, _Mapping]]] = ...) -> None: ...

class Unsubscribe(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedCompositeFieldContainer[ResourceName]
    def __init__(self, names: _Optional[_Iterable[_Union[ResourceName, _Mapping]]] = ...) -> None: ...

class ResourceName(_message.Message):
    __slots__ = ("kind", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: _types_pb2.Kind
    name: str
    def __init__(self, kind: _Optional[_Union[_types_pb2.Kind, str]] = ..., name: _Optional[str] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("nonce", "version", "resources")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    version: int
    resources: _containers.RepeatedCompositeFieldContainer[_types_pb2.Resource]
    def __init__(self, nonce: _Optional[int] = ..., version: _Optional[int] = ..., resources: _Optional[_Iterable[_Union[_types_pb2.Resource, _Mapping]]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("nonce",)
    NONCE_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    def __init__(self, nonce: _Optional[int] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("nonce", "refusals")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    nonce: int
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    def __init__(self, nonce: _Optional[int] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("kind", "name", "reason", "resend")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESEND_FIELD_NUMBER: _ClassVar[int]
    kind: _types_pb2.Kind
    name: str
    reason: str
    resend: bool
    def __init__(self, kind: _Optional[_Union[_types_pb2.Kind, str]] = ..., name: _Optional[str] = ..., reason: _Optional[str] = ..., resend: bool = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("endpoints", "breakers", "interval")
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    BREAKERS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    endpoints: _containers.RepeatedCompositeFieldContainer[EndpointReport]
    breakers: _containers.RepeatedCompositeFieldContainer[BreakerReport]
    interval: _duration_pb2.Duration
    def __init__(self, endpoints: _Optional[_Iterable[_Union[EndpointReport, _Mapping]]] = ..., breakers: _Optional[_Iterable[_Union[BreakerReport, _Mapping]]] = ..., interval: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class EndpointReport(_message.Message):
    __slots__ = ("service", "endpoint", "calls", "failures", "in_flight", "latency_mean", "ejected")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MEAN_FIELD_NUMBER: _ClassVar[int]
    EJECTED_FIELD_NUMBER: _ClassVar[int]
    service: str
    endpoint: str
    calls: int
    failures: int
    in_flight: int
    latency_mean: _duration_pb2.Duration
    ejected: bool
    def __init__(self, service: _Optional[str] = ..., endpoint: _Optional[str] = ..., calls: _Optional[int] = ..., failures: _Optional[int] = ..., in_flight: _Optional[int] = ..., latency_mean: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., ejected: bool = ...) -> None: ...

class BreakerReport(_message.Message):
    __slots__ = ("service", "endpoint", "method", "state", "age", "calls", "failure_ratio", "slow_ratio", "retry_after")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[BreakerReport.State]
        STATE_CLOSED: _ClassVar[BreakerReport.State]
        STATE_OPEN: _ClassVar[BreakerReport.State]
        STATE_HALF_OPEN: _ClassVar[BreakerReport.State]
        STATE_FORCED_OPEN: _ClassVar[BreakerReport.State]
        STATE_DISABLED: _ClassVar[BreakerReport.State]
    STATE_UNSPECIFIED: BreakerReport.State
    STATE_CLOSED: BreakerReport.State
    STATE_OPEN: BreakerReport.State
    STATE_HALF_OPEN: BreakerReport.State
    STATE_FORCED_OPEN: BreakerReport.State
    STATE_DISABLED: BreakerReport.State
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_RATIO_FIELD_NUMBER: _ClassVar[int]
    SLOW_RATIO_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    service: str
    endpoint: str
    method: str
    state: BreakerReport.State
    age: _duration_pb2.Duration
    calls: int
    failure_ratio: float
    slow_ratio: float
    retry_after: _duration_pb2.Duration
    def __init__(self, service: _Optional[str] = ..., endpoint: _Optional[str] = ..., method: _Optional[str] = ..., state: _Optional[_Union[BreakerReport.State, str]] = ..., age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., calls: _Optional[int] = ..., failure_ratio: _Optional[float] = ..., slow_ratio: _Optional[float] = ..., retry_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("reason", "spread", "deadline")
    REASON_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    spread: _duration_pb2.Duration
    deadline: _duration_pb2.Duration
    def __init__(self, reason: _Optional[str] = ..., spread: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., deadline: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Quota(_message.Message):
    __slots__ = ("name", "rate", "valid_for")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    VALID_FOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    rate: float
    valid_for: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., rate: _Optional[float] = ..., valid_for: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...
