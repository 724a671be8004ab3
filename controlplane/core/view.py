"""A replica's live picture of the mesh, evolved by the store's watch alone.

``apply`` takes what happened and returns the names of the resources that changed for a subscriber. A write that
alters no endpoint (a re-registration with the same content, a heartbeat's bookkeeping) changes none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from controlplane.core.health import endpoint as merged
from controlplane.core.model import (
    ConfigFile,
    Desired,
    Endpoint,
    Event,
    Instance,
    Kind,
    PolicyDocument,
    Protection,
    Ref,
    Replica,
    ServiceName,
    Stored,
)
from controlplane.core.resource import Document, EndpointSet, ResourceKind, ResourceName, document_digest


@dataclass(frozen=True, slots=True)
class Listed:
    """An instance as an operator sees it: what it reports, what is wanted of it, and what clients are told."""

    stored: Stored
    desired: Stored | None
    endpoint: Endpoint

    @property
    def instance(self) -> Instance:
        """What the instance reports."""
        assert isinstance(self.stored.record, Instance)
        return self.stored.record


class View:
    """Everything watched, indexed for look-ups and as versioned resources."""

    def __init__(self) -> None:
        self.revision = 0
        self.edition = 0  # grows with whatever may change a resource, also with what a listing mends at one revision
        self._records: dict[Ref, Stored] = {}
        self._services: dict[ServiceName, EndpointSet] = {}
        self._resources: dict[ResourceName, EndpointSet | Document] = {}
        self._leases: dict[int, set[Ref]] = {}
        self._protections: dict[ServiceName, dict[Ref, Protection]] = {}
        self._floor = 0

    # -- evolving ---------------------------------------------------------------------------------------------------

    def apply(self, revision: int, events: Iterable[Event]) -> set[ResourceName]:
        """Evolve to ``revision``; the names of the resources that changed."""
        self.edition += 1
        changed: set[ResourceName] = set()
        for event in events:
            self._apply(event.ref, event.stored, event.revision, changed)
        self.revision = max(self.revision, revision)
        return changed

    def load(self, revision: int, records: Iterable[Stored]) -> set[ResourceName]:
        """Become exactly what a listing at ``revision`` says; what differs from before counts as changed.

        Differences count as made at ``revision``: when they really happened may be before what subscribers were told.
        A revision below the view's own means that the store itself went back (emptied, restored): all history is void.
        """
        self.edition += 1
        if revision < self.revision:
            gone = set(self._resources)
            self._forget()
            return gone | self.load(revision, records)
        for endpoints in self._services.values():
            endpoints.overlooked(self.revision, revision)
        self._floor = revision
        changed: set[ResourceName] = set()
        listed = {stored.ref: stored for stored in records}
        for ref in [ref for ref in self._records if ref not in listed]:
            self._apply(ref, None, revision, changed)
        for ref, stored in listed.items():
            if self._records.get(ref) != stored:
                self._apply(ref, stored, revision, changed)
        self.revision = max(self.revision, revision)
        return changed

    def _forget(self) -> None:
        self.revision = self._floor = 0
        for held in (self._records, self._services, self._resources, self._leases, self._protections):
            held.clear()

    def _apply(self, ref: Ref, stored: Stored | None, revision: int, changed: set[ResourceName]) -> None:
        before = self._records.get(ref)
        if stored is None:
            self._records.pop(ref, None)
        else:
            self._records[ref] = stored
        match ref.kind:
            case Kind.INSTANCE:
                self._index_lease(ref, before, stored)
                self._refresh(ref.path, revision, changed)
            case Kind.DESIRED:
                self._refresh(ref.path, revision, changed)
            case Kind.PROTECTION:
                self._protect(ref, stored, revision, changed)
            case Kind.CONFIG:
                self._document(ResourceName(ResourceKind.CONFIG, "/".join(ref.path)), stored, changed)
            case Kind.POLICY:
                self._document(ResourceName(ResourceKind.POLICY, "/".join(ref.path)), stored, changed)
            case Kind.REPLICA | Kind.SESSION:
                return

    def _refresh(self, path: tuple[str, ...], revision: int, changed: set[ResourceName]) -> None:
        """Recompute one endpoint from its records."""
        namespace, service, id = path
        name = ServiceName(namespace, service)
        stored = self._records.get(Ref(Kind.INSTANCE, path))
        endpoints = self._services.get(name)
        if endpoints is None:
            if stored is None:
                return
            endpoints = self._services[name] = self._resources[endpoints_name(name)] = EndpointSet(self._floor)
            endpoints.protect(name in self._protections, revision)
        fresh = None if stored is None else self._merge(name, stored, self._records.get(Ref(Kind.DESIRED, path)))
        if endpoints.put(id, fresh, revision):
            changed.add(endpoints_name(name))

    def _merge(self, name: ServiceName, stored: Stored, desired: Stored | None) -> Endpoint:
        assert isinstance(stored.record, Instance)
        instance, wanted = stored.record, desired.record if desired else None
        assert wanted is None or isinstance(wanted, Desired)
        claims = self._protections.get(name)
        suspect = claims is not None and any(instance.id in claim.suspects for claim in claims.values())
        return merged(instance, wanted, suspect=suspect)

    def _protect(self, ref: Ref, stored: Stored | None, revision: int, changed: set[ResourceName]) -> None:
        namespace, service, _replica = ref.path
        name = ServiceName(namespace, service)
        claims = self._protections.setdefault(name, {})
        affected: set[str] = set()
        if (old := claims.pop(ref, None)) is not None:
            affected.update(old.suspects)
        if stored is not None:
            assert isinstance(stored.record, Protection)
            claims[ref] = stored.record
            affected.update(stored.record.suspects)
        if not claims:
            del self._protections[name]
        for id in affected:
            self._refresh((namespace, service, id), revision, changed)
        endpoints = self._services.get(name)
        if endpoints is not None and endpoints.protect(name in self._protections, revision):
            changed.add(endpoints_name(name))

    def _document(self, name: ResourceName, stored: Stored | None, changed: set[ResourceName]) -> None:
        held = self._resources.get(name)
        if stored is None:
            if self._resources.pop(name, None) is not None:
                changed.add(name)
            return
        content = stored.record
        assert isinstance(content, ConfigFile | PolicyDocument)
        digest = document_digest(content)
        if held is None or held.digest != digest:
            self._resources[name] = Document(content, stored.revision, digest)
            changed.add(name)

    def _index_lease(self, ref: Ref, before: Stored | None, stored: Stored | None) -> None:
        old, new = before.lease if before else 0, stored.lease if stored else 0
        if old and old != new:
            held = self._leases[old]
            held.discard(ref)
            if not held:
                del self._leases[old]
        if new:
            self._leases.setdefault(new, set()).add(ref)

    # -- resources, for subscribers ---------------------------------------------------------------------------------

    def endpoints(self, name: str) -> EndpointSet | None:
        """The endpoint set of ``"namespace/service"``; None when the service was never heard of."""
        namespace, _, service = name.partition("/")
        return self._services.get(ServiceName(namespace, service))

    def resource(self, name: ResourceName) -> EndpointSet | Document | None:
        """What a subscriber to ``name`` follows; None when it was never heard of, or is a document that is gone."""
        return self._resources.get(name)

    # -- look-ups, for people and decisions -------------------------------------------------------------------------

    def record(self, ref: Ref) -> Stored | None:
        """One record as last seen."""
        return self._records.get(ref)

    def records(self) -> Iterable[Stored]:
        """Everything held, for the periodic comparison with the store."""
        return self._records.values()

    def on_lease(self, lease: int) -> frozenset[Ref]:
        """The instances that hang on a session."""
        return frozenset(self._leases.get(lease, ()))

    def session_count(self, name: ServiceName, *, without: Collection[int] = ()) -> int:
        """How many sessions stand behind a service's instances, the leases in ``without`` not counted."""
        endpoints = self._services.get(name)
        if endpoints is None:
            return 0
        leases = {self._records[Ref(Kind.INSTANCE, (*name, id))].lease for id in endpoints.endpoints}
        return sum(lease not in without for lease in leases)

    def namespaces(self) -> list[str]:
        """Every namespace in which something is registered or configured."""
        found = {name.namespace for name, endpoints in self._services.items() if endpoints.endpoints}
        return sorted(found | {ref.path[0] for ref in self._records if ref.kind in {Kind.CONFIG, Kind.POLICY}})

    def services(self, namespace: str) -> list[ServiceName]:
        """The namespace's services that have an instance, sorted."""
        return sorted(name for name, held in self._services.items() if name.namespace == namespace and held.endpoints)

    def instances(self, name: ServiceName) -> list[Listed]:
        """A service's instances, sorted by id."""
        endpoints = self._services.get(name)
        ids = sorted(endpoints.endpoints) if endpoints else []
        return [listed for id in ids if (listed := self.instance(name, id)) is not None]

    def instance(self, name: ServiceName, id: str) -> Listed | None:
        """One instance with its intent and its effect."""
        stored = self._records.get(Ref(Kind.INSTANCE, (*name, id)))
        if stored is None:
            return None
        return Listed(stored, self._records.get(Ref(Kind.DESIRED, (*name, id))), self._services[name].endpoints[id])

    def protected(self, name: ServiceName) -> bool:
        """Whether the mass-failure guard holds this service."""
        return name in self._protections

    def configs(self, namespace: str) -> list[Stored]:
        """The namespace's configuration files, sorted by name."""
        found = (s for ref, s in self._records.items() if ref.kind is Kind.CONFIG and ref.path[0] == namespace)
        return sorted(found, key=lambda stored: stored.ref.path)

    def config(self, namespace: str, app: str, file: str) -> Stored | None:
        """One configuration file."""
        return self._records.get(Ref(Kind.CONFIG, (namespace, app, file)))

    def policies(self, namespace: str) -> list[Stored]:
        """The namespace's policies, sorted by name; the one for all its services comes first."""
        found = (s for ref, s in self._records.items() if ref.kind is Kind.POLICY and ref.path[0] == namespace)
        return sorted(found, key=lambda stored: stored.ref.path)

    def policy(self, namespace: str, name: str) -> Stored | None:
        """The policy of a service, or (``*``) of the namespace."""
        return self._records.get(Ref(Kind.POLICY, (namespace, name)))

    def replicas(self) -> list[Replica]:
        """The control-plane processes that are alive."""
        return [s.record for s in self._records.values() if isinstance(s.record, Replica)]


def endpoints_name(name: ServiceName) -> ResourceName:
    """The resource that carries a service's endpoints."""
    return ResourceName(ResourceKind.ENDPOINTS, str(name))
