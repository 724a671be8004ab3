"""What a server says, and a machine to say it to: the words in which the protocol's tests are told."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.duration_pb2 import Duration
from trimtab.core.session import (
    Session,
    Step,
)
from trimtab.v1.mesh_pb2 import (
    Committed,
    ServerMessage,
    Welcome,
)
from trimtab.v1.mesh_pb2 import Session as Told
from trimtab.v1.types_pb2 import (
    KIND_CONFIG,
    KIND_ENDPOINTS,
    Error,
    Instance,
    Node,
)

ORDERS = (int(KIND_ENDPOINTS), "default/orders")
CONFIG = (int(KIND_CONFIG), "default/orders/app")


def machine(**options: Any) -> Session:
    return Session(Node(id="n"), random.Random(1), **options)


def welcome(limit: int = 100) -> ServerMessage:
    return ServerMessage(
        welcome=Welcome(
            replica="r", heartbeat_interval=Duration(seconds=2), grace=Duration(seconds=9), max_subscriptions=limit
        )
    )


def session(state: Told.State, handle: str = "") -> ServerMessage:
    return ServerMessage(session=Told(state=state, handle=handle, id=handle[:3]))


def committed(request: int, id_: str = "a") -> ServerMessage:
    return ServerMessage(committed=Committed(request_id=request, instance_id=id_, revision=50))


def error(request: int, code: str, retryable: bool = False) -> ServerMessage:
    return ServerMessage(error=Error(request_id=request, code=code, message="no", retryable=retryable))


def instance(port: int = 8000) -> Instance:
    return Instance(namespace="default", service="orders", address="10.0.0.1", port=port)


def kinds(step: Step) -> list[str | None]:
    return [m.WhichOneof("message") for m in step.send]


def events(step: Step) -> list[type]:
    return [type(e) for e in step.events]


def opened(machine: Session, now: float = 0.0, limit: int = 100) -> Session:
    machine.hello()
    machine.received(welcome(limit), now)
    return machine


def registered(machine: Session, now: float = 0.0) -> int:
    """Register one instance, answered by the server. Returns its key."""
    key, step = machine.register(instance(), now)
    machine.received(session(Told.STATE_ATTACHED, "handle"), now)
    machine.received(committed(step.send[0].register.request_id), now)
    return key
