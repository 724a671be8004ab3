"""What is known of a service: immutable, copied on write, so that a reader never sees half a change."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from trimtab.v1.types_pb2 import Kind, Resource


class Health(IntEnum):
    """True health of an endpoint; the numbers are the wire's."""

    UNKNOWN = 0
    HEALTHY = 1
    DRAINING = 2
    UNHEALTHY = 3
    SUSPECT = 4


# Compared with for each endpoint of each change: an enumeration's member costs a look-up each time.
HEALTHY, DRAINING, SUSPECT = int(Health.HEALTHY), int(Health.DRAINING), int(Health.SUSPECT)


_SOON = 0.01  # parts of τ


class Tally:
    """This process's calls to one endpoint, kept under its service's lock. It survives state changes, as the calls do.

    ``calls``, ``failures`` and ``seconds`` (of latency, of all calls together) count since the last report. ``cost`` is the peak
    EWMA of latencies in seconds as it was at ``cost_at``; 0: not known yet. ``taken_calls`` and ``taken_failures``: what was
    reported before.
    """

    __slots__ = ("calls", "cost", "cost_at", "failures", "in_flight", "seconds", "taken_calls", "taken_failures")

    def __init__(self) -> None:
        self.in_flight = self.calls = self.failures = self.taken_calls = self.taken_failures = 0
        self.seconds = self.cost = self.cost_at = 0.0

    def observe(self, now: float, seconds: float, decay: float, penalty: float = 0.0) -> None:
        """A call took ``seconds``. Costs take a peak over at once, anything lower little by little; ``decay`` is τ in seconds.

        A failure costs ``penalty`` seconds, unless it took longer. Source: PeakEwma of twitter/finagle
        (``cost·e^(−Δt/τ) + rtt·(1 − e^(−Δt/τ))``).
        """
        self.calls += 1
        self.seconds += seconds
        if seconds < penalty:
            seconds = penalty
        cost = self.cost
        if seconds >= cost:
            self.cost = seconds
        else:
            age = (now - self.cost_at) / decay
            if age <= 0.0:
                return
            # So soon after the last one e^-age is 1 - age, but for less than a ten-thousandth.
            self.cost = cost + (seconds - cost) * age if age < _SOON else seconds + (cost - seconds) * math.exp(-age)
        self.cost_at = now

    def take(self) -> tuple[int, int, float]:
        """Return calls, failures and seconds of latency since the last take."""
        taken = self.calls, self.failures, self.seconds
        self.taken_calls += self.calls
        self.taken_failures += self.failures
        self.calls = self.failures = 0
        self.seconds = 0.0
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

    @property
    def target(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class News(NamedTuple):
    """A change of one service as the server tells it: everything (``full``), or what differs from version ``base``."""

    version: int
    digest: int
    exists: bool
    full: bool
    base: int
    changed: Sequence[Endpoint]
    removed: Sequence[str]
    total: int
    protected: bool


_ID = operator.itemgetter(0)
_NOTHING: Mapping[str, str] = MappingProxyType({})


def decode(resource: Resource) -> News:
    """Return what a resource says, in values of our own that keep no message alive."""
    told = resource.endpoints
    changed = [
        Endpoint(e.id, e.address, e.port, e.weight, e.health, e.zone, dict(e.metadata) if e.metadata else _NOTHING)
        for e in told.changed
    ]
    return News(
        version=resource.version,
        digest=resource.digest,
        exists=resource.HasField("endpoints"),
        full=told.full,
        base=told.base,
        changed=changed,
        removed=list(told.removed),
        total=told.total,
        protected=told.protected,
    )


class Mismatch(Exception):
    """A difference that does not fit what is held. The whole must be asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class ServiceState:
    """One service as the mesh last described it. Mappings are by endpoint id and must not be changed.

    ``version`` 0: the server has never heard of it. ``stale``: read from disk, not yet confirmed by a server.
    ``protected``: the mass-failure guard holds it. ``healthy`` and ``suspect`` hold only endpoints that have a weight.
    ``tallies``, of the endpoints that were called, is the one thing that all states of a service share.
    """

    name: str
    version: int = 0
    digest: int = 0
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    healthy: Mapping[str, Endpoint] = field(default_factory=dict)
    suspect: Mapping[str, Endpoint] = field(default_factory=dict)
    protected: bool = False
    stale: bool = False
    tallies: dict[str, Tally] = field(default_factory=dict)

    def apply(self, news: News) -> ServiceState:
        """Return the state after ``news``. Raises Mismatch when a difference does not fit, or the count is another."""
        if not news.exists:
            self.tallies.clear()
            return ServiceState(self.name, news.version, news.digest, tallies=self.tallies)
        if not news.full and news.base != self.version:
            raise Mismatch(f"the difference starts from version {news.base}, held is {self.version}")
        endpoints = {} if news.full else dict(self.endpoints)
        for id_ in news.removed:
            endpoints.pop(id_, None)
        endpoints.update(zip(map(_ID, news.changed), news.changed, strict=True))
        if len(endpoints) != news.total:
            raise Mismatch(f"{len(endpoints)} endpoints after the change, the server counts {news.total}")
        healthy, suspect = self._sorted(news, endpoints)
        # A call that picked before this is in force may add one again; such are found when there are more than can be.
        whole = news.full or len(self.tallies) > len(endpoints) + len(news.removed)
        for id_ in self.tallies.keys() - endpoints.keys() if whole else news.removed:
            self.tallies.pop(id_, None)
        return ServiceState(
            self.name,
            news.version,
            news.digest,
            endpoints,
            healthy,
            suspect,
            protected=news.protected,
            tallies=self.tallies,
        )

    def _sorted(
        self, news: News, endpoints: Mapping[str, Endpoint]
    ) -> tuple[Mapping[str, Endpoint], Mapping[str, Endpoint]]:
        """Return the healthy and the suspect of ``endpoints``, at the price of what changed."""
        unfit = [e for e in news.changed if e.health != HEALTHY or not e.weight]
        if not unfit and (news.full or self.healthy is self.endpoints):
            # Everybody is healthy, as usual: one mapping serves as both and is copied once.
            return endpoints, {}
        healthy = {} if news.full else dict(self.healthy)
        suspect = {} if news.full else dict(self.suspect)
        healthy.update(zip(map(_ID, news.changed), news.changed, strict=True))
        for id_ in (*news.removed, *map(_ID, unfit)):
            healthy.pop(id_, None)
        if suspect:
            for id_ in (*news.removed, *map(_ID, news.changed)):
                suspect.pop(id_, None)
        suspect.update((e.id, e) for e in unfit if e.health == SUSPECT and e.weight)
        return healthy, suspect

    def to_resource(self) -> Resource:
        """Return the whole state as the wire has it."""
        resource = Resource(kind=Kind.KIND_ENDPOINTS, name=self.name, version=self.version, digest=self.digest)
        if self.version:
            resource.endpoints.full, resource.endpoints.total = True, len(self.endpoints)
            resource.endpoints.protected = self.protected
            for endpoint in self.endpoints.values():
                resource.endpoints.changed.add(**endpoint._asdict())
        return resource

    def unconfirmed(self) -> ServiceState:
        """Return the same as known from elsewhere: stale, and without calls of this process."""
        return replace(self, stale=True, tallies={})

    def candidates(self) -> Mapping[str, Endpoint]:
        """Return whom a call may be sent to: the HEALTHY; under protection, when they are fewer than half, also SUSPECT.

        Half of those that could serve: an endpoint that somebody drains is no sign of a failure.
        """
        if self.protected and self.suspect:
            draining = sum(e.health == DRAINING for e in self.endpoints.values())
            if 2 * len(self.healthy) < len(self.endpoints) - draining:
                return {**self.healthy, **self.suspect}
        return self.healthy

    def eligible(self) -> list[Endpoint]:
        """Return the candidates one after the other."""
        return list(self.candidates().values())
