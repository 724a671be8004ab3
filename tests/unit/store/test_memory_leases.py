"""Leases of the store in memory follow the clock that they were given."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from controlplane.store.memory import MemoryStore
from controlplane.store.port import Put, Transaction


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_lease_ends_when_its_clock_says_so() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    lease = await store.grant(1.5)
    await store.commit(Transaction(then=(Put("a", b"", lease),)))
    clock.now += 1.9
    assert store.expire() == ()
    clock.now += 0.1
    assert store.expire() == (lease,)
    assert await store.get("a") is None


async def test_a_renewed_lease_has_all_its_time_again() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    lease = await store.grant(10)
    clock.now += 9
    assert await store.renew([lease]) == {lease: 10.0}
    clock.now += 9
    assert store.expire() == ()
    clock.now += 1
    assert await store.renew([lease]) == {lease: 0.0}


async def test_a_waiting_watch_notices_the_end_of_a_lease_by_itself() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    lease = await store.grant(10)
    written = (await store.commit(Transaction(then=(Put("a", b"", lease),)))).revision
    async with aclosing(store.watch("a", after=written)) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        clock.now += 10
        batch = await asyncio.wait_for(waiting, 20)
    assert [(event.key, event.value) for event in batch.events] == [("a", None)]
