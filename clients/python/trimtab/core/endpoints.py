"""What is known of a service: immutable, copied on write, so that a reader never sees half a change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple

from trimtab.v1.types_pb2 import Kind, Resource


class Health(IntEnum):
    """True health of an endpoint; the numbers are the wire's."""

    UNKNOWN = 0
    HEALTHY = 1
    DRAINING = 2
    UNHEALTHY = 3
    SUSPECT = 4


class Tally:
    """This process's calls to one endpoint. It survives state changes, as the calls do.

    Not locked: on a build with the GIL nothing can interrupt between the read and the write of a counter (CPython 3.11
    and later switch threads only at calls and backward jumps). A free-threaded build passes a locked one.
    """

    __slots__ = ("calls", "failures", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self.calls = 0
        self.failures = 0

    def start(self) -> None:
        """Count a call that begins."""
        self.in_flight += 1

    def finish(self, ok: bool) -> None:
        """Count a call that ended."""
        self.in_flight -= 1
        self.calls += 1
        if not ok:
            self.failures += 1

    def take(self) -> tuple[int, int]:
        """Return calls and failures since the last take."""
        taken = self.calls, self.failures
        self.calls = self.failures = 0
        return taken


class Endpoint(NamedTuple):
    """What a call is sent to. ``health`` is a ``Health``'s number; ``weight`` 0 means no traffic."""

    id: str
    address: str
    port: int
    weight: int
    health: int
    zone: str
    metadata: Mapping[str, str]
    tally: Tally

    @property
    def target(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


_NOTHING: Mapping[str, str] = {}


class Mismatch(Exception):
    """A difference that does not fit what is held. The whole must be asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class ServiceState:
    """One service as the mesh last described it. Mappings are by endpoint id and must not be changed.

    ``version`` 0: the server has never heard of it. ``stale``: read from disk, not yet confirmed by a server.
    ``protected``: the mass-failure guard holds it. ``healthy`` and ``suspect`` hold only endpoints that have a weight.
    """

    name: str
    version: int = 0
    digest: int = 0
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    healthy: Mapping[str, Endpoint] = field(default_factory=dict)
    suspect: Mapping[str, Endpoint] = field(default_factory=dict)
    protected: bool = False
    stale: bool = False

    def apply(self, resource: Resource, new_tally: Callable[[], Tally] = Tally) -> ServiceState:
        """Return the state after ``resource``: whole or difference. Raises Mismatch when the difference does not fit."""
        if not resource.HasField("endpoints"):
            return ServiceState(self.name, resource.version, resource.digest)
        news = resource.endpoints
        if not news.full and news.base != self.version:
            raise Mismatch(f"the difference starts from version {news.base}, held is {self.version}")
        held = self.endpoints
        endpoints = {} if news.full else dict(held)
        healthy = {} if news.full else dict(self.healthy)
        suspect = {} if news.full else dict(self.suspect)
        for id_ in news.removed:
            endpoints.pop(id_, None)
            healthy.pop(id_, None)
            suspect.pop(id_, None)
        for told in news.changed:
            id_, address, port, weight, health = told.id, told.address, told.port, told.weight, int(told.health)
            old = held.get(id_)
            tally = old.tally if old is not None and old.port == port and old.address == address else new_tally()
            metadata = dict(told.metadata) or _NOTHING
            endpoint = Endpoint(id_, address, port, weight, health, told.zone, metadata, tally)
            endpoints[id_] = endpoint
            if health == Health.HEALTHY and weight:
                healthy[id_] = endpoint
            else:
                healthy.pop(id_, None)
            if health == Health.SUSPECT and weight:
                suspect[id_] = endpoint
            elif suspect:
                suspect.pop(id_, None)
        if len(endpoints) != news.total:
            raise Mismatch(f"{len(endpoints)} endpoints after the change, the server counts {news.total}")
        return ServiceState(
            self.name, resource.version, resource.digest, endpoints, healthy, suspect, bool(news.protected)
        )

    def to_resource(self) -> Resource:
        """Return the whole state as the wire has it."""
        resource = Resource(kind=Kind.KIND_ENDPOINTS, name=self.name, version=self.version, digest=self.digest)
        if self.version:
            resource.endpoints.full, resource.endpoints.total = True, len(self.endpoints)
            resource.endpoints.protected = self.protected
            for endpoint in self.endpoints.values():
                fields = endpoint._asdict()
                del fields["tally"]
                resource.endpoints.changed.add(**fields)
        return resource

    def as_stale(self) -> ServiceState:
        """Return the same, marked as not confirmed by a server."""
        return replace(self, stale=True)

    def eligible(self) -> tuple[Endpoint, ...]:
        """Return whom a call may be sent to: the HEALTHY; under protection, when they are fewer than half, also SUSPECT.

        Half of those that could serve: an endpoint that somebody drains is no sign of a failure.
        """
        if self.protected and self.suspect:
            draining = sum(e.health == Health.DRAINING for e in self.endpoints.values())
            if 2 * len(self.healthy) < len(self.endpoints) - draining:
                return (*self.healthy.values(), *self.suspect.values())
        return tuple(self.healthy.values())
