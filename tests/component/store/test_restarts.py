"""One etcd that is killed and started again while it is written to and watched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from controlplane.errors import Code, TrimtabError
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.port import Compare, Operator, Put, Target, Transaction, WatchBatch, WatchEvent
from tests.support.etcd import Member, free_port
from tests.support.link import Link


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[Member]:
    member = Member(tmp_path)
    try:
        member.start()
        await member.listening()
        yield member
    finally:
        member.stop()


@pytest.fixture
async def store(member: Member) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(EtcdOptions((member.endpoint,), timeout=15))
    yield store
    await store.close()


async def count_up(store: EtcdStore, key: str, until: asyncio.Event) -> list[tuple[int, str, int]]:
    """Increment a number under compare-and-set; what was acknowledged, as (revision, key, number)."""
    acknowledged = []
    while not until.is_set():
        try:
            found = await store.get(key)
            number = int(found.value) + 1 if found else 1
            guard = Compare(key, Target.MOD_REVISION, Operator.EQUAL, found.mod_revision if found else 0)
            outcome = await store.commit(Transaction((guard,), (Put(key, b"%d" % number),)))
        except TrimtabError as error:
            assert error.code.retryable, error
        else:
            assert outcome.succeeded
            acknowledged.append((outcome.revision, key, number))
    return acknowledged


async def follow(store: EtcdStore, prefix: str, after: int, events: list[WatchEvent]) -> None:
    async with aclosing(store.watch(prefix, after=after)) as batches:
        async for batch in batches:
            events += batch.events


async def until(condition: object, seconds: float = 30) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_watch_resumes_without_loss_or_duplicate_when_its_member_is_killed_under_load(
    member: Member, store: EtcdStore
) -> None:
    events: list[WatchEvent] = []
    follower = asyncio.create_task(follow(store, "n/", 0, events))
    done = asyncio.Event()
    writers = [asyncio.create_task(count_up(store, f"n/{i}", done)) for i in range(4)]
    for _ in range(3):
        seen = len(events)
        await until(lambda seen=seen: len(events) > seen + 30)
        member.kill()
        member.start()
    seen = len(events)
    await until(lambda: len(events) > seen + 30)
    done.set()
    acknowledged = {told for counted in await asyncio.gather(*writers) for told in counted}
    last = max(revision for revision, _, _ in acknowledged)
    await until(lambda: events[-1].revision >= last)
    told = [(event.revision, event.key, int(event.value.value)) for event in events if event.value]
    assert [revision for revision, _, _ in told] == sorted(revision for revision, _, _ in told)
    assert acknowledged <= set(told)
    for i in range(4):
        # Each increment was made once: by the writer, or by a try whose answer was lost.
        numbers = [number for _, key, number in told if key == f"n/{i}"]
        assert numbers == list(range(1, len(numbers) + 1))
    await store.close()
    await follower


async def test_a_compaction_while_the_watch_was_away_is_told(tmp_path: Path) -> None:
    member = Member(tmp_path)
    member.start()
    await member.listening()
    async with Link(member.endpoint) as link:
        try:
            store = EtcdStore(EtcdOptions((link.endpoint,)))
            direct = EtcdStore(EtcdOptions((member.endpoint,)))
            events: list[WatchEvent] = []
            follower = asyncio.create_task(follow(store, "c/", 0, events))
            await direct.commit(Transaction(then=(Put("c/1", b""),)))
            await until(lambda: len(events) == 1)
            link.refusing = True
            link.cut()
            for _ in range(3):
                latest = (await direct.commit(Transaction(then=(Put("c/2", b""),)))).revision
            await direct.compact(latest)
            link.refusing = False
            with pytest.raises(TrimtabError) as gone:
                await asyncio.wait_for(follower, 20)
            assert gone.value.code is Code.STORE_COMPACTED
            assert member.port != int(link.endpoint.rpartition(":")[2])
            await store.close()
            await direct.close()
        finally:
            member.stop()


async def test_a_store_that_was_emptied_is_not_watched_from_its_future(tmp_path: Path) -> None:
    first = Member(tmp_path, "first")
    first.start()
    await first.listening()
    store = EtcdStore(EtcdOptions((first.endpoint,), timeout=15))
    events: list[WatchEvent] = []
    follower = asyncio.create_task(follow(store, "e/", 0, events))
    for _ in range(5):
        await store.commit(Transaction(then=(Put("e/1", b""),)))
    await until(lambda: len(events) == 5)
    first.kill()
    second = Member(tmp_path, "second", client_port=first.port)
    second.start()
    try:
        with pytest.raises(TrimtabError, match="restored or emptied") as gone:
            await asyncio.wait_for(follower, 20)
        assert gone.value.code is Code.STORE_COMPACTED
    finally:
        await store.close()
        second.stop()


async def test_catching_up_with_many_megabytes_is_no_trouble(store: EtcdStore) -> None:
    value = bytes(100_000)
    for start in range(0, 120, 10):
        await store.commit(Transaction(then=tuple(Put(f"big/{i:03}", value) for i in range(start, start + 10))))
    events: list[WatchEvent] = []
    follower = asyncio.create_task(follow(store, "big/", 0, events))
    await until(lambda: len(events) >= 120)
    assert [event.key for event in events] == [f"big/{i:03}" for i in range(120)]
    listed = [len(item.value) async for page in store.list("big/") for item in page.items]
    assert listed == [100_000] * 120
    await store.close()
    await follower


async def test_a_silent_watch_is_kept_and_a_muted_one_is_replaced(member: Member) -> None:
    async with Link(member.endpoint) as link:
        store = EtcdStore(EtcdOptions((link.endpoint,), silence=0.6))
        events: list[WatchEvent] = []
        follower = asyncio.create_task(follow(store, "s/", 0, events))
        await store.commit(Transaction(then=(Put("s/1", b""),)))
        await until(lambda: len(events) == 1)
        connections = link.connections
        await asyncio.sleep(1.5)
        assert link.connections == connections
        link.mute()
        direct = EtcdStore(EtcdOptions((member.endpoint,)))
        await direct.commit(Transaction(then=(Put("s/2", b""),)))
        # Long enough for the watch to give the connection up by itself; the cut only frees the way.
        await asyncio.sleep(1.0)
        link.cut()
        await until(lambda: len(events) == 2)
        await direct.close()
        await store.close()
        await follower


async def test_a_reader_that_takes_its_time_is_not_taken_for_a_stalled_member(store: EtcdStore, member: Member) -> None:
    async with Link(member.endpoint) as link:
        slow = EtcdStore(EtcdOptions((link.endpoint,), silence=0.3))
        batches: list[WatchBatch] = []
        async with aclosing(slow.watch("r/", after=0)) as stream:
            await store.commit(Transaction(then=(Put("r/1", b""),)))
            batches.append(await anext(stream))
            connections = link.connections
            await asyncio.sleep(0.9)
            await store.commit(Transaction(then=(Put("r/2", b""),)))
            batches.append(await asyncio.wait_for(anext(stream), 20))
        assert [event.key for batch in batches for event in batch.events] == ["r/1", "r/2"]
        assert link.connections == connections
        await slow.close()


async def test_while_etcd_is_down_little_is_tried_and_little_burnt_and_its_return_is_noticed_at_once(
    tmp_path: Path,
) -> None:
    member = Member(tmp_path, client_port=free_port())
    async with Link(member.endpoint) as link:
        link.refusing = True
        store = EtcdStore(EtcdOptions((link.endpoint,), timeout=30))
        events: list[WatchEvent] = []
        tasks = [asyncio.create_task(follow(store, "d/", 0, events))]
        calls = [asyncio.create_task(store.get(f"d/{i}")) for i in range(50)]
        renewal = asyncio.create_task(store.renew([7]))
        burnt = time.process_time()
        await asyncio.sleep(2)
        burnt = time.process_time() - burnt
        assert link.connections <= 12
        assert burnt < 1.0
        member.start()
        await member.listening()
        link.refusing = False
        async with asyncio.timeout(10):
            assert await asyncio.gather(*calls) == [None] * 50
            assert await renewal == {7: 0.0}
        await store.commit(Transaction(then=(Put("d/x", b""),)))
        await until(lambda: len(events) == 1)
        await store.close()
        await asyncio.gather(*tasks)
        member.stop()


async def test_when_nothing_answers_the_error_says_where_and_why() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    store = EtcdStore(EtcdOptions((endpoint,), timeout=0.5))
    with pytest.raises(TrimtabError, match="Connection refused") as gone:
        await store.commit(Transaction(then=(Put("x", b""),)))
    assert gone.value.code is Code.STORE_UNAVAILABLE
    assert endpoint in gone.value.message
    assert gone.value.hint
    with pytest.raises(TrimtabError) as gone:
        await store.renew([1])
    assert gone.value.code is Code.STORE_UNAVAILABLE
    await store.close()
