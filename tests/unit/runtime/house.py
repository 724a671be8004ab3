"""Replicas of a control plane without their ports, over one memory store whose time and failures tests decide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from controlplane.core.change import Change, Write
from controlplane.core.guard import GuardSettings
from controlplane.core.model import Instance, Kind, Ref, Replica, ServiceName, SessionRecord, Stored
from controlplane.core.sessions import Session
from controlplane.core.view import View
from controlplane.errors import Code, TrimtabError
from controlplane.runtime.keeper import KeeperSettings, SessionKeeper
from controlplane.runtime.metrics import Metrics
from controlplane.runtime.operations import Operations
from controlplane.runtime.presence import Presence
from controlplane.runtime.reconciler import Reconciler
from controlplane.store.codec import Codec
from controlplane.store.ledger import Ledger
from controlplane.store.memory import MemoryStore
from controlplane.store.port import Outcome, Transaction

ORDERS = ServiceName("default", "orders")
SETTINGS = KeeperSettings(ttl=60.0, grace=0.15, window=0.6, adoption_grace=0.3, guard=GuardSettings(minimum=1000))


class Town(MemoryStore):
    """The one store. ``away``: nothing reaches it; ``lose_answers``: commits happen, and nobody hears of it."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self.away = False
        self.lose_answers = False
        self.commits = 0
        self.held: asyncio.Event | None = None
        super().__init__(lambda: time.monotonic() + self._ahead)

    def advance(self, seconds: float) -> None:
        """Let leases age."""
        self._ahead += seconds

    async def commit(self, transaction: Transaction) -> Outcome:
        self._reach()
        if self.held is not None:
            await self.held.wait()
        self._reach()
        outcome = await super().commit(transaction)
        self.commits += 1
        if self.lose_answers:
            raise TrimtabError(Code.STORE_TIMEOUT, "the answer was lost")
        return outcome

    async def get(self, key: str) -> Any:
        self._reach()
        return await super().get(key)

    async def grant(self, ttl: float) -> int:
        self._reach()
        return await super().grant(ttl)

    async def renew(self, leases: Any) -> dict[int, float]:
        self._reach()
        return await super().renew(leases)

    async def revoke(self, lease: int) -> None:
        self._reach()
        await super().revoke(lease)

    def list(self, prefix: str, *, page_size: int = 5000) -> Any:
        self._reach()
        return super().list(prefix, page_size=page_size)

    def _reach(self) -> None:
        if self.away:
            raise TrimtabError(Code.STORE_UNAVAILABLE, "the store is away")


@dataclass
class House:
    """One replica."""

    town: Town
    name: str
    settings: KeeperSettings = SETTINGS
    lost: list[int] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.town, Codec("test/mesh"))
        self.view = View()
        self.metrics = Metrics()
        self.reconciler = Reconciler(self.ledger, self.view, self.metrics, compare_interval=60.0)
        self.presence = Presence(self.ledger, self.name, ttl=30.0)
        self.keeper = SessionKeeper(self.ledger, self.view, self.presence, self.metrics, self.settings)
        self.operations = Operations(self.ledger, self.view, self.reconciler)
        self.reconciler.listen(self.keeper.stepped)

    @property
    def me(self) -> Replica:
        return Replica(self.name, f"{self.name}:1", f"{self.name}:2", "0", 0.0)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def live(self) -> None:
        """Follow the store and announce this replica."""
        self.run(self.reconciler.run())
        await self.reconciler.loaded.wait()
        self.run(self.presence.run(self.me))
        await until(lambda: self.presence.lease != 0)
        for loop in (self.keeper.reap(), self.keeper.renew(), self.keeper.adopt()):
            self.run(loop)

    async def die(self) -> None:
        """Stop as a killed process does: nothing is said."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError), result

    def record(self, node: str = "client") -> SessionRecord:
        return SessionRecord(node, "checkout", "default", self.name, self.settings.ttl)

    async def open(self) -> tuple[Session, str]:
        """A session of a client on this replica; its end is noted in ``lost``."""
        session, handle = await self.keeper.open(self.record(), lambda: self.lost.append(1))
        return session, handle

    async def resume(self, handle: str) -> Session:
        return await self.keeper.resume(handle, self.record(), lambda: self.lost.append(1))

    async def register(self, session: Session, *ids: str, service: str = "orders") -> None:
        for number, id in enumerate(ids):
            instance = Instance("default", service, id, "10.0.0.1", 8000 + number)
            await self.operations.register(instance, session=session.ref, lease=session.lease)

    async def stored(self, ref: Ref) -> Stored | None:
        return await self.ledger.read(ref)

    async def instances(self, service: str = "orders") -> set[str]:
        """What the store has, now."""
        _, records = await self.ledger.load()
        return {s.ref.path[2] for s in records if s.ref.kind is Kind.INSTANCE and s.ref.path[1] == service}

    async def sees(self, *ids: str) -> None:
        """Wait until this replica's view has exactly these orders."""
        await until(lambda: {listed.instance.id for listed in self.view.instances(ORDERS)} == set(ids))


@asynccontextmanager
async def town() -> AsyncIterator[tuple[Town, Callable[..., Awaitable[House]]]]:
    """A store, and a way to build living replicas on it; all die with the block."""
    store, houses = Town(), list[House]()

    async def build(name: str, settings: KeeperSettings = SETTINGS) -> House:
        house = House(store, name, settings)
        houses.append(house)
        await house.live()
        return house

    try:
        yield store, build
    finally:
        for house in houses:
            await house.die()
        await store.close()


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Poll until ``condition`` holds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


async def until_stored(house: House, ids: set[str], timeout: float = 10.0) -> None:
    """Poll until the store has exactly these orders."""
    async with asyncio.timeout(timeout):
        while await house.instances() != ids:
            await asyncio.sleep(0.01)


async def write(house: House, record: Any, ref: Ref, lease: int = 0) -> int:
    """Put a record past all decisions."""
    return (await house.ledger.commit(Change(write=(Write(ref, record, lease),)))).revision
