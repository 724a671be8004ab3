"""A write whose answer is lost may have happened: it is never made twice, and never called undone when it was done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from controlplane.errors import Code, TrimtabError
from controlplane.store.embedded import EmbeddedEtcd
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.port import Compare, Delete, KeyValue, Operator, Outcome, Put, Target, Transaction
from tests.support.link import Link


@pytest.fixture
async def link(etcd: EmbeddedEtcd) -> AsyncIterator[Link]:
    async with Link(etcd.endpoint) as link:
        yield link


@pytest.fixture
async def store(link: Link) -> AsyncIterator[EtcdStore]:
    """A store whose answers can be lost on the way, already connected."""
    store = EtcdStore(EtcdOptions((link.endpoint,), timeout=10))
    await store.status()
    yield store
    await store.close()


@pytest.fixture
async def direct(etcd: EmbeddedEtcd) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(EtcdOptions((etcd.endpoint,)))
    yield store
    await store.close()


async def until_written(direct: EtcdStore, key: str) -> KeyValue:
    async with asyncio.timeout(20):
        while (found := await direct.get(key)) is None:
            await asyncio.sleep(0.01)
    return found


async def until_gone(direct: EtcdStore, key: str) -> None:
    async with asyncio.timeout(20):
        while await direct.get(key) is not None:
            await asyncio.sleep(0.01)


def create(key: str, value: bytes = b"v", lease: int = 0) -> Transaction:
    return Transaction((Compare(key, Target.CREATE_REVISION, Operator.EQUAL, 0),), (Put(key, value, lease),))


async def test_a_create_whose_answer_was_lost_is_told_with_the_revision_at_which_it_happened(
    store: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    lease = await direct.grant(60)
    link.mute()
    commit = asyncio.create_task(store.commit(create(mesh_prefix, lease=lease)))
    written = await until_written(direct, mesh_prefix)
    await direct.commit(Transaction(then=(Put(f"{mesh_prefix}/later", b""),)))
    link.cut()
    assert await commit == Outcome(True, written.mod_revision, {})
    assert await direct.get(mesh_prefix) == written


async def test_an_update_whose_answer_was_lost_is_made_once(
    store: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    before = (await direct.commit(create(mesh_prefix, b"old"))).revision
    update = Transaction(
        (Compare(mesh_prefix, Target.MOD_REVISION, Operator.EQUAL, before),),
        (Put(mesh_prefix, b"new"), Put(f"{mesh_prefix}/beside", b"")),
    )
    link.mute()
    commit = asyncio.create_task(store.commit(update))
    beside = await until_written(direct, f"{mesh_prefix}/beside")
    link.cut()
    assert (await commit).revision == beside.mod_revision
    assert await direct.get(mesh_prefix) == KeyValue(mesh_prefix, b"new", before, beside.mod_revision)


async def test_a_guarded_removal_whose_answer_was_lost_is_done(
    store: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    before = (await direct.commit(create(mesh_prefix))).revision
    link.mute()
    guard = Compare(mesh_prefix, Target.MOD_REVISION, Operator.EQUAL, before)
    commit = asyncio.create_task(store.commit(Transaction((guard,), (Delete(mesh_prefix),))))
    await until_gone(direct, mesh_prefix)
    link.cut()
    assert (await commit).succeeded


async def test_a_write_without_a_guard_is_not_repeated_and_nobody_claims_to_know(
    store: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    link.mute()
    commit = asyncio.create_task(store.commit(Transaction(then=(Put(mesh_prefix, b"v"),))))
    written = await until_written(direct, mesh_prefix)
    link.cut()
    with pytest.raises(TrimtabError, match="may or may not") as unknown:
        await commit
    assert unknown.value.code is Code.STORE_TIMEOUT
    assert await direct.get(mesh_prefix) == written


async def test_a_guard_that_the_write_does_not_spend_is_none(
    store: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    session = (await direct.commit(create(f"{mesh_prefix}/session"))).revision
    guard = Compare(f"{mesh_prefix}/session", Target.MOD_REVISION, Operator.EQUAL, session)
    link.mute()
    commit = asyncio.create_task(store.commit(Transaction((guard,), (Put(mesh_prefix, b"v"),))))
    written = await until_written(direct, mesh_prefix)
    link.cut()
    with pytest.raises(TrimtabError) as unknown:
        await commit
    assert unknown.value.code is Code.STORE_TIMEOUT
    assert await direct.get(mesh_prefix) == written


async def test_a_create_that_another_has_overwritten_since_is_called_unknown(
    store: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    link.mute()
    commit = asyncio.create_task(store.commit(create(mesh_prefix, b"ours")))
    await until_written(direct, mesh_prefix)
    theirs = (await direct.commit(Transaction(then=(Put(mesh_prefix, b"theirs"),)))).revision
    link.cut()
    with pytest.raises(TrimtabError) as unknown:
        await commit
    assert unknown.value.code is Code.STORE_TIMEOUT
    found = await direct.get(mesh_prefix)
    assert found is not None
    assert (found.value, found.mod_revision) == (b"theirs", theirs)


async def test_a_write_that_never_left_is_made_when_the_way_is_free_again(
    direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    link.refusing = True
    store = EtcdStore(EtcdOptions((link.endpoint,), timeout=10))
    commit = asyncio.create_task(store.commit(Transaction(then=(Put(mesh_prefix, b"v"),))))
    async with asyncio.timeout(20):
        while link.connections < 2:
            await asyncio.sleep(0.01)
    assert not commit.done()
    link.refusing = False
    outcome = await commit
    found = await direct.get(mesh_prefix)
    assert found is not None
    assert (outcome.succeeded, outcome.revision) == (True, found.mod_revision)
    await store.close()


async def test_reads_are_repeated_freely(store: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str) -> None:
    await direct.commit(create(mesh_prefix))
    link.mute()
    read = asyncio.create_task(store.get(mesh_prefix))
    await asyncio.sleep(0.1)
    link.cut()
    assert await read == await direct.get(mesh_prefix)


async def test_a_lease_whose_grant_was_lost_is_granted_once(store: EtcdStore, direct: EtcdStore, link: Link) -> None:
    link.mute()
    grant = asyncio.create_task(store.grant(60))
    await asyncio.sleep(0.2)
    link.cut()
    lease = await grant
    assert await direct.renew([lease]) == {lease: 60.0}


async def test_renewals_go_on_where_the_stream_broke(store: EtcdStore, direct: EtcdStore, link: Link) -> None:
    leases = [await direct.grant(60) for _ in range(20)]
    link.mute()
    renewal = asyncio.create_task(store.renew(leases))
    await asyncio.sleep(0.2)
    link.cut()
    assert await renewal == dict.fromkeys(leases, 60.0)


async def test_closing_the_store_ends_what_is_under_way(
    store: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    link.mute()
    read = asyncio.create_task(store.get(mesh_prefix))
    write = asyncio.create_task(store.commit(create(mesh_prefix)))
    renewal = asyncio.create_task(store.renew([1, 2]))
    await until_written(direct, mesh_prefix)
    await store.close()
    codes = []
    for task in (read, write, renewal):
        with pytest.raises(TrimtabError) as ended:
            await asyncio.wait_for(task, 20)
        codes.append(ended.value.code)
    assert codes == [Code.STORE_UNAVAILABLE, Code.STORE_TIMEOUT, Code.STORE_UNAVAILABLE]


async def test_who_gives_up_waiting_is_cancelled_and_the_store_goes_on(
    store: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    link.mute()
    for call in (store.get(mesh_prefix), store.renew([1]), anext(aiter(store.watch(mesh_prefix, after=0)))):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await call
    link.cut()
    assert await store.get(mesh_prefix) is None
