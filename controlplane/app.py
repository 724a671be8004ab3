"""The composition root: builds a replica, owns its tasks by name, and takes it down in good order."""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import socket
import ssl
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import grpc

from controlplane import __version__
from controlplane.core.guard import GuardSettings
from controlplane.core.model import Replica
from controlplane.core.view import View
from controlplane.errors import TrimtabError
from controlplane.http.server import HttpServer
from controlplane.rpc.admin import AdminService, Peers
from controlplane.rpc.mesh import MeshService, StreamLimits
from controlplane.rpc.registry import RegistryService
from controlplane.rpc.server import RpcServer, server_tls
from controlplane.runtime.clients import Clients
from controlplane.runtime.keeper import KeeperSettings, SessionKeeper
from controlplane.runtime.metrics import Metrics
from controlplane.runtime.operations import Operations
from controlplane.runtime.presence import Presence
from controlplane.runtime.pusher import Pusher
from controlplane.runtime.readiness import Readiness
from controlplane.runtime.reconciler import Reconciler
from controlplane.settings import Settings
from controlplane.store.codec import Codec
from controlplane.store.ledger import Ledger
from controlplane.store.port import Store

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

KEY_PREFIX = "trimtab"


class ControlPlane:
    """One replica over a store that is already open. ``start`` returns when both ports listen; ``stop`` loses nothing."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.replica = f"{settings.replica or 'replica'}-{secrets.token_hex(4)}"
        self.metrics = Metrics()
        self.view = View()
        self.readiness = Readiness()
        self._ledger = Ledger(store, Codec(f"/{KEY_PREFIX}/{settings.mesh}"))
        self.reconciler = Reconciler(self._ledger, self.view, self.metrics, compare_interval=settings.compare_interval)
        self.pusher = Pusher(quiet=settings.debounce_quiet, limit=settings.debounce_limit)
        self.operations = Operations(self._ledger, self.view, self.reconciler)
        self._token = settings.token.get_secret_value() if settings.token else None
        self._peers = Peers(token=self._token, credentials=_peer_credentials(settings))
        self.clients = Clients(self.view, self.replica, self._peers)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self.ready = asyncio.Event()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Bind both ports, announce this replica, and follow the store. Raises SETTINGS when a port is taken."""
        settings = self.settings
        self._presence = Presence(self._ledger, self.replica, ttl=settings.replica_ttl)
        keeper = SessionKeeper(self._ledger, self.view, self._presence, self.metrics, self._keeper_settings())
        self._mesh = self._build_mesh(keeper)
        self._http = HttpServer(settings.http_address, settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        self._rpc = RpcServer(
            settings.grpc_address,
            mesh=self._mesh,
            registry=RegistryService(self.view, self.operations, keeper, default_ttl=settings.session_ttl),
            admin=AdminService(self.clients),
            token=self._token,
            tls=_server_tls(settings),
        )
        self.reconciler.listen(self.pusher.stepped)
        self.reconciler.listen(keeper.stepped)
        await self._rpc.serving(False)
        await self._rpc.start()
        self._run("serve HTTP", self._serve_http())
        self._run("reconcile", self.reconciler.run())
        self._run("push", self.pusher.run())
        self._run("announce", self._presence.run(self._describe()))
        self._run("reap sessions", keeper.reap())
        self._run("renew sessions", keeper.renew())
        self._run("sweep streams", self._mesh.sweep())
        self._run("compare", self.reconciler.compare())
        self._run("become ready", self._become_ready(keeper))

    async def stop(self) -> None:
        """Stop being ready, send clients to other replicas, then go. Sessions stay on their leases."""
        self.readiness.stopping = True
        log.info("stopping: clients are sent to other replicas")
        await self._rpc.serving(False)
        await self._mesh.go_away("shutting down")
        await self._rpc.stop(0.5)
        self._stopping.set()
        self._http.stop()
        http = self._tasks.pop("serve HTTP")
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(http, *self._tasks.values(), return_exceptions=True)
        try:
            await self._presence.withdraw()
        except TrimtabError as error:
            log.warning("this replica could not take its record down, its lease will: %s", error)
        await self._peers.close()

    @property
    def grpc_address(self) -> str:
        """Where clients connect."""
        return f"{_host(self.settings.grpc_address)}:{self._rpc.port}"

    @property
    def http_address(self) -> str:
        """Where admins connect."""
        return f"{_host(self.settings.http_address)}:{self._http.port}"

    async def _serve_http(self) -> None:
        # FastAPI is half of all that a start imports: a thread does it while the store is listed, and clients are let in
        # before it is done. Who asks over HTTP meanwhile waits in the socket's queue.
        await self._http.serve(await asyncio.to_thread(self._build_http))

    def _build_http(self) -> FastAPI:
        from controlplane.http.api import build_http

        return build_http(
            view=self.view,
            operations=self.operations,
            clients=self.clients,
            readiness=self.readiness,
            reconciler=self.reconciler,
            registry=self.metrics.registry,
            stopping=self._stopping,
            token=self._token,
        )

    async def _become_ready(self, keeper: SessionKeeper) -> None:
        await self.reconciler.loaded.wait()
        self.readiness.started = True
        await self._rpc.serving(True)
        await self._http.answering.wait()
        # What exists now lives long: the collector need not walk it again and again (half the cost of a push at 5,000 streams).
        # Not collected first: a start leaves next to no cyclic garbage, and to look for it among 10,000 instances takes 0.1 s.
        gc.freeze()
        self.ready.set()
        log.info("ready: gRPC on %s, HTTP on %s", self.grpc_address, self.http_address)
        await keeper.adopt()

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks[name] = task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """No task of a replica ends by itself: one that does takes the replica down, loudly."""
        if task.cancelled() or self.failed.done() or self.readiness.stopping:
            return
        error = task.exception() or RuntimeError("ended without a reason")
        log.critical("task %r failed", task.get_name(), exc_info=error)
        self.failed.set_exception(error)

    def _describe(self) -> Replica:
        def reachable(address: str) -> str:
            host, _, port = address.rpartition(":")
            everywhere = host in {"0.0.0.0", "[::]"}  # noqa: S104 - compared, not bound
            return f"{self.settings.advertise or (socket.gethostname() if everywhere else host)}:{port}"

        grpc_address, http_address = reachable(self.grpc_address), reachable(self.http_address)
        return Replica(self.replica, grpc_address, http_address, __version__, time.time())

    def _keeper_settings(self) -> KeeperSettings:
        s = self.settings
        guard = GuardSettings(share=s.guard_share, minimum=s.guard_minimum, hold=s.guard_hold)
        return KeeperSettings(s.session_ttl, s.grace, s.heartbeat_window, s.adoption_grace, guard)

    def _build_mesh(self, keeper: SessionKeeper) -> MeshService:
        s = self.settings
        limits = StreamLimits(
            heartbeat_interval=s.heartbeat_interval,
            heartbeat_window=s.heartbeat_window,
            grace=s.grace,
            session_ttl=s.session_ttl,
            write_deadline=s.write_deadline,
            max_subscriptions=s.max_subscriptions,
            flood_rate=s.flood_rate,
            flood_burst=s.flood_burst,
            drain_spread=s.drain_spread,
        )
        return MeshService(
            replica=self.replica,
            version=__version__,
            view=self.view,
            operations=self.operations,
            keeper=keeper,
            pusher=self.pusher,
            clients=self.clients,
            readiness=self.readiness,
            metrics=self.metrics,
            limits=limits,
            store_revision=self.reconciler.store_revision,
        )


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _server_tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return server_tls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def _peer_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """Replicas trust the authority of their clients, else their own certificate, and show their own."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    roots = (settings.tls_client_ca or settings.tls_cert).read_bytes()
    return grpc.ssl_channel_credentials(roots, settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
