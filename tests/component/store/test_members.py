"""A cluster of three: members die, freeze and lose their quorum, and nobody who asks or watches loses anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from controlplane.errors import Code, TrimtabError
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.etcd import rpc_pb2 as pb
from controlplane.store.etcd.endpoint import STATUS, Endpoint
from controlplane.store.etcd.failure import CallFailed
from controlplane.store.port import Compare, Operator, Put, Target, Transaction, WatchEvent
from tests.support.etcd import Member, cluster


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[list[Member]]:
    members = cluster(tmp_path)
    try:
        for member in members:
            member.start()
        for member in members:
            await member.listening()
        await leader_of(members)
        yield members
    finally:
        for member in members:
            member.stop()


def options(members: list[Member], **changes: float) -> EtcdOptions:
    return EtcdOptions(tuple(member.endpoint for member in members), timeout=changes.get("timeout", 10.0), silence=2.0)


async def leader_of(members: list[Member]) -> Member:
    endpoints = [Endpoint(member.endpoint, EtcdOptions((member.endpoint,)), None) for member in members]
    async with asyncio.timeout(30):
        while True:
            for member, endpoint in zip(members, endpoints, strict=True):
                # A member that has not found the others yet does not serve.
                with suppress(CallFailed):
                    status = await endpoint.call(STATUS, pb.StatusRequest(), timeout=5)
                    if status.leader and status.leader == status.header.member_id:
                        await asyncio.gather(*(endpoint.close() for endpoint in endpoints))
                        return member
            await asyncio.sleep(0.02)


def create(key: str) -> Transaction:
    return Transaction((Compare(key, Target.CREATE_REVISION, Operator.EQUAL, 0),), (Put(key, b""),))


async def write(store: EtcdStore, key: str, until: asyncio.Event) -> list[tuple[int, str]]:
    """Create numbered keys as long as wanted; what was acknowledged, as (revision, key)."""
    acknowledged = []
    number = 0
    while not until.is_set():
        number += 1
        try:
            outcome = await store.commit(create(f"{key}/{number}"))
        except TrimtabError as error:
            assert error.code.retryable, error
        else:
            assert outcome.succeeded
            acknowledged.append((outcome.revision, f"{key}/{number}"))
    return acknowledged


async def follow(store: EtcdStore, prefix: str, events: list[WatchEvent]) -> None:
    async with aclosing(store.watch(prefix, after=0)) as batches:
        async for batch in batches:
            events += batch.events


async def until(condition: object, seconds: float = 30) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_killing_the_leader_that_is_asked_loses_no_write_and_no_event(members: list[Member]) -> None:
    leader = await leader_of(members)
    store = EtcdStore(options([leader, *(member for member in members if member is not leader)]))
    events: list[WatchEvent] = []
    follower = asyncio.create_task(follow(store, "w/", events))
    done = asyncio.Event()
    writers = [asyncio.create_task(write(store, f"w/{i}", done)) for i in range(4)]
    await until(lambda: len(events) > 50)
    assert (await store.status()).endpoint == leader.endpoint
    leader.kill()
    seen = len(events)
    await until(lambda: len(events) > seen + 50)
    done.set()
    acknowledged = {pair for pairs in await asyncio.gather(*writers) for pair in pairs}
    assert (await store.status()).endpoint != leader.endpoint
    last = max(revision for revision, _ in acknowledged)
    await until(lambda: events[-1].revision >= last)
    # Each key is written once, so one that came twice would be a duplicate.
    keys = [event.key for event in events]
    assert len(keys) == len(set(keys))
    revisions = [event.revision for event in events]
    assert revisions == sorted(revisions)
    assert acknowledged <= {(event.revision, event.key) for event in events}
    assert {item.key async for page in store.list("w/") for item in page.items} == set(keys)
    await store.close()
    await follower


async def test_a_frozen_member_is_left_by_calls_watches_and_renewals(members: list[Member]) -> None:
    store = EtcdStore(options(members, timeout=4.0))
    lease = await store.grant(60)
    events: list[WatchEvent] = []
    follower = asyncio.create_task(follow(store, "f/", events))
    await store.commit(create("f/before"))
    await until(lambda: len(events) == 1)
    asked = members[0]
    asked.freeze()
    try:
        other = EtcdStore(options(members[1:]))
        await other.commit(create("f/after"))
        await until(lambda: len(events) == 2)
        assert await store.renew([lease]) == {lease: 60.0}
        assert (await store.get("f/after")) is not None
        assert (await store.status()).endpoint != asked.endpoint
        await other.close()
    finally:
        asked.thaw()
    await store.close()
    await follower


async def test_without_a_quorum_the_store_is_unavailable_and_back_when_it_is_back(members: list[Member]) -> None:
    store = EtcdStore(options(members, timeout=1.5))
    for member in members[1:]:
        member.kill()
    # The first call may reach the last member before it knows that it is alone, and hang.
    codes: set[Code] = set()
    loop = asyncio.get_running_loop()
    for _ in range(2):
        began = loop.time()
        with pytest.raises(TrimtabError) as gone:
            await store.commit(Transaction(then=(Put("q", b"2"),)))
        codes.add(gone.value.code)
        assert loop.time() - began < 6
    assert codes <= {Code.STORE_UNAVAILABLE, Code.STORE_TIMEOUT}
    assert Code.STORE_UNAVAILABLE in codes
    for member in members[1:]:
        member.start()
    later = EtcdStore(options(members, timeout=30.0))
    assert (await later.commit(Transaction(then=(Put("q", b"3"),)))).succeeded
    await later.close()
    await store.close()
