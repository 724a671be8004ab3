"""Short ways to say the nouns of the core in tests."""

from __future__ import annotations

from controlplane.core.model import (
    ConfigFile,
    Desired,
    Event,
    Instance,
    InstanceState,
    Kind,
    Protection,
    Record,
    Ref,
    ServiceName,
    Stored,
)
from controlplane.core.resource import ResourceKind, ResourceName

ORDERS = ServiceName("default", "orders")
ORDERS_ENDPOINTS = ResourceName(ResourceKind.ENDPOINTS, "default/orders")
APP_CONFIG = ResourceName(ResourceKind.CONFIG, "default/orders/app.yaml")


def instance(
    id: str = "a",
    *,
    service: str = "orders",
    address: str = "10.0.0.1",
    port: int = 8000,
    weight: int = 100,
    state: InstanceState = InstanceState.SERVING,
) -> Instance:
    return Instance("default", service, id, address, port, weight=weight, state=state)


def stored(record: Record, ref: Ref, *, revision: int = 5, lease: int = 0) -> Stored:
    return Stored(ref, record, created=revision, revision=revision, lease=lease)


def held(record: Instance, *, revision: int = 5, lease: int = 7) -> Stored:
    return stored(record, record.ref, revision=revision, lease=lease)


def put(record: Record, ref: Ref, revision: int, lease: int = 0) -> Event:
    return Event(ref, stored(record, ref, revision=revision, lease=lease), revision)


def registered(record: Instance, revision: int, lease: int = 7) -> Event:
    return put(record, record.ref, revision, lease)


def gone(ref: Ref, revision: int) -> Event:
    return Event(ref, None, revision)


def desired_ref(id: str = "a", service: str = "orders") -> Ref:
    return Ref(Kind.DESIRED, ("default", service, id))


def protection_ref(replica: str = "one", service: str = "orders") -> Ref:
    return Ref(Kind.PROTECTION, ("default", service, replica))


def config_ref(file: str = "app.yaml") -> Ref:
    return Ref(Kind.CONFIG, ("default", "orders", file))


def session_ref(lease: int = 7) -> Ref:
    return Ref(Kind.SESSION, (f"{lease:x}", "proof"))


def drained(id: str, revision: int) -> Event:
    return put(Desired(drain=True, by="me"), desired_ref(id), revision)


def suspected(*ids: str, revision: int, replica: str = "one") -> Event:
    return put(Protection(replica, ids, "many broke"), protection_ref(replica), revision)


def released(content: bytes, revision: int) -> Event:
    return put(ConfigFile("text", content), config_ref(), revision)
