"""What every store does, shown on the one in memory and on each etcd that this machine has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from controlplane.errors import Code, TrimtabError
from controlplane.store.embedded import EmbeddedEtcd
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.memory import MemoryStore
from controlplane.store.port import (
    Compare,
    Delete,
    KeyValue,
    Operator,
    Outcome,
    Put,
    Store,
    Target,
    Transaction,
    WatchBatch,
    WatchEvent,
)
from tests.support.etcd import etcd_binaries


@pytest.fixture(params=["memory", *(f"etcd {version}" for version in etcd_binaries())])
async def store(request: pytest.FixtureRequest, etcd_servers: Callable[[Path], EmbeddedEtcd]) -> AsyncIterator[Store]:
    kind, _, version = request.param.partition(" ")
    if kind == "memory":
        opened: Store = MemoryStore()
    else:
        opened = EtcdStore(EtcdOptions((etcd_servers(etcd_binaries()[version]).endpoint,)))
    yield opened
    await opened.close()


@pytest.fixture
def key(mesh_prefix: str) -> Callable[[str], str]:
    return lambda name: f"/{mesh_prefix}/{name}"


def absent(key: str) -> Compare:
    return Compare(key, Target.CREATE_REVISION, Operator.EQUAL, 0)


def unchanged(key: str, revision: int) -> Compare:
    return Compare(key, Target.MOD_REVISION, Operator.EQUAL, revision)


async def put(store: Store, key: str, value: bytes = b"", lease: int = 0) -> int:
    return (await store.commit(Transaction(then=(Put(key, value, lease),)))).revision


async def everything(store: Store, prefix: str, page_size: int = 5000) -> list[KeyValue]:
    return [item async for page in store.list(prefix, page_size=page_size) for item in page.items]


async def watched(store: Store, prefix: str, after: int, count: int) -> list[WatchBatch]:
    """The batches of a watch until ``count`` events have come."""
    batches: list[WatchBatch] = []
    async with asyncio.timeout(20), aclosing(store.watch(prefix, after=after)) as stream:  # type: ignore[type-var]
        async for batch in stream:
            batches.append(batch)
            if sum(len(seen.events) for seen in batches) >= count:
                return batches
    raise AssertionError("the watch ended by itself")


def events_of(batches: list[WatchBatch]) -> list[WatchEvent]:
    return [event for batch in batches for event in batch.events]


class TestTransactions:
    async def test_a_key_is_created_only_while_it_is_absent(self, store: Store, key: Callable[[str], str]) -> None:
        create = Transaction((absent(key("a")),), (Put(key("a"), b"1"),))
        first = await store.commit(create)
        second = await store.commit(Transaction((absent(key("a")),), (Put(key("a"), b"2"),), read=(key("a"),)))
        assert first.succeeded
        assert not second.succeeded
        assert second.revision == first.revision
        assert second.found == {key("a"): KeyValue(key("a"), b"1", first.revision, first.revision)}

    async def test_a_key_is_updated_only_while_it_is_unchanged(self, store: Store, key: Callable[[str], str]) -> None:
        created = await put(store, key("a"), b"1")
        update = await store.commit(Transaction((unchanged(key("a"), created),), (Put(key("a"), b"2"),)))
        late = await store.commit(Transaction((unchanged(key("a"), created),), (Put(key("a"), b"3"),)))
        assert (update.succeeded, late.succeeded) == (True, False)
        assert await store.get(key("a")) == KeyValue(key("a"), b"2", created, update.revision)

    async def test_what_is_read_shows_what_the_writes_replaced(self, store: Store, key: Callable[[str], str]) -> None:
        created = await put(store, key("a"), b"old")
        outcome = await store.commit(Transaction(then=(Put(key("a"), b"new"),), read=(key("a"), key("none"))))
        assert outcome == Outcome(True, outcome.revision, {key("a"): KeyValue(key("a"), b"old", created, created)})

    async def test_all_writes_share_one_revision(self, store: Store, key: Callable[[str], str]) -> None:
        before = await put(store, key("gone"))
        outcome = await store.commit(Transaction(then=(Put(key("a"), b""), Delete(key("gone")), Put(key("b"), b""))))
        assert outcome.revision == before + 1
        assert {item.mod_revision for item in await everything(store, key(""))} == {outcome.revision}
        assert await store.get(key("gone")) is None

    async def test_nothing_is_written_when_one_comparison_fails(self, store: Store, key: Callable[[str], str]) -> None:
        before = await put(store, key("a"))
        outcome = await store.commit(
            Transaction((unchanged(key("a"), before), absent(key("a"))), (Put(key("b"), b""), Delete(key("a"))))
        )
        assert outcome == Outcome(False, before, {})
        assert [item.key for item in await everything(store, key(""))] == [key("a")]

    async def test_deleting_what_is_not_there_is_no_change(self, store: Store, key: Callable[[str], str]) -> None:
        before = await put(store, key("a"))
        outcome = await store.commit(Transaction(then=(Delete(key("none")), Delete(key("no"), prefix=True))))
        assert outcome == Outcome(True, before, {})

    async def test_a_prefix_is_deleted_with_everything_below_it_and_nothing_beside_it(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        for name in ("a/1", "a/2", "a0", "b"):
            await put(store, key(name))
        await store.commit(Transaction(then=(Delete(key("a/"), prefix=True),)))
        assert [item.key for item in await everything(store, key(""))] == [key("a0"), key("b")]

    @pytest.mark.parametrize(
        ("target", "operator", "operand", "holds"),
        [
            (Target.VALUE, Operator.EQUAL, b"m", True),
            (Target.VALUE, Operator.NOT_EQUAL, b"m", False),
            (Target.VALUE, Operator.GREATER, b"a", True),
            (Target.VALUE, Operator.LESS, b"a", False),
            (Target.LEASE, Operator.EQUAL, 0, True),
            (Target.LEASE, Operator.NOT_EQUAL, 0, False),
            (Target.CREATE_REVISION, Operator.GREATER, 0, True),
            (Target.MOD_REVISION, Operator.LESS, 1, False),
        ],
    )
    async def test_comparisons_look_at_what_they_name(
        self, store: Store, key: Callable[[str], str], target: Target, operator: Operator, operand: int, holds: bool
    ) -> None:
        await put(store, key("a"), b"m")
        outcome = await store.commit(Transaction((Compare(key("a"), target, operator, operand),)))
        assert outcome.succeeded is holds

    @pytest.mark.parametrize("operator", list(Operator))
    async def test_no_comparison_of_a_value_holds_for_a_key_that_is_not_there(
        self, store: Store, key: Callable[[str], str], operator: Operator
    ) -> None:
        outcome = await store.commit(Transaction((Compare(key("none"), Target.VALUE, operator, b"x"),)))
        assert not outcome.succeeded

    async def test_of_many_that_create_one_key_exactly_one_succeeds(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        outcomes = await asyncio.gather(
            *(store.commit(Transaction((absent(key("a")),), (Put(key("a"), b"%d" % i),))) for i in range(20))
        )
        assert sum(outcome.succeeded for outcome in outcomes) == 1

    async def test_values_are_any_bytes_and_keys_any_text(self, store: Store, key: Callable[[str], str]) -> None:
        value = bytes(range(256)) * 4000
        await put(store, key("ünïcode ☂"), value)
        found = await everything(store, key(""))
        assert [(item.key, item.value) for item in found] == [(key("ünïcode ☂"), value)]

    async def test_a_transaction_of_too_many_operations_is_refused(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        with pytest.raises(TrimtabError, match="operations") as refused:
            await store.commit(Transaction(then=tuple(Put(key(str(i)), b"") for i in range(129))))
        assert refused.value.code is Code.STORE_REFUSED
        assert await everything(store, key("")) == []

    async def test_a_transaction_that_writes_one_key_twice_is_refused(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        for twice in ((Put(key("a"), b"1"), Put(key("a"), b"2")), (Put(key("a"), b"1"), Delete(key(""), prefix=True))):
            with pytest.raises(TrimtabError) as refused:
                await store.commit(Transaction(then=twice))
            assert refused.value.code is Code.STORE_REFUSED


class TestLists:
    async def test_pages_come_in_key_order_and_miss_nothing(self, store: Store, key: Callable[[str], str]) -> None:
        for name in ("b", "a", "c/2", "c", "c/1"):
            await put(store, key(name))
        pages = [page async for page in store.list(key(""), page_size=2)]
        assert [[item.key for item in page.items] for page in pages] == [
            [key("a"), key("b")],
            [key("c"), key("c/1")],
            [key("c/2")],
        ]

    async def test_a_listing_stays_at_its_revision_while_others_write(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        for name in "abc":
            await put(store, key(name), b"old")
        began = (await store.status()).revision
        seen: list[tuple[str, bytes]] = []
        async for page in store.list(key(""), page_size=1):
            assert page.revision == began
            seen += [(item.key, item.value) for item in page.items]
            await store.commit(Transaction(then=(Put(key("c"), b"new"), Put(key("d"), b""), Delete(key("b")))))
        assert seen == [(key("a"), b"old"), (key("b"), b"old"), (key("c"), b"old")]

    async def test_an_empty_list_is_one_empty_page_with_a_revision(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        revision = await put(store, key("beside"))
        pages = [(page.revision, page.items) async for page in store.list(key("below/"))]
        assert pages == [(revision, ())]

    async def test_a_listing_overtaken_by_a_compaction_says_so(self, store: Store, key: Callable[[str], str]) -> None:
        for name in "abc":
            await put(store, key(name))
        with pytest.raises(TrimtabError) as overtaken:
            async for _ in store.list(key(""), page_size=1):
                await store.compact(await put(store, key("z")))
        assert overtaken.value.code is Code.STORE_COMPACTED


class TestWatches:
    async def test_a_watch_tells_what_happened_after_its_revision_and_what_happens_next(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        before = await put(store, key("early"))
        first = await put(store, key("a"), b"1")
        later = asyncio.create_task(watched(store, key(""), before, 3))
        second = await put(store, key("a"), b"2")
        gone = (await store.commit(Transaction(then=(Delete(key("a")),)))).revision
        assert events_of(await later) == [
            WatchEvent(key("a"), KeyValue(key("a"), b"1", first, first), first),
            WatchEvent(key("a"), KeyValue(key("a"), b"2", first, second), second),
            WatchEvent(key("a"), None, gone),
        ]

    async def test_a_watch_is_blind_for_its_neighbours(self, store: Store, key: Callable[[str], str]) -> None:
        before = await put(store, key("a"))
        await put(store, key("beside"))
        await put(store, key("below/x"))
        await put(store, key("below0"))
        await put(store, key("below/y"))
        events = events_of(await watched(store, key("below/"), before, 2))
        assert [event.key for event in events] == [key("below/x"), key("below/y")]

    async def test_a_revision_is_never_split_over_two_batches(self, store: Store, key: Callable[[str], str]) -> None:
        before = await put(store, key("start"))
        # More than etcd puts in one answer, so that it comes in fragments.
        value = bytes(40_000)
        for _ in range(2):
            await store.commit(Transaction(then=tuple(Put(key(f"{i:03}"), value[:10_000]) for i in range(100))))
        big = await store.commit(Transaction(then=tuple(Put(key(f"{i:03}"), value) for i in range(30))))
        batches = await watched(store, key(""), before, 230)
        revisions = [{event.revision for event in batch.events} for batch in batches]
        assert sum(len(batch.events) for batch in batches) == 230
        assert sum(map(len, revisions)) == len(set().union(*revisions)) == 3
        assert batches[-1].revision == big.revision
        assert all(
            max(seen, default=batch.revision) <= batch.revision for seen, batch in zip(revisions, batches, strict=True)
        )

    async def test_two_watches_see_the_same(self, store: Store, key: Callable[[str], str]) -> None:
        before = await put(store, key("start"))
        both = [asyncio.create_task(watched(store, key(""), before, 50)) for _ in range(2)]
        for i in range(50):
            await put(store, key(f"k{i % 7}"), b"%d" % i)
        one, other = [events_of(await watch) for watch in both]
        assert one == other
        assert [event.value.value for event in one if event.value] == [b"%d" % i for i in range(50)]

    async def test_a_list_and_a_watch_from_its_revision_leave_no_gap(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        async def write() -> None:
            for i in range(200):
                await put(store, key(f"k{i % 20}"), b"%d" % i)

        writer = asyncio.create_task(write())
        await asyncio.sleep(0)
        view: dict[str, bytes] = {}
        revision = 0
        async for page in store.list(key(""), page_size=3):
            revision = page.revision
            view |= {item.key: item.value for item in page.items}
        await writer
        end = await put(store, key("end"))
        async with asyncio.timeout(20), aclosing(store.watch(key(""), after=revision)) as stream:  # type: ignore[type-var]
            async for batch in stream:
                view |= {event.key: event.value.value for event in batch.events if event.value}
                if batch.revision >= end:
                    break
        assert view == {item.key: item.value for item in await everything(store, key(""))}

    async def test_a_watch_from_what_was_compacted_says_so(self, store: Store, key: Callable[[str], str]) -> None:
        before = await put(store, key("a"))
        for _ in range(3):
            latest = await put(store, key("a"))
        await store.compact(latest)
        with pytest.raises(TrimtabError) as gone:
            await watched(store, key(""), before, 1)
        assert gone.value.code is Code.STORE_COMPACTED

    async def test_a_watch_from_the_compacted_revision_itself_goes_on(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        await put(store, key("a"))
        latest = await put(store, key("b"))
        await store.compact(latest)
        after = await put(store, key("c"))
        assert [event.revision for event in events_of(await watched(store, key(""), latest, 1))] == [after]


class TestLeases:
    async def test_revoking_a_lease_deletes_its_keys_in_one_revision(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        lease = await store.grant(60)
        await put(store, key("a"), b"", lease)
        before = await put(store, key("b"), b"", lease)
        kept = await put(store, key("c"))
        await store.revoke(lease)
        events = events_of(await watched(store, key(""), kept, 2))
        assert {(event.key, event.value, event.revision) for event in events} == {
            (key("a"), None, kept + 1),
            (key("b"), None, kept + 1),
        }
        assert before < kept
        assert [item.key for item in await everything(store, key(""))] == [key("c")]

    async def test_revoking_twice_or_what_never_was_is_no_error(self, store: Store) -> None:
        lease = await store.grant(60)
        await store.revoke(lease)
        await store.revoke(lease)
        await store.revoke(0x1234567)

    async def test_leases_are_different_and_never_zero(self, store: Store) -> None:
        leases = [await store.grant(60) for _ in range(5)]
        assert len({*leases, 0}) == 6

    async def test_a_lease_that_is_not_renewed_ends_and_takes_its_keys_along(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        lease = await store.grant(0.4)
        written = await put(store, key("a"), b"", lease)
        events = events_of(await watched(store, key(""), written, 1))
        assert [(event.key, event.value) for event in events] == [(key("a"), None)]
        assert await store.get(key("a")) is None
        assert await store.renew([lease]) == {lease: 0.0}

    async def test_a_lease_lives_as_long_as_it_is_renewed(self, store: Store, key: Callable[[str], str]) -> None:
        lease = await store.grant(2)
        await put(store, key("a"), b"", lease)
        loop = asyncio.get_running_loop()
        end = loop.time() + 2.6
        while loop.time() < end:
            assert await store.renew([lease]) == {lease: 2.0}
            await asyncio.sleep(0.2)
        assert await store.get(key("a")) is not None

    async def test_many_leases_are_renewed_together_and_each_is_answered_for(self, store: Store) -> None:
        alive = await asyncio.gather(*(store.grant(30) for _ in range(600)))
        gone = alive[::7]
        await asyncio.gather(*map(store.revoke, gone))
        left = await store.renew([*alive, alive[0], 42])
        assert left == {**dict.fromkeys(alive, 30.0), **dict.fromkeys(gone, 0.0), 42: 0.0}
        assert await store.renew([]) == {}

    async def test_a_key_written_anew_without_its_lease_outlives_it(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        lease, other = await store.grant(60), await store.grant(60)
        for name in "ab":
            await put(store, key(name), b"", lease)
        await put(store, key("a"))
        await put(store, key("b"), b"", other)
        await store.revoke(lease)
        assert [(item.key, item.lease) for item in await everything(store, key(""))] == [
            (key("a"), 0),
            (key("b"), other),
        ]

    async def test_nothing_is_written_on_a_lease_that_does_not_exist(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        with pytest.raises(TrimtabError) as lost:
            await store.commit(Transaction(then=(Put(key("a"), b""), Put(key("b"), b"", 0x99))))
        assert lost.value.code is Code.SESSION_LOST
        assert await everything(store, key("")) == []

    async def test_a_comparison_that_fails_comes_before_a_lease_that_does_not_exist(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        outcome = await store.commit(
            Transaction((Compare(key("s"), Target.CREATE_REVISION, Operator.GREATER, 0),), (Put(key("b"), b"", 0x99),))
        )
        assert not outcome.succeeded


class TestHousekeeping:
    async def test_status_tells_version_revision_and_size(self, store: Store, key: Callable[[str], str]) -> None:
        revision = await put(store, key("a"))
        status = await store.status()
        assert (status.revision, status.leader, status.alarms) == (revision, True, ())
        assert status.version
        assert status.endpoint
        assert status.size > 0

    async def test_compacting_again_is_no_error_but_compacting_the_future_is_refused(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        revision = await put(store, key("a"))
        await store.compact(revision)
        await store.compact(revision)
        with pytest.raises(TrimtabError) as refused:
            await store.compact(revision + 1000)
        assert refused.value.code is Code.STORE_REFUSED

    async def test_when_the_store_closes_watches_end_and_calls_are_unavailable(
        self, store: Store, key: Callable[[str], str]
    ) -> None:
        before = await put(store, key("a"))
        seen: list[WatchBatch] = []
        started = asyncio.Event()

        async def follow() -> None:
            async for batch in store.watch(key(""), after=before):
                seen.append(batch)
                started.set()

        task = asyncio.create_task(follow())
        await put(store, key("b"))
        async with asyncio.timeout(20):
            await started.wait()
            await store.close()
            await task
        assert [event.key for event in events_of(seen)] == [key("b")]
        calls = (
            store.get(key("a")),
            store.renew([1]),
            store.grant(5),
            store.revoke(1),
            store.status(),
            store.compact(1),
        )
        for call in calls:
            with pytest.raises(TrimtabError) as closed:
                await call
            assert closed.value.code is Code.STORE_UNAVAILABLE
        assert [batch async for batch in store.watch(key(""), after=before)] == []
