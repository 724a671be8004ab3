"""What happens beside calls: rare, told to whoever listens, and never in the way of a call."""

from __future__ import annotations

from typing import NamedTuple

from trimtab.core.endpoints import ServiceState


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
    """A policy is in force from now on. ``name``: ``NAMESPACE/SERVICE``, or ``NAMESPACE/*`` for all of a namespace."""

    name: str
    revision: int


class PolicyRefused(NamedTuple):
    """A policy cannot be applied here; the one before it stays in force."""

    name: str
    revision: int
    reason: str


Event = CircuitChanged | EndpointEjected | EndpointReturned | EndpointsChanged | PolicyApplied | PolicyRefused
