"""The mesh for programs that use threads or nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from types import TracebackType
from typing import Any

from trimtab.calls import InFlight, Pick
from trimtab.core.endpoints import Endpoint, ServiceState
from trimtab.core.picker import Algorithm
from trimtab.discovery import Callee, has_endpoint, is_settled
from trimtab.engine import Engine, LoadSource, Status, merged
from trimtab.enrolment import Enrolment, State, describe, own_address, state_number
from trimtab.errors import MeshClosed, Refused
from trimtab.settings import resolve


class Registration:
    """One registered instance. What is said here is kept true: after a lost session it is registered again as it was last."""

    def __init__(self, engine: Engine, enrolment: Enrolment) -> None:
        self._engine = engine
        self._enrolment = enrolment

    @property
    def id(self) -> str:
        """The instance's id as stored, empty until then."""
        return self._enrolment.id

    @property
    def service(self) -> str:
        """``NAMESPACE/SERVICE``."""
        return f"{self._enrolment.wanted.namespace}/{self._enrolment.wanted.service}"

    @property
    def state(self) -> str:
        """What the instance says of itself: starting, serving, draining or unhealthy."""
        return describe_state(self._enrolment)

    @property
    def registered(self) -> bool:
        """It is stored, as far as this process knows."""
        return self._enrolment.registered

    @property
    def error(self) -> Refused | None:
        """The server's last refusal, None when it accepted since."""
        return self._enrolment.error

    def ready(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Take calls from now on."""
        self.update(state="serving", wait=wait, timeout=timeout)

    def drain(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Get no new calls from now on; go on with those that are here."""
        self.update(state="draining", wait=wait, timeout=timeout)

    def unhealthy(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Say that the instance's own health check fails."""
        self.update(state="unhealthy", wait=wait, timeout=timeout)

    def update(
        self,
        *,
        weight: int | None = None,
        zone: str | None = None,
        metadata: Mapping[str, str] | None = None,
        state: State | None = None,
        wait: bool = True,
        timeout: float = 10.0,
    ) -> None:
        """Change what the instance reports of itself. None leaves a field as it is.

        Raises Refused, or NotConnected when nobody answers within ``timeout`` seconds: the change then stays wanted and
        is sent as soon as a server is there.
        """
        number = None if state is None else state_number(state)
        wanted = merged(
            self._enrolment.wanted, {"weight": weight, "zone": zone, "metadata": metadata, "state": number}
        )
        future = self._engine.amend(self._enrolment, wanted)
        if wait:
            self._wait(future, timeout)

    def deregister(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Take the instance away. Does nothing when it is away, or the Mesh closed."""
        future = self._engine.amend(self._enrolment, None)
        if wait:
            self._wait(future, timeout)

    def _wait(self, future: Any, timeout: float) -> None:
        try:
            future.result(timeout)
        except FutureTimeout:
            raise self._engine.unanswered(self._enrolment, timeout) from None

    def __repr__(self) -> str:
        return f"<Registration {self._enrolment.label} {self.state}>"


def describe_state(enrolment: Enrolment) -> str:
    """Return the name of the state that is wanted."""
    return ("unspecified", "starting", "serving", "draining", "unhealthy")[enrolment.wanted.state]


class Mesh:
    """A process's part of the mesh: whom to call, what it registers, how it is configured. Thread-safe.

    Making one never waits and never fails because servers are away; the stream starts with the first use.

    Arguments beat the environment: ``servers`` (TRIMTAB_SERVERS, "HOST:PORT,…"), ``token`` (TRIMTAB_TOKEN), ``namespace``
    (TRIMTAB_NAMESPACE), ``zone`` (TRIMTAB_ZONE), ``ca``, ``cert``, ``key`` (TRIMTAB_CA, …: PEM files), ``snapshot_dir``
    (TRIMTAB_SNAPSHOT_DIR; ``snapshot=False``: none). ``name`` and ``labels`` describe the program to operators.
    ``discovery_timeout``: seconds that the first use of a service may wait. Raises SettingsInvalid.
    """

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        token: str | None = None,
        namespace: str | None = None,
        zone: str | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        snapshot: bool = True,
        snapshot_dir: str | Path | None = None,
        discovery_timeout: float = 2.0,
        algorithm: Algorithm = "p2c",
        load: LoadSource | None = None,
    ) -> None:
        settings = resolve(
            servers=servers,
            token=token,
            namespace=namespace,
            zone=zone,
            name=name,
            labels=labels,
            ca=ca,
            cert=cert,
            key=key,
            snapshot=snapshot,
            snapshot_dir=snapshot_dir,
            discovery_timeout=discovery_timeout,
            algorithm=algorithm,
        )
        self._engine = Engine(settings, load)

    @property
    def namespace(self) -> str:
        """The namespace in which short names are meant."""
        return self._engine.settings.namespace

    @property
    def closed(self) -> bool:
        """``close()`` was called."""
        return self._engine.closed

    @property
    def serving(self) -> InFlight:
        """The calls that this process is serving, for load reports."""
        return self._engine.serving

    @property
    def in_flight(self) -> tuple[int, int]:
        """Calls being served and calls being made, now."""
        return int(self._engine.serving), self._engine.discovery.calling()

    # Calling

    def pick(self, service: str, *, namespace: str | None = None, exclude: Collection[str] = ()) -> Pick:
        """Choose an endpoint for one call; ``exclude`` names the ids already tried.

        The first use of a service waits up to ``discovery_timeout``, later ones never. Raises NoEndpoints, MeshClosed.
        """
        pick = self._engine.pick(service, namespace, exclude)
        if pick is not None:
            return pick
        callee = self._discover(service, namespace)
        self._engine.remember(service, namespace, callee)
        found = self._engine.pick(service, namespace, exclude)
        if found is None:
            raise MeshClosed
        return found

    def endpoints(self, service: str, *, namespace: str | None = None) -> tuple[Endpoint, ...]:
        """Return all known endpoints, whatever their health."""
        return tuple(self._discover(service, namespace).state.endpoints.values())

    def service(self, service: str, *, namespace: str | None = None) -> ServiceState:
        """Return all that is known of a service."""
        return self._discover(service, namespace).state

    def subscribe(self, *services: str) -> None:
        """Follow services from now on without waiting, so that their first call need not."""
        for service in services:
            self._engine.discover(service)

    def wait_ready(self, service: str, timeout: float = 10.0) -> None:
        """Wait until somebody can be called. Raises NoEndpoints after ``timeout`` seconds."""
        callee = self._engine.discover(service)
        try:
            callee.when(has_endpoint).result(timeout)
        except FutureTimeout:
            raise self._engine.no_endpoints(callee) from None

    def _discover(self, service: str, namespace: str | None) -> Callee:
        callee = self._engine.discover(service, namespace)
        if not callee.settled:
            try:
                callee.when(is_settled).result(self._engine.settings.discovery_timeout)
            except FutureTimeout:
                callee.settle()
        return callee

    # Serving

    def register(
        self,
        service: str,
        port: int,
        *,
        address: str | None = None,
        id: str | None = None,
        weight: int | None = None,
        zone: str | None = None,
        metadata: Mapping[str, str] | None = None,
        state: State = "serving",
        namespace: str | None = None,
        wait: bool = True,
        timeout: float = 10.0,
    ) -> Registration:
        """Register an instance and keep it registered until ``deregister`` or ``close``.

        ``address`` defaults to the local address of the route to the server, ``id`` to ADDRESS-PORT, ``zone`` to the Mesh's.
        Raises Refused, or NotConnected after ``timeout`` seconds (nothing stays registered). With ``wait=False`` returns at
        once and keeps trying.
        """
        space, _, name = self._engine.service_name(service, namespace).partition("/")
        instance = describe(
            space,
            name,
            port,
            address=address or own_address(self._engine.settings.servers[0]),
            id_=id or "",
            weight=weight or 0,
            zone=self._engine.settings.zone if zone is None else zone,
            metadata=metadata or {},
            state=state,
        )
        enrolment, future = self._engine.enrol(instance)
        if wait:
            try:
                future.result(timeout)
            except FutureTimeout:
                self._engine.amend(enrolment, None)
                raise self._engine.unanswered(enrolment, timeout) from None
        return Registration(self._engine, enrolment)

    # Itself

    def status(self) -> Status:
        """Return where this process stands towards the mesh."""
        return self._engine.status()

    def set_load_source(self, load: LoadSource) -> None:
        """Have heartbeats carry what ``load`` returns: CPU and memory, each 0 to 1, negative for unknown."""
        self._engine.set_load_source(load)

    def close(self, timeout: float = 5.0) -> None:
        """Leave the mesh: the session ends with all its instances. Stops every thread. Twice is once."""
        self._engine.close(timeout)

    def __enter__(self) -> Mesh:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Integrations, imported when asked for

    def http_client(self, **options: Any) -> Any:
        """Return an ``httpx.Client`` that understands ``mesh://SERVICE/path``. Needs the extra ``trimtab[httpx]``."""
        from trimtab.http.httpx import client

        return client(self, **options)

    def requests_adapter(self, **options: Any) -> Any:
        """Return an adapter to mount at ``mesh://`` in a requests session. Needs the extra ``trimtab[requests]``."""
        from trimtab.http.requests import adapter

        return adapter(self, **options)

    def fastapi(self, service: str, *, port: int, drain: str | float = "5s", **options: Any) -> Any:
        """Return a FastAPI lifespan that registers, gets ready, and drains. Needs the extra ``trimtab[fastapi]``."""
        from trimtab.servers.fastapi import lifespan

        return lifespan(self, service, port=port, drain=drain, **options)
