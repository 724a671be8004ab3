"""The view is what the store is: after gaps, compaction, outages, and even after a mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from controlplane.core.model import ConfigFile, Event, Instance, Kind, Ref
from controlplane.core.resource import ResourceKind, ResourceName
from controlplane.errors import Code, TrimtabError
from controlplane.runtime.reconciler import Reconciler
from controlplane.store.port import Put, Transaction
from tests.unit.core.nouns import put
from tests.unit.runtime.house import House, Town, until, write

Build = Callable[..., Awaitable[House]]
A = Instance("default", "orders", "a", "10.0.0.1", 8000)
CONFIG = Ref(Kind.CONFIG, ("default", "orders", "app"))


async def truth(house: House) -> dict[Ref, object]:
    return {stored.ref: stored for stored in (await house.ledger.load())[1]}


def held(house: House) -> dict[Ref, object]:
    return {stored.ref: stored for stored in house.view.records()}


async def test_every_write_reaches_the_view_in_order(house: House) -> None:
    steps: list[int] = []
    house.reconciler.listen(lambda revision, names, events: steps.append(revision))
    for content in (b"1", b"2", b"3"):
        last = await write(house, ConfigFile("text", content), CONFIG)
    await house.reconciler.wait_for(last)
    assert held(house) == await truth(house)
    assert steps == sorted(steps)


async def test_a_gap_that_was_compacted_is_closed_by_a_listing(house: House, store: Town) -> None:
    await write(house, A, A.ref)
    await house.sees("a")
    store.away = True
    await store.compact((await store.status()).revision)
    # The watch is made to start over while history is gone.
    house.reconciler._resync.set()
    await until(lambda: not house.reconciler.connected)
    store.away = False
    await until(lambda: house.reconciler.connected)
    last = await write(house, ConfigFile("text", b"1"), CONFIG)
    await house.reconciler.wait_for(last)
    assert held(house) == await truth(house)


async def test_the_last_view_is_served_while_the_store_is_away(house: House, store: Town) -> None:
    await write(house, A, A.ref)
    await house.sees("a")
    store.away = True
    house.reconciler._resync.set()
    await until(lambda: not house.reconciler.connected)
    assert [listed.instance for listed in house.view.instances(A.name)] == [A]
    store.away = False
    await until(lambda: house.reconciler.connected)
    assert house.metrics.store_failures.labels("store.unavailable")._value.get() >= 1


@pytest.mark.parametrize("mistake", ["lost", "invented", "altered"])
async def test_a_view_that_differs_from_the_store_is_found_out_and_mended(build: Build, mistake: str) -> None:
    house = await build("one")
    reconciler = Reconciler(house.ledger, house.view, house.metrics, compare_interval=0.05)
    await house.die()
    house.run(reconciler.run())
    await until(lambda: reconciler.connected)
    last = await write(house, A, A.ref)
    await reconciler.wait_for(last)
    other = Instance("default", "orders", "b", "10.0.0.2", 8000)
    match mistake:
        case "lost":
            house.view.apply(last, [Event(A.ref, None, last)])
        case "invented":
            house.view.apply(last, [put(other, other.ref, last)])
        case "altered":
            wrong = Instance("default", "orders", "a", "10.9.9.9", 8000)
            house.view.apply(last, [put(wrong, A.ref, last)])
    changed: list[ResourceName] = []
    reconciler.listen(lambda revision, names, events: changed.extend(names))
    house.run(reconciler.compare())
    # The comparison gives the watch its time to catch up before it believes that anything is wrong.
    await until(lambda: house.metrics.resyncs.labels("compare")._value.get() >= 1, timeout=30)
    assert held(house) == await truth(house)
    assert ResourceName(ResourceKind.ENDPOINTS, "default/orders") in changed


async def test_a_view_that_is_right_is_left_alone(house: House) -> None:
    for number in range(20):
        await write(house, ConfigFile("text", bytes([number])), CONFIG)
        assert await house.reconciler._differs() is False


async def test_waiting_for_a_revision_ends_when_the_view_has_it(house: House) -> None:
    revision = house.view.revision
    await house.reconciler.wait_for(revision)
    waits = [asyncio.create_task(house.reconciler.wait_for(revision + ahead)) for ahead in (3, 1, 2)]
    await asyncio.sleep(0)
    await write(house, ConfigFile("text", b"1"), CONFIG)
    await waits[1]
    assert not waits[0].done()
    for content in (b"2", b"3"):
        await write(house, ConfigFile("text", content), CONFIG)
    await asyncio.wait_for(asyncio.gather(*waits), 5)


async def test_waiting_for_a_revision_that_does_not_come_is_bounded(house: House) -> None:
    with pytest.raises(TrimtabError) as caught:
        await house.reconciler.wait_for(house.view.revision + 1000, timeout=0.05)
    assert caught.value.code is Code.STORE_TIMEOUT
    assert "the write is safe" in caught.value.hint


async def test_an_unreadable_record_takes_nothing_else_down(house: House, store: Town) -> None:
    key = house.ledger.codec.key(A.ref)
    await store.commit(Transaction(then=(Put(key, b"\xff not a record"),)))
    last = await write(house, ConfigFile("text", b"1"), CONFIG)
    await house.reconciler.wait_for(last)
    assert house.view.config("default", "orders", "app") is not None
    assert house.view.record(A.ref) is None
