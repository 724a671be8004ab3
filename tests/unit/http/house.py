"""A whole admin API over a memory store: nothing is faked but the store and the peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx
import pytest
from fastapi import FastAPI

from controlplane.core.change import Change, Write
from controlplane.core.model import Instance, InstanceState, Kind, Protection, Ref
from controlplane.core.resource import ResourceName
from controlplane.core.view import View
from controlplane.http.api import build_http
from controlplane.runtime.breakers import BreakerInfo
from controlplane.runtime.clients import ClientInfo, Clients, Load
from controlplane.runtime.metrics import Metrics
from controlplane.runtime.operations import Operations
from controlplane.runtime.readiness import Readiness
from controlplane.runtime.reconciler import Reconciler
from controlplane.runtime.reported import ReportFilter
from controlplane.runtime.traffic import Traffic
from controlplane.store.codec import Codec
from controlplane.store.ledger import Ledger
from controlplane.store.memory import MemoryStore
from controlplane.store.port import Delete, Transaction

PREFIX = "trimtab/test"


@dataclass(eq=False)
class Stream:
    """A connected client."""

    client: ClientInfo
    circuits: tuple[BreakerInfo, ...] = ()
    calls: tuple[Traffic, ...] = ()

    def info(self, following: Collection[ResourceName] = ()) -> ClientInfo:
        asked = tuple((name, behind) for name, behind in self.client.followed if name in following)
        return replace(self.client, followed=asked)

    def breakers(self, wanted: ReportFilter) -> Iterator[BreakerInfo]:
        return (one for one in self.circuits if wanted.callee(one.namespace, one.service))

    def traffic(self, wanted: ReportFilter) -> Iterator[Traffic]:
        return (one for one in self.calls if wanted.callee(one.namespace, one.service))


class NoPeers:
    """No other replica ever answers."""

    async def clients(self, address: str, following: Collection[ResourceName]) -> list[ClientInfo]:
        raise TimeoutError(address)

    async def breakers(self, address: str, wanted: ReportFilter) -> tuple[list[BreakerInfo], int]:
        raise TimeoutError(address)

    async def traffic(self, address: str, wanted: ReportFilter, by_caller: bool) -> tuple[list[Traffic], int]:
        raise TimeoutError(address)


@dataclass
class House:
    """One replica and what its tests reach into."""

    ledger: Ledger
    view: View
    reconciler: Reconciler
    clients: Clients
    readiness: Readiness
    metrics: Metrics
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self, *, token: str | None = None) -> FastAPI:
        return build_http(
            view=self.view,
            operations=Operations(self.ledger, self.view, self.reconciler),
            clients=self.clients,
            readiness=self.readiness,
            reconciler=self.reconciler,
            registry=self.metrics.registry,
            stopping=self.stopping,
            token=token,
        )

    def http(self, *, token: str | None = None, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app(token=token))
        return httpx.AsyncClient(transport=transport, base_url="http://trimtab.test", headers=headers)

    async def register(
        self, service: str = "orders", id: str = "a", *, namespace: str = "default", **reported: object
    ) -> None:
        defaults: dict[str, object] = {"address": "10.0.0.7", "port": 8000, "zone": "z1"}
        instance = Instance(namespace, service, id, **(defaults | reported))  # type: ignore[arg-type]
        lease = await self.ledger.store.grant(60)
        await self.write(Write(instance.ref, instance, lease))

    async def protect(self, service: str, *suspects: str) -> None:
        ref = Ref(Kind.PROTECTION, ("default", service, "r1"))
        await self.write(Write(ref, Protection("r1", suspects, "3 of 4 sessions broke at once")))

    async def empty(self) -> None:
        """Forget everything and everybody."""
        outcome = await self.ledger.store.commit(
            Transaction(then=(Delete(self.ledger.codec.live_prefix, prefix=True),))
        )
        await self.reconciler.wait_for(outcome.revision)
        for stream in list(self.clients._streams):
            self.clients.remove(stream)
        self.readiness.started = True

    async def write(self, write: Write) -> None:
        result = await self.ledger.commit(Change(write=(write,)))
        await self.reconciler.wait_for(result.revision)


def client_info(node: str, **known: object) -> ClientInfo:
    defaults: dict[str, object] = {
        "name": "checkout", "namespace": "default", "sdk": "trimtab-python/0.1.0", "host": "h", "pid": 7, "zone": "z1",
        "peer": "127.0.0.1:4711", "replica": "r1", "session": "5f", "connected_at": 1.0, "last_heartbeat_age": 0.5,
        "subscriptions": 2, "acked": 40, "behind": False, "nacks": (), "load": Load(0.25, -1.0, 3, 4),
    }  # fmt: skip
    return ClientInfo(node, **(defaults | known))  # type: ignore[arg-type]


@pytest.fixture
def connected(house: House) -> Callable[..., None]:
    def connect(node: str, *circuits: BreakerInfo, calls: tuple[Traffic, ...] = (), **known: object) -> None:
        house.clients.add(Stream(client_info(node, **known), circuits, calls))

    return connect


@asynccontextmanager
async def open_house() -> AsyncIterator[House]:
    """A replica without its ports, following a memory store."""
    view, metrics, readiness = View(), Metrics(), Readiness()
    ledger = Ledger(MemoryStore(), Codec(PREFIX))
    reconciler = Reconciler(ledger, view, metrics, compare_interval=60)

    house = House(ledger, view, reconciler, Clients(view, "r1", NoPeers()), readiness, metrics)
    running = asyncio.create_task(reconciler.run())
    async with asyncio.timeout(5):
        await reconciler.loaded.wait()
    readiness.started = True
    yield house
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened


@pytest.fixture
async def api(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with house.http(headers={"Trimtab-Actor": "ana@desk"}) as client:
        yield client


@pytest.fixture
async def orders(house: House) -> House:
    """Two healthy instances, and one that is still starting."""
    await house.register(id="a")
    await house.register(id="b", address="10.0.0.8", weight=50)
    await house.register(id="c", address="10.0.0.9", state=InstanceState.STARTING)
    return house
