"""What happens beside calls: rare, told to whoever listens, and never in the way of a call."""

from __future__ import annotations

from typing import NamedTuple

from trimtab.core.endpoints import ServiceState
from trimtab.v1.mesh_pb2 import Refusal
from trimtab.v1.types_pb2 import Kind, Resource


class CircuitChanged(NamedTuple):
    """A circuit went from one state to another: "closed", "open", "half-open", "forced-open", "disabled".

    ``scope``: "service", "endpoint" or "method"; ``name``: the id of the endpoint or the method, empty for the service.
    """

    service: str
    scope: str
    name: str
    before: str
    after: str


class EndpointEjected(NamedTuple):
    """Outlier detection keeps an endpoint out from now on."""

    service: str
    endpoint: str


class EndpointReturned(NamedTuple):
    """An endpoint that was kept out may be called again."""

    service: str
    endpoint: str


class EndpointsChanged(NamedTuple):
    """The mesh told of a service: endpoints came or went, or their health, weight or metadata are others."""

    state: ServiceState


class PolicyApplied(NamedTuple):
    """A policy is in force from now on, or was withdrawn.

    ``name``: ``NAMESPACE/SERVICE``, or ``NAMESPACE/*`` for all of a namespace.
    """

    name: str
    revision: int


class PolicyRefused(NamedTuple):
    """A policy cannot be applied here; the one before it stays in force."""

    name: str
    revision: int
    reason: str


Event = CircuitChanged | EndpointEjected | EndpointReturned | EndpointsChanged | PolicyApplied | PolicyRefused


def event_of(resource: Resource, refusal: Refusal | None, state: ServiceState | None) -> Event | None:
    """What it means that a resource was taken, or refused; ``state``: of its service, as it is now. None: nothing."""
    if resource.kind == Kind.KIND_POLICY:
        if refusal is not None:
            return PolicyRefused(resource.name, resource.version, refusal.reason)
        return PolicyApplied(resource.name, resource.version)
    if resource.kind == Kind.KIND_ENDPOINTS and refusal is None and state is not None:
        return EndpointsChanged(state)
    return None
