"""The mesh for programs that use threads or nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload

from trimtab.callbacks import Watch
from trimtab.calling.attempts import AttemptBlock, attempts, beginning
from trimtab.calling.context import deadline
from trimtab.calling.drive import Blocking, block
from trimtab.calling.guard import Guarded, blame
from trimtab.calling.keyed import arguments_of
from trimtab.calling.pick import Pick, picked
from trimtab.configs import MISSING, LiveConfig
from trimtab.core.endpoints import Endpoint, ServiceState
from trimtab.discovery import Callee, has_endpoint, is_settled
from trimtab.engine import Engine
from trimtab.enrolment import State
from trimtab.errors import ConfigInvalid
from trimtab.gate import Gate
from trimtab.hooks import Hooks
from trimtab.load_meter import LoadMeter, LoadSource
from trimtab.registration import Registration
from trimtab.serving import InFlight
from trimtab.settings import Options, resolve
from trimtab.status import Status

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def usable(live: LiveConfig[Any], default: Any) -> LiveConfig[Any]:
    """Return ``live``. Raises ConfigInvalid when its first release is no good and nothing can stand in for it."""
    if live.error and not live.published and default is MISSING:
        raise ConfigInvalid(f"{live.file}: {live.error}", hint="publish a release that fits, or give default=")
    return live


def _namespace_of(service: str) -> str | None:
    """The namespace that ``NAMESPACE/SERVICE`` names; None: it names none."""
    return service.rpartition("/")[0] or None


class Mesh:
    """A process's part of the mesh: whom to call, what it registers, how it is configured. Thread-safe.

    Making one never waits and never fails because servers are away; the stream starts with the first use.

    Arguments beat the environment: ``servers`` (TRIMTAB_SERVERS, "HOST:PORT,…"), ``token`` (TRIMTAB_TOKEN), ``namespace``
    (TRIMTAB_NAMESPACE), ``zone`` (TRIMTAB_ZONE), ``ca``, ``cert``, ``key`` (TRIMTAB_CA, …: PEM files), ``snapshot_dir``
    (TRIMTAB_SNAPSHOT_DIR; ``snapshot=False``: none). ``name`` and ``labels`` describe the program to operators.
    ``discovery_timeout``: seconds that the first use of a service may wait; ``algorithm``: the balancing where no policy says
    any, "p2c" or another that needs no settings; ``load``: what heartbeats and load reports say of CPU and memory, by default
    what the machine or container tells (see ``set_load_source``); ``hooks``: who is told of calls, see ``trimtab.hooks``.
    Raises SettingsInvalid.
    """

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        load: LoadSource | None = None,
        hooks: Sequence[Hooks] = (),
        **options: Unpack[Options],
    ) -> None:
        self._engine = Engine(resolve(servers, **options), load, hooks)

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
        """The calls that this process is serving, for heartbeats."""
        return self._engine.serving

    @property
    def load_meter(self) -> LoadMeter:
        """What measures the load of this process and counts the calls that it serves, for servers that report it to callers."""
        return self._engine.load_meter

    @property
    def hooks(self) -> tuple[Hooks, ...]:
        """Who is told of calls, as it was given."""
        return self._engine.hooks

    @property
    def in_flight(self) -> tuple[int, int]:
        """Calls being served and calls being made, now."""
        return int(self._engine.serving), self._engine.discovery.calling()

    # Calling

    def pick(
        self, service: str, *, namespace: str | None = None, exclude: Collection[str] = (), key: object = None
    ) -> Pick:
        """Choose an endpoint for one call; ``exclude`` names the ids already tried.

        The policy of the service holds for it, but for what asks for more than one attempt (``retry``, ``hedge``) or for an
        answer (``fallback``, ``mirror``). ``key``: the call's argument, for what the policy has by one. The first use of a
        service waits up to ``discovery_timeout``; later ones only where the policy says so (``limit.wait``, ``fault.delay``).
        Raises NoEndpoints, Rejected, DeadlineExceeded, FaultInjected, MeshClosed.
        """
        pipeline = self.callee(service, namespace).pipeline("")
        call = pipeline.begin(
            pipeline.now(), deadline=deadline.get(), exclude=exclude, arguments=arguments_of(pipeline, key)
        )
        return block(picked(pipeline, call, Blocking()))

    def callee(self, service: str, namespace: str | None = None) -> Callee:
        """Return a service as calls see it, after waiting for what there is to know of it. Raises MeshClosed."""
        callee = self._engine.ready(service, namespace)
        if callee is None:
            callee = self._discover(service, namespace)
            self._engine.remember(service, namespace, callee)
        return callee

    def guard(
        self,
        service: str,
        *,
        method: str = "",
        namespace: str | None = None,
        fallback: Callable[..., Any] | None = None,
        idempotent: bool = False,
        ignore: tuple[type[BaseException], ...] = (),
    ) -> Callable[[F], F]:
        """Make calls of a function, ``def`` or ``async def``, calls to a service: under its policy, whatever protocol they speak.

        A function with a parameter ``endpoint`` is given the one that was picked. ``fallback`` is called with the same arguments
        when a call failed for good; ``idempotent``: calling twice does no harm; ``ignore``: exceptions that are no failure
        of the service. The guarded function has ``.traced(...)``, which returns the value and the call's trace.
        """

        def decorate(function: F) -> F:
            guarded = Guarded(
                function,
                ready=lambda: self._engine.ready(service, namespace),
                discover=lambda: self.callee(service, namespace),
                elsewhere=lambda other: self.callee(other, namespace or _namespace_of(service)),
                method=method,
                fallback=fallback,
                idempotent=idempotent,
                ignore=ignore,
            )
            return guarded.wrapped()  # type: ignore[return-value]

        return decorate

    def attempts(
        self,
        service: str,
        *,
        method: str = "",
        namespace: str | None = None,
        idempotent: bool = False,
        ignore: tuple[type[BaseException], ...] = (),
        key: object = None,
    ) -> Iterator[AttemptBlock]:
        """Yield an attempt at a time, as the service's policy allows: ``with attempt as endpoint: …``.

        ``key``: the call's argument, for what the policy has by one. Its ``hedge``, ``mirror`` and ``fallback`` have no effect.
        Raises what keeps the call from being sent, and what the last attempt raised.
        """
        pipeline = self.callee(service, namespace).pipeline(method)
        begin = beginning(pipeline, method, idempotent, key)
        return attempts(pipeline, begin, lambda error: blame(error, ignore))

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

    def unsubscribe(self, *services: str) -> None:
        """Follow services no longer. The next use of one discovers it again."""
        for service in services:
            self._engine.forget(service)

    def watch(self, service: str, callback: Callable[[ServiceState], object]) -> Watch:
        """Have ``callback`` told of the newest state after every change, by a thread of its own, beginning with what is known.

        Ends with ``Watch.cancel()``, its context, or the Mesh.
        """
        return self._engine.watch(service, callback)

    def wait_ready(self, service: str, timeout: float = 10.0) -> None:
        """Wait until somebody can be called. Raises NoEndpoints after ``timeout`` seconds, MeshClosed."""
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

    # Configuration

    @overload
    def config(self, name: str, model: type[T], *, default: Any = ...) -> LiveConfig[T]: ...
    @overload
    def config(self, name: str, model: None = None, *, default: Any = ...) -> LiveConfig[Any]: ...
    def config(self, name: str, model: Any = None, *, default: Any = MISSING) -> LiveConfig[Any]:
        """Return a live configuration value, ``APP/FILE`` or ``NAMESPACE/APP/FILE``.

        ``model``: a pydantic model, or anything pydantic validates. Waits up to ``discovery_timeout`` for the first answer.
        Raises ConfigInvalid when what is published cannot be used and there is neither a last good value nor a default.
        """
        live, future = self._engine.config(name, model, default)
        try:
            future.result(self._engine.settings.discovery_timeout)
        except FutureTimeout:
            self._engine.settle(live)
        return usable(live, default)

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
        instance = self._engine.describe(
            service, namespace, port, address=address, id_=id, weight=weight, zone=zone, metadata=metadata, state=state
        )
        enrolment, future = self._engine.enrol(instance)
        if wait:
            try:
                future.result(timeout)
            except FutureTimeout:
                self._engine.amend(enrolment, None)
                raise self._engine.unanswered(enrolment, timeout) from None
        return Registration(self._engine, enrolment)

    def gate(self, service: str, *, namespace: str | None = None) -> Gate:
        """Return what lets calls into a service that this process serves, as the ``server`` sections of its policies say.

        Does not wait: until a server told the policies, those of the disk snapshot hold. Raises MeshClosed.
        """
        return self._engine.gate(service, namespace)

    # Itself

    def status(self) -> Status:
        """Return where this process stands towards the mesh."""
        return self._engine.status()

    def set_load_source(self, load: LoadSource) -> None:
        """Have heartbeats and load reports say what ``load`` returns: CPU and memory, each 0 to 1, negative for unknown.

        Called at most once a second, also while a call is served: it must not block.
        """
        self._engine.set_load_source(load)

    def close(self, timeout: float = 5.0) -> None:
        """Leave the mesh: the session ends with all its instances. Stops every thread. Twice is once."""
        self._engine.close(timeout)

    def __enter__(self) -> Mesh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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

    def grpc_channel(self, service: str, **options: Any) -> Any:
        """Return a ``grpc.Channel`` to a service, for generated stubs. ``options``: see ``trimtab.grpc.blocking.channel``."""
        from trimtab.grpc.blocking import channel

        return channel(self, service, **options)

    def fastapi(self, service: str, *, port: int, drain: str | float = "5s", **options: Any) -> Any:
        """Return a FastAPI lifespan that registers, gets ready, and drains. Needs the extra ``trimtab[fastapi]``."""
        from trimtab.servers.fastapi import lifespan

        return lifespan(self, service, port=port, drain=drain, **options)
