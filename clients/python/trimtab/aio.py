"""The mesh for asyncio: the same engine, awaited.

Nothing here blocks the loop: first uses, which may read the disk or resolve a name, happen in a worker thread; whatever
the stream answers comes in through ``call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload

from trimtab.calling.attempts import AttemptBlock, attempts_async, beginning
from trimtab.calling.context import deadline
from trimtab.calling.drive import Awaiting
from trimtab.calling.guard import blame
from trimtab.calling.keyed import arguments_of
from trimtab.calling.pick import Pick, picked
from trimtab.configs import MISSING, LiveConfig
from trimtab.core.endpoints import Endpoint, ServiceState
from trimtab.discovery import Callee, has_endpoint, is_settled
from trimtab.enrolment import State
from trimtab.hooks import Hooks
from trimtab.load_meter import LoadSource
from trimtab.mesh import Mesh, usable
from trimtab.registration import Standing
from trimtab.serving import InFlight
from trimtab.settings import Options
from trimtab.status import Status

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


async def _answer(future: Future[None], timeout: float) -> None:
    """Wait for the stream's thread. Raises TimeoutError, and whatever the future holds."""
    await asyncio.wait_for(asyncio.wrap_future(future), timeout)


class AsyncRegistration(Standing):
    """One registered instance, for asyncio. Errors and ``wait`` as with Registration."""

    async def ready(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Take calls from now on."""
        await self.update(state="serving", wait=wait, timeout=timeout)

    async def drain(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Get no new calls from now on; go on with those that are here."""
        await self.update(state="draining", wait=wait, timeout=timeout)

    async def unhealthy(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Say that the instance's own health check fails."""
        await self.update(state="unhealthy", wait=wait, timeout=timeout)

    async def update(
        self,
        *,
        weight: int | None = None,
        zone: str | None = None,
        metadata: Mapping[str, str] | None = None,
        state: State | None = None,
        wait: bool = True,
        timeout: float = 10.0,
    ) -> None:
        """Change what the instance reports of itself. None leaves a field as it is."""
        await self._await(self._change(weight, zone, metadata, state), wait, timeout)

    async def deregister(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Take the instance away. Does nothing when it is away, or the mesh closed."""
        await self._await(self._engine.amend(self._enrolment, None), wait, timeout)

    async def _await(self, future: Future[None], wait: bool, timeout: float) -> None:
        if not wait:
            return
        try:
            await _answer(future, timeout)
        except TimeoutError:
            raise self._engine.unanswered(self._enrolment, timeout) from None


class AsyncMesh:
    """``Mesh`` for asyncio: the same arguments, the same names, awaited where they wait.

    ``sync`` is the same mesh for threads. May be made outside a loop, and used from several.
    """

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        *,
        load: LoadSource | None = None,
        hooks: Sequence[Hooks] = (),
        **options: Unpack[Options],
    ) -> None:
        self.sync = Mesh(servers, load=load, hooks=hooks, **options)
        self._engine = self.sync._engine

    @property
    def namespace(self) -> str:
        """The namespace in which short names are meant."""
        return self.sync.namespace

    @property
    def closed(self) -> bool:
        """``close()`` was called."""
        return self.sync.closed

    @property
    def serving(self) -> InFlight:
        """The calls that this process is serving, for heartbeats."""
        return self.sync.serving

    @property
    def hooks(self) -> tuple[Hooks, ...]:
        """Who is told of calls, as it was given."""
        return self.sync.hooks

    @property
    def in_flight(self) -> tuple[int, int]:
        """Calls being served and calls being made, now."""
        return self.sync.in_flight

    # Calling

    async def pick(
        self, service: str, *, namespace: str | None = None, exclude: Collection[str] = (), key: object = None
    ) -> Pick:
        """Choose an endpoint for one call, as ``Mesh.pick`` does."""
        pipeline = (await self.callee(service, namespace)).pipeline("")
        call = pipeline.begin(
            pipeline.now(), deadline=deadline.get(), exclude=exclude, arguments=arguments_of(pipeline, key)
        )
        return await picked(pipeline, call, Awaiting())

    def known(self, service: str, namespace: str | None = None) -> Callee | None:
        """Return a service as calls see it when nothing has to be waited for, else None."""
        return self._engine.ready(service, namespace)

    async def callee(self, service: str, namespace: str | None = None) -> Callee:
        """Return a service as calls see it, after waiting for what there is to know of it. Raises MeshClosed."""
        callee = self._engine.ready(service, namespace)
        if callee is None:
            callee = await self._discover(service, namespace)
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
        """Make calls of a function calls to a service, as ``Mesh.guard`` does."""
        return self.sync.guard(
            service, method=method, namespace=namespace, fallback=fallback, idempotent=idempotent, ignore=ignore
        )

    async def attempts(
        self,
        service: str,
        *,
        method: str = "",
        namespace: str | None = None,
        idempotent: bool = False,
        ignore: tuple[type[BaseException], ...] = (),
        key: object = None,
    ) -> AsyncIterator[AttemptBlock]:
        """Yield an attempt at a time: ``async for attempt in …: with attempt as endpoint: …``. As ``Mesh.attempts``."""
        pipeline = (await self.callee(service, namespace)).pipeline(method)
        begin = beginning(pipeline, method, idempotent, key)
        async for attempt in attempts_async(pipeline, begin, lambda error: blame(error, ignore)):
            yield attempt

    async def endpoints(self, service: str, *, namespace: str | None = None) -> tuple[Endpoint, ...]:
        """Return all known endpoints, whatever their health."""
        return tuple((await self._discover(service, namespace)).state.endpoints.values())

    async def service(self, service: str, *, namespace: str | None = None) -> ServiceState:
        """Return all that is known of a service."""
        return (await self._discover(service, namespace)).state

    async def subscribe(self, *services: str) -> None:
        """Follow services from now on without waiting for an answer, so that their first call need not."""
        await asyncio.to_thread(self.sync.subscribe, *services)

    def unsubscribe(self, *services: str) -> None:
        """Follow services no longer. The next use of one discovers it again."""
        self.sync.unsubscribe(*services)

    async def watch(self, service: str) -> AsyncIterator[ServiceState]:
        """Yield what is known of a service, then the newest state after every change; what one is too slow for is left out."""
        callee = await asyncio.to_thread(self._engine.discover, service)
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        newest: list[ServiceState] = []

        def take(state: ServiceState) -> None:
            newest[:] = [state]
            changed.set()

        def offer(state: ServiceState) -> None:
            # Called by the stream's thread; a loop that is gone wants nothing.
            if not loop.is_closed():
                loop.call_soon_threadsafe(take, state)

        stop = callee.listen(offer)
        try:
            while True:
                await changed.wait()
                changed.clear()
                yield newest.pop()
        finally:
            stop()

    async def wait_ready(self, service: str, timeout: float = 10.0) -> None:
        """Wait until somebody can be called. Raises NoEndpoints after ``timeout`` seconds, MeshClosed."""
        callee = await asyncio.to_thread(self._engine.discover, service)
        try:
            await _answer(callee.when(has_endpoint), timeout)
        except TimeoutError:
            raise self._engine.no_endpoints(callee) from None

    async def _discover(self, service: str, namespace: str | None) -> Callee:
        callee = await asyncio.to_thread(self._engine.discover, service, namespace)
        if not callee.settled:
            try:
                await _answer(callee.when(is_settled), self._engine.settings.discovery_timeout)
            except TimeoutError:
                callee.settle()
        return callee

    # Configuration

    @overload
    async def config(self, name: str, model: type[T], *, default: Any = ...) -> LiveConfig[T]: ...
    @overload
    async def config(self, name: str, model: None = None, *, default: Any = ...) -> LiveConfig[Any]: ...
    async def config(self, name: str, model: Any = None, *, default: Any = MISSING) -> LiveConfig[Any]:
        """Return a live configuration value, as ``Mesh.config`` does."""
        live, future = await asyncio.to_thread(self._engine.config, name, model, default)
        try:
            await _answer(future, self._engine.settings.discovery_timeout)
        except TimeoutError:
            self._engine.settle(live)
        return usable(live, default)

    # Serving

    async def register(
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
    ) -> AsyncRegistration:
        """Register an instance, as ``Mesh.register`` does. Cancelling it takes the wish back."""
        engine = self._engine
        instance = await asyncio.to_thread(
            engine.describe,
            service,
            namespace,
            port,
            address=address,
            id_=id,
            weight=weight,
            zone=zone,
            metadata=metadata,
            state=state,
        )
        enrolment, future = engine.enrol(instance)
        if wait:
            try:
                await _answer(future, timeout)
            except TimeoutError:
                engine.amend(enrolment, None)
                raise engine.unanswered(enrolment, timeout) from None
            except asyncio.CancelledError:
                engine.amend(enrolment, None)
                raise
        return AsyncRegistration(engine, enrolment)

    # Itself

    def status(self) -> Status:
        """Return where this process stands towards the mesh."""
        return self.sync.status()

    def set_load_source(self, load: LoadSource) -> None:
        """Have heartbeats and load reports say what ``load`` returns: CPU and memory, each 0 to 1, negative for unknown.

        Called at most once a second, also while a call is served: it must not block.
        """
        self.sync.set_load_source(load)

    async def close(self, timeout: float = 5.0) -> None:
        """Leave the mesh: the session ends with all its instances. Stops every thread. Twice is once."""
        await asyncio.to_thread(self.sync.close, timeout)

    async def __aenter__(self) -> AsyncMesh:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Integrations, imported when asked for

    def http_client(self, **options: Any) -> Any:
        """Return an ``httpx.AsyncClient`` that understands ``mesh://SERVICE/path``. Needs the extra ``trimtab[httpx]``."""
        from trimtab.http.httpx import async_client

        return async_client(self, **options)

    def grpc_channel(self, service: str, **options: Any) -> Any:
        """Return a ``grpc.aio.Channel`` to a service, for generated stubs. ``options``: see ``trimtab.grpc.awaiting.channel``."""
        from trimtab.grpc.awaiting import channel

        return channel(self, service, **options)

    def aiohttp_session(self, **options: Any) -> Any:
        """Return an ``aiohttp.ClientSession`` that understands ``mesh://SERVICE/path``. Needs the extra ``trimtab[aiohttp]``."""
        from trimtab.http.aiohttp import session

        return session(self, **options)

    def fastapi(self, service: str, *, port: int, drain: str | float = "5s", **options: Any) -> Any:
        """Return a FastAPI lifespan that registers, gets ready, and drains. Needs the extra ``trimtab[fastapi]``."""
        from trimtab.servers.fastapi import lifespan

        return lifespan(self, service, port=port, drain=drain, **options)
