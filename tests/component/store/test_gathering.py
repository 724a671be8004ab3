"""Transactions that wait at the same moment go to etcd in one request, and nobody can tell but by the revisions."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from controlplane.errors import Code, TrimtabError
from controlplane.store.embedded import EmbeddedEtcd
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.port import Compare, KeyValue, Operator, Outcome, Put, Target, Transaction
from tests.support.etcd import Member, etcd_binaries
from tests.support.link import Link


@pytest.fixture(params=etcd_binaries())
def server(request: pytest.FixtureRequest, etcd_servers: Callable[[Path], EmbeddedEtcd]) -> EmbeddedEtcd:
    return etcd_servers(etcd_binaries()[request.param])


@pytest.fixture
async def direct(server: EmbeddedEtcd) -> AsyncIterator[EtcdStore]:
    """A store to look with, already connected."""
    store = EtcdStore(EtcdOptions((server.endpoint,)))
    await store.status()
    yield store
    await store.close()


@pytest.fixture
async def link(server: EmbeddedEtcd) -> AsyncIterator[Link]:
    async with Link(server.endpoint) as link:
        yield link


@pytest.fixture
async def far(link: Link) -> AsyncIterator[EtcdStore]:
    """A store whose answers can be lost on the way, already connected."""
    store = EtcdStore(EtcdOptions((link.endpoint,), timeout=10))
    await store.status()
    yield store
    await store.close()


def create(key: str, value: bytes = b"v", lease: int = 0) -> Transaction:
    absent = Compare(key, Target.CREATE_REVISION, Operator.EQUAL, 0)
    return Transaction((absent,), (Put(key, value, lease),), read=(f"{key}/before",))


async def together(store: EtcdStore, transactions: Iterable[Transaction]) -> list[Outcome | BaseException]:
    """Commit all at once: the first are sent alone, the others wait for them and go together."""
    return await asyncio.gather(*map(store.commit, transactions), return_exceptions=True)


def written(outcomes: Sequence[Outcome | BaseException]) -> list[int]:
    """The revision of each, all of which succeeded."""
    assert all(isinstance(outcome, Outcome) and outcome.succeeded for outcome in outcomes), outcomes
    return [outcome.revision for outcome in outcomes if isinstance(outcome, Outcome)]


def codes(outcomes: Iterable[Outcome | BaseException]) -> list[Code | None]:
    return [outcome.code if isinstance(outcome, TrimtabError) else None for outcome in outcomes]


async def until_written(store: EtcdStore, key: str) -> KeyValue:
    async with asyncio.timeout(20):
        while (found := await store.get(key)) is None:
            await asyncio.sleep(0.01)
    return found


async def test_of_many_at_once_each_gets_its_own_outcome_in_few_requests(direct: EtcdStore, mesh_prefix: str) -> None:
    taken = {f"{mesh_prefix}/{i}" for i in range(0, 500, 3)}
    await together(direct, map(create, sorted(taken)))
    start = (await direct.status()).revision
    outcomes = await together(
        direct,
        (
            Transaction(
                create(f"{mesh_prefix}/{i}").compare, (Put(f"{mesh_prefix}/{i}", b"%d" % i),), (f"{mesh_prefix}/0",)
            )
            for i in range(1, 500)
        ),
    )
    first = await direct.get(f"{mesh_prefix}/0")
    for i, outcome in enumerate(outcomes, 1):
        key = f"{mesh_prefix}/{i}"
        found = await direct.get(key)
        assert isinstance(outcome, Outcome)
        assert found is not None
        assert outcome.found == {f"{mesh_prefix}/0": first}
        assert outcome.succeeded is (key not in taken)
        if outcome.succeeded:
            assert (found.value, found.mod_revision) == (b"%d" % i, outcome.revision)
        else:
            assert found.value == b"v"
            assert outcome.revision >= found.mod_revision
    assert (await direct.status()).revision - start <= 50


async def test_without_gathering_each_transaction_is_a_request(server: EmbeddedEtcd, mesh_prefix: str) -> None:
    store = EtcdStore(EtcdOptions((server.endpoint,), gather=False))
    revisions = written(await together(store, (create(f"{mesh_prefix}/{i}") for i in range(50))))
    assert len(set(revisions)) == 50
    await store.close()


async def test_a_lost_lease_costs_nobody_else_anything(direct: EtcdStore, mesh_prefix: str) -> None:
    lease, gone = await direct.grant(60), await direct.grant(60)
    await direct.revoke(gone)
    leases = [gone if i == 10 else lease for i in range(20)]
    outcomes = await together(direct, (create(f"{mesh_prefix}/{i}", lease=leases[i]) for i in range(20)))
    assert codes(outcomes) == [Code.SESSION_LOST if i == 10 else None for i in range(20)]
    written([outcome for i, outcome in enumerate(outcomes) if i != 10])
    assert await direct.get(f"{mesh_prefix}/10") is None


async def test_one_that_etcd_refuses_costs_nobody_else_anything(direct: EtcdStore, mesh_prefix: str) -> None:
    twice = Transaction(then=(Put(f"{mesh_prefix}/twice", b"1"), Put(f"{mesh_prefix}/twice", b"2")))
    others = [Transaction(then=(Put(f"{mesh_prefix}/{i}", b""),)) for i in range(19)]
    outcomes = await together(direct, [*others[:10], twice, *others[10:]])
    assert codes(outcomes) == [Code.STORE_REFUSED if i == 10 else None for i in range(20)]


async def test_an_etcd_that_takes_fewer_operations_takes_them_one_by_one(tmp_path: Path) -> None:
    member = Member(tmp_path, flags=("--max-txn-ops=4",))
    member.start()
    await member.listening()
    store = EtcdStore(EtcdOptions((member.endpoint,)))
    assert len(set(written(await together(store, (create(f"k/{i}") for i in range(30)))))) == 30
    await store.close()
    member.stop()


async def test_writers_of_one_key_come_one_after_the_other(direct: EtcdStore, mesh_prefix: str) -> None:
    outcomes = await together(
        direct, (Transaction(then=(Put(mesh_prefix, b"%d" % i),), read=(mesh_prefix,)) for i in range(30))
    )
    assert len(set(written(outcomes))) == 30
    found = [outcome.found.get(mesh_prefix) for outcome in outcomes if isinstance(outcome, Outcome)]
    replaced = Counter(None if before is None else before.value for before in found)
    last = await direct.get(mesh_prefix)
    assert last is not None
    assert replaced + Counter([last.value]) == Counter([None, *(b"%d" % i for i in range(30))])


async def test_counters_lose_no_count(direct: EtcdStore, mesh_prefix: str) -> None:
    keys = [f"{mesh_prefix}/{i}" for i in range(5)]

    async def count(number: int) -> None:
        key = keys[number % len(keys)]
        while True:
            held = await direct.get(key)
            value, revision = (int(held.value), held.mod_revision) if held else (0, 0)
            unchanged = Compare(key, Target.MOD_REVISION, Operator.EQUAL, revision)
            aside = Put(f"{mesh_prefix}/by/{number}", b"")
            if (await direct.commit(Transaction((unchanged,), (Put(key, b"%d" % (value + 1)), aside)))).succeeded:
                return

    async with asyncio.timeout(30):
        await asyncio.gather(*map(count, range(40)))
    assert [found.value for key in keys if (found := await direct.get(key))] == [b"8"] * 5


async def test_a_watch_tells_a_group_in_one_batch_at_the_revision_of_each_outcome(
    direct: EtcdStore, mesh_prefix: str
) -> None:
    start = (await direct.status()).revision
    revisions = written(await together(direct, (create(f"{mesh_prefix}/{i}") for i in range(100))))
    expected = defaultdict(set)
    for i, revision in enumerate(revisions):
        expected[revision].add(f"{mesh_prefix}/{i}")
    assert len(expected) < 20

    async def seen(after: int) -> dict[int, set[str]]:
        told: dict[int, set[str]] = {}
        async with asyncio.timeout(20), aclosing(direct.watch(mesh_prefix, after=after)) as batches:
            async for batch in batches:
                by_revision = defaultdict(set)
                for event in batch.events:
                    assert event.value is not None
                    assert event.value.create_revision == event.value.mod_revision == event.revision
                    by_revision[event.revision].add(event.key)
                assert told.keys().isdisjoint(by_revision)
                told |= by_revision
                if batch.revision >= max(revisions):
                    return told
        raise AssertionError("the watch ended by itself")

    assert await seen(start) == expected
    # Resumed behind one group and before the next one.
    middle = sorted(expected)[len(expected) // 2]
    assert await seen(middle) == {revision: keys for revision, keys in expected.items() if revision > middle}


async def test_creates_whose_answer_was_lost_are_each_judged_by_themselves(
    far: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    link.mute()
    commits = [asyncio.create_task(far.commit(create(f"{mesh_prefix}/{i}", b"ours"))) for i in range(12)]
    last = await until_written(direct, f"{mesh_prefix}/11")
    await direct.commit(Transaction(then=(Put(f"{mesh_prefix}/7", b"theirs"),)))
    link.cut()
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert codes(outcomes) == [Code.STORE_TIMEOUT if i == 7 else None for i in range(12)]
    assert outcomes[11] == outcomes[5] == Outcome(True, last.mod_revision, {})
    theirs = await direct.get(f"{mesh_prefix}/7")
    assert theirs is not None
    assert theirs.value == b"theirs"


async def test_writes_without_a_guard_are_not_repeated_in_company_either(
    far: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    link.mute()
    puts = [Transaction(then=(Put(f"{mesh_prefix}/{i}", b""),)) for i in range(8)]
    commits = [asyncio.create_task(far.commit(put)) for put in puts]
    last = await until_written(direct, f"{mesh_prefix}/7")
    link.cut()
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert codes(outcomes) == [Code.STORE_TIMEOUT] * 8
    assert len({id(outcome) for outcome in outcomes}) == 8
    assert await direct.get(f"{mesh_prefix}/7") == last


async def test_a_caller_that_is_cancelled_before_its_request_is_sent_writes_nothing(
    direct: EtcdStore, mesh_prefix: str
) -> None:
    commits = [asyncio.create_task(direct.commit(create(f"{mesh_prefix}/{i}"))) for i in range(20)]
    await asyncio.sleep(0)
    commits[10].cancel()
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert isinstance(outcomes.pop(10), asyncio.CancelledError)
    written(outcomes)
    assert await direct.get(f"{mesh_prefix}/10") is None


async def test_a_caller_that_is_cancelled_later_takes_nobody_with_it(
    far: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    link.mute()
    commits = [asyncio.create_task(far.commit(create(f"{mesh_prefix}/{i}"))) for i in range(20)]
    found = await until_written(direct, f"{mesh_prefix}/10")
    commits[10].cancel()
    await asyncio.wait({commits[10]})
    link.unmute()
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert isinstance(outcomes.pop(10), asyncio.CancelledError)
    written(outcomes)
    assert await direct.get(f"{mesh_prefix}/10") == found


async def test_requests_without_an_answer_hold_up_nobody_for_long(
    far: EtcdStore, direct: EtcdStore, link: Link, mesh_prefix: str
) -> None:
    link.mute()
    stuck = [asyncio.create_task(far.commit(create(f"{mesh_prefix}/stuck/{i}"))) for i in range(9)]
    await until_written(direct, f"{mesh_prefix}/stuck/8")
    later = asyncio.create_task(far.commit(create(f"{mesh_prefix}/later")))
    await until_written(direct, f"{mesh_prefix}/later")
    assert not any(commit.done() for commit in (*stuck, later))
    link.unmute()
    written(await asyncio.gather(*stuck, later))


async def test_a_store_that_is_closed_leaves_nobody_waiting(
    direct: EtcdStore, server: EmbeddedEtcd, mesh_prefix: str
) -> None:
    before = asyncio.all_tasks()
    store = EtcdStore(EtcdOptions((server.endpoint,)))
    await store.status()
    commits = [asyncio.create_task(store.commit(create(f"{mesh_prefix}/{i}"))) for i in range(200)]
    await until_written(direct, f"{mesh_prefix}/0")
    await store.close()
    outcomes = await asyncio.wait_for(asyncio.gather(*commits, return_exceptions=True), 5)
    assert set(codes(outcomes)) <= {None, Code.STORE_UNAVAILABLE, Code.STORE_TIMEOUT}
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, Outcome):
            assert await direct.get(f"{mesh_prefix}/{i}") is not None
        elif codes([outcome]) == [Code.STORE_UNAVAILABLE]:
            assert await direct.get(f"{mesh_prefix}/{i}") is None
    assert {task for task in asyncio.all_tasks() if task.get_name().startswith("etcd commit")} <= before
