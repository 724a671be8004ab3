"""The one implementation behind Mesh and AsyncMesh: starts the stream when it is first needed and never waits.

Whatever takes time is returned as a ``concurrent.futures.Future``; the two faces wait for it in their own way.
"""

from __future__ import annotations

import atexit
import logging
import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from trimtab.callbacks import Callbacks, Watch
from trimtab.calling.crew import RealCrew
from trimtab.configs import ConfigFiles, LiveConfig, reader_of
from trimtab.core.calling.events import event_of
from trimtab.core.calling.rules import Caller, Release
from trimtab.core.endpoints import ServiceState
from trimtab.core.session import Arrived, Crowded, Event, Session, Step
from trimtab.discovery import Callee, Discovery, explain
from trimtab.disk import Disk, ResourceKey
from trimtab.enrolment import Enrolment, Enrolments, describe, own_address
from trimtab.errors import MeshClosed, NotConnected
from trimtab.fork import tell_of_forks
from trimtab.gate import Gate
from trimtab.hooks import Audience, Hooks
from trimtab.load_meter import LoadMeter, LoadSource
from trimtab.naming import called, full_file, full_service, served
from trimtab.reporting import Reporter
from trimtab.saved import config_from, policy_from, state_from, worth_saving
from trimtab.serving import InFlight
from trimtab.settings import Settings
from trimtab.status import Status, node_of, status_of
from trimtab.stream import Command, Link, Stream
from trimtab.v1.mesh_pb2 import Refusal, Report
from trimtab.v1.types_pb2 import Instance, Kind, Load, Resource

logger = logging.getLogger("trimtab")

_PARK_TIMEOUT = 1.0


class Engine:
    """Discovery, registration and configuration of one process over one supervised stream."""

    def __init__(self, settings: Settings, load: LoadSource | None, hooks: Sequence[Hooks] = ()) -> None:
        self.settings = settings
        self.hooks = tuple(hooks)
        self._audience = Audience(self.hooks, lambda told: self.callbacks.put(told)) if hooks else None
        self.serving = InFlight()
        self.callbacks = Callbacks()
        self.crew = RealCrew()
        self.closed = False
        self.load_meter = LoadMeter(load)
        self._rng = random.Random()
        # By name, with a namespace where it is not our own.
        self._ready: dict[str | tuple[str, str], Callee] = {}
        self._disk = Disk(settings, lambda key: worth_saving(key, self.discovery, self.configs))
        self.configs = ConfigFiles(partial(config_from, self._disk))
        self.caller = Caller(
            settings.name,
            settings.zone,
            uuid.uuid4().hex,
            settings.algorithm,
            self._circuit_changed,
            happened=self._audience.offer if self._audience is not None else None,
            listener=self._audience,
        )
        self.discovery = Discovery(
            self.new_callee, self.new_gate, partial(state_from, self._disk), partial(policy_from, self._disk)
        )
        self._rest()
        tell_of_forks(self)
        # A weak reference: an engine that was never used may go before the process does.
        self._at_exit = partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)

    def _rest(self) -> None:
        """Have no stream yet: at first, and in a forked child, which has none of its parent's threads."""
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._enrolments = Enrolments()
        self._revision = 0
        self._reporter = Reporter(time.monotonic())

    # What an engine is made of

    def new_callee(self, name: str, state: ServiceState | None, policies: Mapping[str, Release | None]) -> Callee:
        """Return a service to be followed, as it was saved."""
        return Callee(name, self.caller, self.no_endpoints, state, policies, crew=self.crew)

    def new_gate(self, name: str, policies: Mapping[str, Release | None]) -> Gate:
        """Return what lets calls into a service, under the policies that were saved."""
        return Gate(name, policies, self.wake)

    def new_stream(self, session: Session) -> Stream:
        """Return a stream that was not started."""
        return Stream(self.settings, session, self)

    # Calling

    def ready(self, service: str, namespace: str | None) -> Callee | None:
        """Return a service that is settled, None when it must be discovered first."""
        return self._ready.get(service if namespace is None else (service, namespace))

    def discover(self, service: str, namespace: str | None = None) -> Callee:
        """Return what is known of a service, following it from now on. Raises MeshClosed and SettingsInvalid."""
        callee, fresh = self.discovery.callee(self.service_name(service, namespace))
        started = self._ensure()
        if fresh and not started:
            self.post(lambda session, now: session.subscribe(called(callee.name)))
        return callee

    def remember(self, service: str, namespace: str | None, callee: Callee) -> None:
        """Let further picks of a discovered service go the short way."""
        if self.closed:
            return
        key = service if namespace is None else (service, namespace)
        self._ready[key] = callee
        if self.closed or self.discovery.find(callee.name) is not callee:
            # Followed no longer since a moment ago, and by whoever said so not found there.
            self._ready.pop(key, None)
            callee.retire()

    def forget(self, service: str) -> None:
        """Follow a service no longer. Does nothing when it is not followed."""
        name = self.service_name(service)
        if not self.discovery.forget(name):
            return
        for key, callee in list(self._ready.items()):
            if callee.name == name:
                self._ready.pop(key, None)
                callee.retire()
        if self._stream is not None:
            # A policy of the whole namespace is followed for as long as any service of it is.
            needed = set(self._followed())
            self.post(lambda session, now: session.unsubscribe([k for k in called(name) if k not in needed]))

    def gate(self, service: str, namespace: str | None = None) -> Gate:
        """Return what lets calls into a service that this process serves, following its policies from now on."""
        gate, fresh = self.discovery.gate(self.service_name(service, namespace))
        started = self._ensure()
        if fresh and not started:
            self.post(lambda session, now: session.subscribe(served(gate.name)))
        return gate

    def watch(self, service: str, callback: Callable[[ServiceState], object]) -> Watch:
        """Have a callback told of every new state of a service."""
        callee = self.discover(service)
        watch = Watch(self.callbacks, callback)
        watch.stop = callee.listen(watch.offer)
        return watch

    def no_endpoints(self, callee: Callee) -> Exception:
        """Return the error that tells why nobody can be called."""
        link = self.link
        why = str(link.last_error) if link.last_error else ""
        return explain(callee, link.connected, self.settings.servers, why)

    def service_name(self, service: str, namespace: str | None = None) -> str:
        """Return the full name, ``NAMESPACE/SERVICE``. Raises SettingsInvalid."""
        return full_service(service, namespace or self.settings.namespace)

    # Configuration

    def config(self, name: str, model: Any, default: Any) -> tuple[LiveConfig[Any], Future[None]]:
        """Return a live value and a future that is done when a server answered, or cannot. Raises SettingsInvalid."""
        full = self.config_name(name)
        live: LiveConfig[Any] = LiveConfig(full, reader_of(model), default, self.callbacks, self.wake)
        file, fresh = self.configs.file(full)
        future = file.add(live)
        started = self._ensure()
        if fresh and not started:
            self.post(lambda session, now: session.subscribe([(Kind.KIND_CONFIG, full)]))
        return live, future

    def settle(self, live: LiveConfig[Any]) -> None:
        """Wait no longer for a file."""
        self.configs.file(live.file)[0].settle()

    def config_name(self, name: str) -> str:
        """Return the full name, ``NAMESPACE/APP/FILE``. Raises SettingsInvalid."""
        return full_file(name, self.settings.namespace)

    # Registering

    def describe(
        self,
        service: str,
        namespace: str | None,
        port: int,
        *,
        address: str | None,
        id_: str | None,
        weight: int | None,
        zone: str | None,
        metadata: Mapping[str, str] | None,
        state: str,
    ) -> Instance:
        """Return the instance to register, with what is left out filled in. May look up a name. Raises SettingsInvalid."""
        space, _, name = self.service_name(service, namespace).partition("/")
        return describe(
            space,
            name,
            port,
            address=address or own_address(self.settings.servers[0]),
            id_=id_ or "",
            weight=weight or 0,
            zone=self.settings.zone if zone is None else zone,
            metadata=metadata or {},
            state=state,
        )

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
        return status_of(self.link, self._revision, len(self.discovery.callees()))

    def set_load_source(self, load: LoadSource) -> None:
        """Have heartbeats and load reports say what ``load`` returns: CPU and memory, each 0 to 1, negative for unknown."""
        self.load_meter.use(load)

    def post(self, command: Command) -> None:
        """Have a command done by the stream's thread. Raises MeshClosed."""
        stream = self._stream
        if self.closed or stream is None:
            raise MeshClosed
        stream.post(command)

    def wake(self) -> None:
        """Have the stream run: a forked child has none until it needs one. Does nothing once closed."""
        if self._stream is None and not self.closed:
            self._ensure()

    def close(self, timeout: float) -> None:
        """Say Goodbye and stop every thread. Returns after at most about ``timeout`` seconds."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            stream = self._stream
        atexit.unregister(self._at_exit)
        deadline = time.monotonic() + timeout
        ready = list(self._ready.values())
        self._ready.clear()
        for callee in ready:
            callee.retire()
        self._settle_all()
        self.discovery.close()
        # The disk first: it asks for what the stream knows.
        self._disk.close(timeout)
        if stream is not None:
            stream.close(max(0.1, deadline - time.monotonic()))
        self.callbacks.close(max(0.1, deadline - time.monotonic()))
        self.crew.close()

    def _ensure(self) -> bool:
        """Start the stream unless it runs. Returns True when it did; everything followed is then in its Hello."""
        if self._stream is not None and not self.closed:
            return False
        with self._lock:
            if self.closed:
                raise MeshClosed
            if self._stream is not None:
                return False
            session = Session(node_of(self.settings), self._rng, self._load, self._report)
            session.subscribe(self._followed())
            session.subscribe((Kind.KIND_CONFIG, file.name) for file in self.configs.files())
            self._stream = self.new_stream(session)
            self._stream.start()
            return True

    def _followed(self) -> Iterator[ResourceKey]:
        """What the services that are called and served need to be known of."""
        for callee in self.discovery.callees():
            yield from called(callee.name)
        for gate in self.discovery.gates():
            yield from served(gate.name)

    def _load(self) -> Load:
        cpu, memory = self.load_meter.measure()
        return Load(cpu=cpu, memory=memory, serving=max(0, int(self.serving)), calling=max(0, self.discovery.calling()))

    def _report(self, whole: bool) -> Report | None:
        return self._reporter.report(self.discovery.callees(), whole, time.monotonic())

    def _circuit_changed(self) -> None:
        """A circuit opened, half-opened or closed. Called with its service's lock held: only leaves a note."""
        stream = self._stream
        if stream is not None and not self.closed:
            stream.post(Session.report_soon)

    # What the stream tells (its thread)

    def happened(self, event: Event, session: Session, now: float) -> Step:
        """Take an event of the protocol."""
        match event:
            case Arrived(delta):
                self._revision = max(self._revision, delta.version)
            case Crowded(keys, limit):
                told = ", ".join(f"{Kind.Name(kind)[5:].lower()} {name}" for kind, name in keys[:10])
                logger.warning("stream.too_many_subscriptions: the server takes %d, not followed: %s", limit, told)
                self.discovery.unanswerable(keys)
        return self._enrolments.happened(event, session, now)

    def apply(self, resource: Resource) -> Refusal | None:
        """Apply a resource, or say why not."""
        refusal: Refusal | None = None
        if resource.kind == Kind.KIND_ENDPOINTS:
            refusal = self.discovery.apply(resource)
        elif resource.kind == Kind.KIND_POLICY:
            refusal = self.discovery.apply_policy(resource)
        elif resource.kind == Kind.KIND_CONFIG:
            file = self.configs.find(resource.name)
            refusal = file.apply(resource) if file is not None else None
        if refusal is None:
            self._disk.changed((int(resource.kind), resource.name))
        if self._audience is not None:
            callee = self.discovery.find(resource.name)
            event = event_of(resource, refusal, callee.state if callee is not None else None)
            if event is not None:
                self._audience.offer(event)
        return refusal

    def unreachable(self) -> None:
        """No server can be reached: whoever waits for a first answer goes on with what there is."""
        self._settle_all()

    def _settle_all(self) -> None:
        self.discovery.unreachable()
        for file in self.configs.files():
            file.settle()

    # Forks

    def before_fork(self) -> bool:
        """Bring gRPC to rest. Returns True when there was a stream."""
        stream = self._stream
        return stream is not None and not self.closed and stream.park(_PARK_TIMEOUT)

    def after_fork_in_parent(self) -> None:
        """Go on with the same session."""
        if self._stream is not None:
            self._stream.unpark()

    def after_fork_in_child(self) -> None:
        """Keep what is known, to be confirmed; register nothing; open a stream with the next use."""
        self._enrolments.disown()
        self._rest()
        # Locks first: another thread of the parent may have held any of them.
        self.callbacks.revive()
        self.crew.revive()
        self.serving.revive()
        self.load_meter.revive()
        self._disk.revive()
        self._ready.clear()
        self.discovery.revive()
        self.configs.revive()


def _close(reference: weakref.ref[Engine]) -> None:
    """Say Goodbye when the process ends without a close()."""
    engine = reference()
    if engine is not None:
        engine.close(2.0)
