"""The one implementation behind Mesh and AsyncMesh: starts the stream when it is first needed and never waits.

Whatever takes time is returned as a ``concurrent.futures.Future``; the two faces wait for it in their own way.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import random
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from trimtab.calls import InFlight, LockedTally, Pick
from trimtab.core.endpoints import ServiceState, Tally
from trimtab.core.session import Event, Session, Step
from trimtab.discovery import Callee, Discovery, explain
from trimtab.enrolment import Enrolment, Enrolments
from trimtab.errors import MeshClosed, NotConnected, SettingsInvalid
from trimtab.settings import Settings
from trimtab.stream import Command, Link, Stream
from trimtab.v1.mesh_pb2 import Refusal
from trimtab.v1.types_pb2 import Instance, Kind, Load, Node, Resource

logger = logging.getLogger("trimtab")

LoadSource = Callable[[], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Status:
    """Where this process stands towards the mesh.

    ``session_state``: none, attached, pending, resuming or lost. ``revision``: store revision up to which everything
    followed is complete. ``stale``: without a server, so that what is known may be old.
    """

    connected: bool
    server: str
    replica: str
    session: str
    session_state: str
    revision: int
    stale: bool
    services: int
    connects: int
    last_error: str


class Engine:
    """Discovery, registration and configuration of one process over one supervised stream."""

    def __init__(self, settings: Settings, load: LoadSource | None) -> None:
        self.settings = settings
        self.serving = InFlight()
        self.closed = False
        self._load_source = load
        self._rng = random.Random()
        self._ready: dict[tuple[str, str | None], Callee] = {}
        self._begin()

    def _begin(self) -> None:
        """Build everything that threads touch; after a fork once more, because none of the parent's threads is here."""
        gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._enrolments = Enrolments()
        self._revision = 0
        self.discovery = Discovery(self.settings.algorithm, Tally if gil else LockedTally, self._from_disk)

    # Calling

    def pick(self, service: str, namespace: str | None, exclude: Collection[str]) -> Pick | None:
        """Return a pick of a service that is settled, None when it must be discovered first. Raises NoEndpoints."""
        callee = self._ready.get((service, namespace))
        if callee is None:
            return None
        endpoint = callee.pick(self._rng, exclude)
        if endpoint is None:
            raise self.no_endpoints(callee)
        return Pick(endpoint)

    def discover(self, service: str, namespace: str | None = None) -> Callee:
        """Return what is known of a service, following it from now on. Raises MeshClosed and SettingsInvalid."""
        callee, fresh = self.discovery.callee(self.service_name(service, namespace))
        started = self._ensure()
        if fresh and not started:
            self.post(lambda session, now: session.subscribe([(Kind.KIND_ENDPOINTS, callee.name)]))
        return callee

    def remember(self, service: str, namespace: str | None, callee: Callee) -> None:
        """Let further picks of a discovered service go the short way."""
        if not self.closed:
            self._ready[(service, namespace)] = callee

    def no_endpoints(self, callee: Callee) -> Exception:
        """Return the error that tells why nobody can be called."""
        link = self.link
        why = str(link.last_error) if link.last_error else ""
        return explain(callee, link.connected, self.settings.servers, why)

    def service_name(self, service: str, namespace: str | None = None) -> str:
        """Return the full name, ``NAMESPACE/SERVICE``. Raises SettingsInvalid."""
        space, slash, name = service.rpartition("/")
        space = space if slash else (namespace or self.settings.namespace)
        if not name or not space or "/" in space:
            raise SettingsInvalid(f"service {service!r} is no name", hint="SERVICE or NAMESPACE/SERVICE")
        return f"{space}/{name}"

    # Registering

    def enrol(self, instance: Instance) -> tuple[Enrolment, Future[None]]:
        """Want an instance registered."""
        enrolment, future = Enrolment(instance), Future[None]()
        self._ensure()
        self.post(lambda session, now: self._enrolments.begin(enrolment, session, now, future))
        return enrolment, future

    def amend(self, enrolment: Enrolment, instance: Instance | None) -> Future[None]:
        """Want an instance otherwise, or (None) gone."""
        future: Future[None] = Future()
        if self.closed and instance is None:
            future.set_result(None)
            return future
        self._ensure()
        if instance is not None:
            enrolment.wanted = instance
        self.post(lambda session, now: enrolment.change(session, now, instance, future))
        return future

    def unanswered(self, enrolment: Enrolment, timeout: float) -> Exception:
        """Return the error of a registration that nobody answered in time."""
        if enrolment.error is not None:
            return enrolment.error
        link = self.link
        why = str(link.last_error) if link.last_error else "no answer"
        return NotConnected(
            f"registration of {enrolment.label} was not stored within {timeout:g} s: {why}", self.settings.servers
        )

    # The stream

    @property
    def link(self) -> Link:
        """What is known of the connection."""
        return self._stream.link if self._stream is not None else Link()

    def status(self) -> Status:
        """Return where this process stands."""
        link = self.link
        return Status(
            connected=link.connected,
            server=link.server,
            replica=link.replica,
            session=link.session,
            session_state=link.session_state,
            revision=self._revision,
            stale=not link.connected,
            services=len(self.discovery.callees()),
            connects=link.connects,
            last_error=str(link.last_error or ""),
        )

    def set_load_source(self, load: LoadSource) -> None:
        """Have heartbeats carry what ``load`` returns: CPU and memory, each 0 to 1, negative for unknown."""
        self._load_source = load

    def post(self, command: Command) -> None:
        """Have a command done by the stream's thread. Raises MeshClosed."""
        stream = self._stream
        if self.closed or stream is None:
            raise MeshClosed
        stream.post(command)

    def close(self, timeout: float) -> None:
        """Say Goodbye and stop every thread. Returns after at most about ``timeout`` seconds."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            stream = self._stream
        self._ready.clear()
        self.discovery.unreachable()
        if stream is not None:
            stream.close(timeout)

    def _ensure(self) -> bool:
        """Start the stream unless it runs. Returns True when it did; everything followed is then in its Hello."""
        if self.closed:
            raise MeshClosed
        if self._stream is not None:
            return False
        with self._lock:
            if self.closed:
                raise MeshClosed
            if self._stream is not None:
                return False
            session = Session(self._node(), self._rng, self._load)
            session.subscribe((Kind.KIND_ENDPOINTS, c.name) for c in self.discovery.callees())
            self._stream = Stream(self.settings, session, self)
            self._stream.start()
            return True

    def _node(self) -> Node:
        try:
            version = importlib.metadata.version("trimtab")
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
        host = socket.gethostname()
        return Node(
            id=f"{host[:60]}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
            namespace=self.settings.namespace,
            name=self.settings.name,
            sdk=f"trimtab-python/{version}",
            host=host,
            pid=os.getpid(),
            zone=self.settings.zone,
            labels=self.settings.labels,
        )

    def _load(self) -> Load:
        if self._load_source is None:
            from trimtab.load import HostLoad

            self._load_source = HostLoad()
        try:
            cpu, memory = self._load_source()
        except Exception:
            # The program's own function: its failure must not cost the session that this heartbeat keeps.
            logger.exception("the load source failed")
            cpu = memory = -1.0
        return Load(cpu=cpu, memory=memory, serving=max(0, int(self.serving)), calling=max(0, self.discovery.calling()))

    # What the stream tells (its thread)

    def happened(self, event: Event, session: Session, now: float) -> Step:
        """Take an event of the protocol."""
        return self._enrolments.happened(event, session, now)

    def apply(self, resource: Resource) -> Refusal | None:
        """Apply a resource, or say why not."""
        self._revision = max(self._revision, resource.version)
        if resource.kind == Kind.KIND_ENDPOINTS:
            return self.discovery.apply(resource)
        return None

    def unreachable(self) -> None:
        """No server can be reached: whoever waits for a first answer goes on with what there is."""
        self.discovery.unreachable()

    def _from_disk(self, name: str) -> ServiceState | None:
        return None


def merged(instance: Instance, changes: Mapping[str, Any]) -> Instance:
    """Return ``instance`` with the fields of ``changes`` that are not None."""
    merged = Instance()
    merged.CopyFrom(instance)
    for field, value in changes.items():
        if value is None:
            continue
        if field == "metadata":
            merged.metadata.clear()
            merged.metadata.update(value)
        else:
            setattr(merged, field, value)
    return merged
