from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from trimtab.v1 import mesh_pb2 as _mesh_pb2
from trimtab.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListClientsRequest(_message.Message):
    __slots__ = ("local", "following")
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    FOLLOWING_FIELD_NUMBER: _ClassVar[int]
    local: bool
    following: _containers.RepeatedCompositeFieldContainer[_mesh_pb2.ResourceName]
    def __init__(self, local: bool = ..., following: _Optional[_Iterable[_Union[_mesh_pb2.ResourceName, _Mapping]]] = ...) -> None: ...

class ListClientsResponse(_message.Message):
    __slots__ = ("clients", "silent_replicas")
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    SILENT_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    clients: _containers.RepeatedCompositeFieldContainer[Client]
    silent_replicas: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, clients: _Optional[_Iterable[_Union[Client, _Mapping]]] = ..., silent_replicas: _Optional[_Iterable[str]] = ...) -> None: ...

class Client(_message.Message):
    __slots__ = ("node", "peer", "replica", "session", "connected_at", "last_heartbeat_age", "subscriptions", "acked", "behind", "nacks", "load", "followed")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_HEARTBEAT_AGE_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    NACKS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    FOLLOWED_FIELD_NUMBER: _ClassVar[int]
    node: _types_pb2.Node
    peer: str
    replica: str
    session: str
    connected_at: _timestamp_pb2.Timestamp
    last_heartbeat_age: _duration_pb2.Duration
    subscriptions: int
    acked: int
    behind: bool
    nacks: _containers.RepeatedCompositeFieldContainer[Refused]
    load: _types_pb2.Load
    followed: _containers.RepeatedCompositeFieldContainer[Followed]
    def __init__(self, node: _Optional[_Union[_types_pb2.Node, _Mapping]] = ..., peer: _Optional[str] = ..., replica: _Optional[str] = ..., session: _Optional[str] = ..., connected_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., last_heartbeat_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., subscriptions: _Optional[int] = ..., acked: _Optional[int] = ..., behind: bool = ..., nacks: _Optional[_Iterable[_Union[Refused, _Mapping]]] = ..., load: _Optional[_Union[_types_pb2.Load, _Mapping]] = ..., followed: _Optional[_Iterable[_Union[Followed, _Mapping]]] = ...) -> None: ...

class Followed(_message.Message):
    __slots__ = ("resource", "behind")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    resource: _mesh_pb2.ResourceName
    behind: bool
    def __init__(self, resource: _Optional[_Union[_mesh_pb2.ResourceName, _Mapping]] = ..., behind: bool = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("resource", "reason")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    resource: str
    reason: str
    def __init__(self, resource: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListBreakersRequest(_message.Message):
    __slots__ = ("local", "caller", "namespace", "service")
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    local: bool
    caller: str
    namespace: str
    service: str
    def __init__(self, local: bool = ..., caller: _Optional[str] = ..., namespace: _Optional[str] = ..., service: _Optional[str] = ...) -> None: ...

class ListBreakersResponse(_message.Message):
    __slots__ = ("breakers", "omitted", "silent_replicas")
    BREAKERS_FIELD_NUMBER: _ClassVar[int]
    OMITTED_FIELD_NUMBER: _ClassVar[int]
    SILENT_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    breakers: _containers.RepeatedCompositeFieldContainer[Breaker]
    omitted: int
    silent_replicas: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, breakers: _Optional[_Iterable[_Union[Breaker, _Mapping]]] = ..., omitted: _Optional[int] = ..., silent_replicas: _Optional[_Iterable[str]] = ...) -> None: ...

class Breaker(_message.Message):
    __slots__ = ("node", "caller", "caller_namespace", "replica", "report")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    CALLER_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    node: str
    caller: str
    caller_namespace: str
    replica: str
    report: _mesh_pb2.BreakerReport
    def __init__(self, node: _Optional[str] = ..., caller: _Optional[str] = ..., caller_namespace: _Optional[str] = ..., replica: _Optional[str] = ..., report: _Optional[_Union[_mesh_pb2.BreakerReport, _Mapping]] = ...) -> None: ...

class ListTrafficRequest(_message.Message):
    __slots__ = ("local", "caller", "namespace", "service", "by_caller")
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    BY_CALLER_FIELD_NUMBER: _ClassVar[int]
    local: bool
    caller: str
    namespace: str
    service: str
    by_caller: bool
    def __init__(self, local: bool = ..., caller: _Optional[str] = ..., namespace: _Optional[str] = ..., service: _Optional[str] = ..., by_caller: bool = ...) -> None: ...

class ListTrafficResponse(_message.Message):
    __slots__ = ("traffic", "omitted", "silent_replicas")
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    OMITTED_FIELD_NUMBER: _ClassVar[int]
    SILENT_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    traffic: _containers.RepeatedCompositeFieldContainer[Traffic]
    omitted: int
    silent_replicas: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, traffic: _Optional[_Iterable[_Union[Traffic, _Mapping]]] = ..., omitted: _Optional[int] = ..., silent_replicas: _Optional[_Iterable[str]] = ...) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("node", "caller", "caller_namespace", "replica", "service", "endpoint", "callers", "calls_per_second", "failures_per_second", "in_flight", "latency_mean", "ejecting", "ejected_by", "age")
    NODE_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    CALLER_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    CALLERS_FIELD_NUMBER: _ClassVar[int]
    CALLS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    FAILURES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MEAN_FIELD_NUMBER: _ClassVar[int]
    EJECTING_FIELD_NUMBER: _ClassVar[int]
    EJECTED_BY_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    node: str
    caller: str
    caller_namespace: str
    replica: str
    service: str
    endpoint: str
    callers: int
    calls_per_second: float
    failures_per_second: float
    in_flight: int
    latency_mean: _duration_pb2.Duration
    ejecting: int
    ejected_by: _containers.RepeatedScalarFieldContainer[str]
    age: _duration_pb2.Duration
    def __init__(self, node: _Optional[str] = ..., caller: _Optional[str] = ..., caller_namespace: _Optional[str] = ..., replica: _Optional[str] = ..., service: _Optional[str] = ..., endpoint: _Optional[str] = ..., callers: _Optional[int] = ..., calls_per_second: _Optional[float] = ..., failures_per_second: _Optional[float] = ..., in_flight: _Optional[int] = ..., latency_mean: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., ejecting: _Optional[int] = ..., ejected_by: _Optional[_Iterable[str]] = ..., age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...
