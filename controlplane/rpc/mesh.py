"""The mesh stream's service: everything that its streams share, and what is done to all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from trimtab.v1 import mesh_pb2

from controlplane.core.view import View
from controlplane.errors import Code, TrimtabError
from controlplane.rpc import convert
from controlplane.rpc.encoder import Encoder
from controlplane.rpc.failure import aborted
from controlplane.rpc.stream import Stream
from controlplane.runtime.backoff import Backoff
from controlplane.runtime.clients import Clients
from controlplane.runtime.keeper import SessionKeeper
from controlplane.runtime.metrics import Metrics
from controlplane.runtime.operations import Operations
from controlplane.runtime.pusher import Pusher
from controlplane.runtime.readiness import Readiness
from controlplane.transport.call import Call

log = logging.getLogger(__name__)

METHOD = "trimtab.v1.Mesh"
_SWEEP = 1.0
_AT_ONCE = 500  # streams looked at in one turn of the loop: some milliseconds


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of a stream; their meaning is told in ``controlplane.settings``. Times in seconds."""

    heartbeat_interval: float
    heartbeat_window: float
    grace: float
    session_ttl: float
    write_deadline: float
    max_subscriptions: int
    flood_rate: float
    flood_burst: int
    drain_spread: float


@dataclass(eq=False)
class MeshService:
    """Serves ``trimtab.v1.Mesh``."""

    replica: str
    version: str
    view: View
    operations: Operations
    keeper: SessionKeeper
    pusher: Pusher
    clients: Clients
    readiness: Readiness
    metrics: Metrics
    limits: StreamLimits
    store_revision: Callable[[], Awaitable[int]]
    backoff: Callable[[], Backoff] = Backoff

    def __post_init__(self) -> None:
        self.encoder = Encoder(self.view)
        self.going_away = False
        self.followed = 0  # subscriptions of all streams, counted along: a scrape's thread must not walk what changes
        self._streams: set[Stream] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.metrics.streams.set_function(lambda: len(self._streams))
        self.metrics.subscriptions.set_function(lambda: self.followed)
        self.welcome = convert.server_message(
            welcome=mesh_pb2.Welcome(
                replica=self.replica,
                server_version=self.version,
                heartbeat_interval=convert.duration(self.limits.heartbeat_interval),
                heartbeat_window=convert.duration(self.limits.heartbeat_window),
                grace=convert.duration(self.limits.grace),
                max_subscriptions=self.limits.max_subscriptions,
            )
        )

    def connect(self, call: Call) -> None:
        """Serve a client, by callbacks. Raises Aborted when this replica knows nothing yet."""
        if not self.readiness.started:
            reasons = "; ".join(self.readiness.reasons)
            raise aborted(self.refusal(TrimtabError(Code.NOT_READY, reasons, hint="try another replica, or again")))
        stream = Stream(self, call)
        self._streams.add(stream)
        self._empty.clear()
        self.clients.add(stream)
        stream.open()

    def left(self, stream: Stream) -> None:
        """A stream has ended."""
        self._streams.discard(stream)
        if not self._streams:
            self._empty.set()
        self.clients.remove(stream)

    def refusal(self, error: TrimtabError) -> TrimtabError:
        """Count the error that ends a stream."""
        self.metrics.refused.labels(error.code.code).inc()
        return error

    async def sweep(self) -> None:
        """Cut off clients that do not say Hello, do not read, do not answer deltas, or are silent, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP)
            await self._rewind()
            for number, stream in enumerate(tuple(self._streams)):
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
                stream.check(loop.time())

    async def go_away(self, reason: str) -> None:
        """Send every client to another replica, spread over time; return when they have left or the time is up."""
        self.going_away = True
        spread = self.limits.drain_spread
        for stream in list(self._streams):
            stream.go_away(reason, spread=spread, deadline=spread + 1)
        with contextlib.suppress(TimeoutError):  # those that stay are cut off with the server
            await asyncio.wait_for(self._empty.wait(), spread + 1)

    async def _rewind(self) -> None:
        """Clients ahead of the view wait for it, unless the store itself went back: then their history is void."""
        ahead = [stream for stream in self.pusher.waiting if stream.subscriptions.ahead(self.view.revision)]
        if not ahead:
            return
        try:
            revision = await self.store_revision()
        except TrimtabError as error:
            log.warning("%d clients are ahead of the view, and the store does not answer: %s", len(ahead), error)
            return
        for stream in ahead:
            stream.subscriptions.rewind(revision)
            stream.wake()
