"""Writes as compare-and-set: a stale view, rivals, lost sessions and duplicates, each with its one outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from controlplane.core.model import (
    ConfigFile,
    Desired,
    Event,
    Instance,
    InstanceState,
    Kind,
    PolicyDocument,
    Ref,
)
from controlplane.core.sessions import Session
from controlplane.errors import Code, TrimtabError
from controlplane.runtime.keeper import new_secret, session_ref
from controlplane.store.port import Outcome, Transaction
from tests.unit.runtime.house import ORDERS, House, Town, write

Build = Callable[..., Awaitable[House]]
A = Instance("default", "orders", "a", "10.0.0.1", 8000)


async def refused(work: Awaitable[object]) -> TrimtabError:
    with pytest.raises(TrimtabError) as caught:
        await work
    return caught.value


async def register(house: House, instance: Instance, session: Session) -> int:
    return await house.operations.register(instance, session=session.ref, lease=session.lease)


async def asleep(house: House) -> House:
    """A replica whose view stands still."""
    await house.die()
    return house


async def test_a_registration_is_visible_from_the_revision_that_is_told(house: House) -> None:
    session, _ = await house.open()
    revision = await register(house, A, session)
    stored = await house.stored(A.ref)
    assert stored is not None
    assert (stored.record, stored.revision, stored.lease) == (A, revision, session.lease)


async def test_registering_the_same_again_writes_nothing(house: House, store: Town) -> None:
    session, _ = await house.open()
    first = await register(house, A, session)
    before = (await store.status()).revision
    assert await register(house, A, session) == first
    assert (await store.status()).revision == before


async def test_a_view_that_lags_decides_nothing(build: Build) -> None:
    one, two = await build("one"), await build("two")
    session, _ = await one.open()
    await asleep(two)
    first = await register(one, A, session)
    # Replica two has never heard of it: its "absent" does not hold, and it decides again.
    assert await register(two, A, session) == first
    heavier = replace(A, weight=7)
    assert await register(two, heavier, session) > first
    assert await two.operations.update(replace(A, weight=8), session=session.ref, lease=session.lease) > first
    await two.operations.deregister(A.ref, session=session.ref, lease=session.lease)
    assert await one.instances() == set()


async def test_what_is_gone_already_is_told_from_a_revision_at_which_it_is_gone(build: Build) -> None:
    one, late = await build("one"), await build("late")
    session, _ = await one.open()
    await register(one, A, session)
    await late.sees("a")
    await asleep(late)
    gone = await one.operations.deregister(A.ref, session=session.ref, lease=session.lease)
    again = await late.operations.deregister(A.ref, session=session.ref, lease=session.lease)
    assert again >= gone > late.view.revision, "the view that lags still shows it"


async def test_a_duplicate_that_only_a_stale_view_sees_is_no_duplicate(build: Build) -> None:
    one, two = await build("one"), await build("two")
    session, _ = await one.open()
    mine, _ = await two.open()
    await register(one, A, session)
    await two.sees("a")
    await asleep(two)
    await one.operations.deregister(A.ref, session=session.ref, lease=session.lease)
    elsewhere = replace(A, port=9000)
    await register(two, elsewhere, mine)
    stored = await one.stored(A.ref)
    assert stored is not None
    assert stored.record == elsewhere


async def test_an_id_that_another_session_holds_elsewhere_is_a_duplicate(house: House) -> None:
    mine, _ = await house.open()
    others, _ = await house.open()
    await register(house, A, others)
    error = await refused(register(house, replace(A, port=9000), mine))
    assert error.code is Code.INSTANCE_DUPLICATE
    assert "10.0.0.1:8000" in error.message


async def test_the_next_life_at_the_same_address_takes_over_and_the_last_ones_end_does_not_touch_it(
    house: House,
) -> None:
    earlier, _ = await house.open()
    later, _ = await house.open()
    await register(house, A, earlier)
    await register(house, A, later)
    await house.keeper.end(earlier, "goodbye")
    stored = await house.stored(A.ref)
    assert stored is not None
    assert stored.lease == later.lease
    error = await refused(house.operations.deregister(A.ref, session=earlier.ref, lease=earlier.lease))
    assert error.code is Code.INSTANCE_NOT_FOUND


async def test_nothing_is_registered_for_a_session_that_has_ended(house: House) -> None:
    session, _ = await house.open()
    await house.keeper.end(session, "goodbye")
    assert (await refused(register(house, A, session))).code is Code.SESSION_LOST
    assert await house.instances() == set()


@pytest.mark.parametrize("what", ["update", "deregister"])
async def test_a_lease_without_its_secret_changes_nothing(house: House, what: str) -> None:
    """The lease is public: operators see it."""
    session, _ = await house.open()
    await register(house, A, session)
    guess = session_ref(session.lease, new_secret())
    if what == "update":
        drained = replace(A, state=InstanceState.DRAINING)
        error = await refused(house.operations.update(drained, session=guess, lease=session.lease))
    else:
        error = await refused(house.operations.deregister(A.ref, session=guess, lease=session.lease))
    assert error.code is Code.SESSION_LOST
    stored = await house.stored(A.ref)
    assert stored is not None
    assert stored.record == A


async def test_rivals_for_one_instance_all_get_an_answer_and_one_wins_at_a_time(house: House) -> None:
    sessions = [(await house.open())[0] for _ in range(5)]
    results = await asyncio.gather(*(register(house, A, session) for session in sessions))
    assert len(set(results)) == 5
    stored = await house.stored(A.ref)
    assert stored is not None
    assert stored.revision == max(results)


async def test_one_who_always_comes_too_late_is_told_so(house: House, store: Town) -> None:
    """Somebody else writes before each of its commits."""
    session, _ = await house.open()
    await register(house, A, session)
    commit, weight = store.commit, 1

    async def outrun(transaction: Transaction) -> Outcome:
        nonlocal weight
        weight += 1
        store.commit = commit  # type: ignore[method-assign]
        await write(house, replace(A, weight=weight), A.ref, session.lease)
        store.commit = outrun  # type: ignore[method-assign]
        return await commit(transaction)

    store.commit = outrun  # type: ignore[method-assign]
    error = await refused(register(house, replace(A, zone="x"), session))
    assert (error.code, error.code.retryable) == (Code.CONFLICT, True)


async def test_a_store_that_is_away_is_told(house: House, store: Town) -> None:
    session, _ = await house.open()
    store.away = True
    assert (await refused(register(house, A, session))).code is Code.STORE_UNAVAILABLE


class TestIntent:
    async def test_a_drain_is_seen_when_it_is_answered(self, house: House) -> None:
        session, _ = await house.open()
        await register(house, A, session)
        await house.sees("a")
        await house.operations.drain("default", "orders", "a", drain=True, by="me")
        listed = house.view.instance(ORDERS, "a")
        assert listed is not None
        assert listed.desired is not None
        assert listed.desired.record == Desired(drain=True, by="me")

    async def test_an_instance_that_this_view_has_not_seen_yet_can_be_drained(self, build: Build) -> None:
        one, two = await build("one"), await build("two")
        session, _ = await one.open()
        await register(one, A, session)
        await two.sees("a")
        two.view.apply(two.view.revision, [Event(A.ref, None, two.view.revision)])
        assert await two.operations.drain("default", "orders", "a", drain=True, by="me")

    async def test_intent_for_what_does_not_exist_is_refused(self, house: House) -> None:
        error = await refused(house.operations.drain("default", "orders", "nope", drain=True, by="me"))
        assert error.code is Code.INSTANCE_NOT_FOUND

    async def test_intent_outlives_its_instance_and_can_be_taken_back(self, house: House) -> None:
        session, _ = await house.open()
        await register(house, A, session)
        await house.operations.drain("default", "orders", "a", drain=True, by="me")
        await house.keeper.end(session, "goodbye")
        await house.sees()
        await house.operations.drain("default", "orders", "a", drain=False, by="me")
        assert await house.stored(Ref(Kind.DESIRED, ("default", "orders", "a"))) is None

    async def test_drain_and_weight_do_not_disturb_each_other(self, house: House) -> None:
        session, _ = await house.open()
        await register(house, A, session)
        await asyncio.gather(
            house.operations.drain("default", "orders", "a", drain=True, by="me"),
            house.operations.set_weight("default", "orders", "a", weight=3, by="you"),
        )
        stored = await house.stored(Ref(Kind.DESIRED, ("default", "orders", "a")))
        assert stored is not None
        assert isinstance(stored.record, Desired)
        assert (stored.record.drain, stored.record.weight) == (True, 3)

    @pytest.mark.parametrize("weight", [-1, 65_536])
    async def test_a_weight_out_of_range_is_refused(self, house: House, weight: int) -> None:
        error = await refused(house.operations.set_weight("default", "orders", "a", weight=weight, by="me"))
        assert [violation.path for violation in error.violations] == ["weight"]


class TestConfiguration:
    @staticmethod
    async def release(house: House, content: bytes, expect: int | None = None) -> int:
        return await house.operations.put_config(
            "default", "orders", "app", format="text", content=content, author="me", expect=expect
        )

    async def test_a_release_is_visible_when_it_is_answered_and_the_same_again_is_no_release(
        self, house: House
    ) -> None:
        revision = await self.release(house, b"1")
        stored = house.view.config("default", "orders", "app")
        assert stored is not None
        assert (stored.record, stored.revision) == (ConfigFile("text", b"1", "me"), revision)
        assert await self.release(house, b"1") == revision

    async def test_a_release_may_demand_what_it_replaces(self, house: House) -> None:
        revision = await self.release(house, b"1", expect=0)
        assert (await refused(self.release(house, b"2", expect=0))).code is Code.PRECONDITION
        assert (await refused(self.release(house, b"2", expect=revision - 1))).code is Code.PRECONDITION
        newer = await self.release(house, b"2", expect=revision)
        assert newer > revision

    async def test_what_is_withdrawn_is_gone_and_cannot_be_withdrawn_again(self, house: House) -> None:
        revision = await self.release(house, b"1")
        withdraw = house.operations.delete_config
        assert (await refused(withdraw("default", "orders", "app", expect=1))).code is Code.PRECONDITION
        await withdraw("default", "orders", "app", expect=revision)
        assert house.view.config("default", "orders", "app") is None
        assert (await refused(withdraw("default", "orders", "app"))).code is Code.NOT_FOUND


class TestPolicies:
    TEXT = (
        b"{apiVersion: trimtab/v1, kind: ServicePolicy, metadata: {name: orders, namespace: shop},"
        b" spec: {default: {timeout: 3s}}}"
    )

    async def put(
        self, house: House, text: bytes = TEXT, expect: int | None = None, *, validate_only: bool = False
    ) -> int:
        return await house.operations.put_policy(
            "shop", "orders", text, author="me", expect=expect, validate_only=validate_only
        )

    async def test_a_policy_is_visible_when_it_is_answered_and_the_same_again_is_no_write(self, house: House) -> None:
        revision = await self.put(house)
        stored = house.view.policy("shop", "orders")
        assert stored is not None
        assert isinstance(stored.record, PolicyDocument)
        assert (stored.record.author, stored.revision) == ("me", revision)
        assert await self.put(house, expect=revision) == revision

    async def test_a_write_may_demand_what_it_replaces(self, house: House) -> None:
        revision = await self.put(house, expect=0)
        other = self.TEXT.replace(b"3s", b"4s")
        assert (await refused(self.put(house, other, 0))).code is Code.PRECONDITION
        assert (await refused(self.put(house, other, revision - 1))).code is Code.PRECONDITION
        assert await self.put(house, other, revision) > revision

    async def test_what_is_only_validated_meets_every_refusal_and_writes_nothing(self, house: House) -> None:
        assert await self.put(house, expect=0, validate_only=True) == 0
        assert house.view.policy("shop", "orders") is None
        assert (await refused(self.put(house, b"{}", validate_only=True))).code is Code.POLICY_INVALID
        revision = await self.put(house)
        assert (await refused(self.put(house, expect=0, validate_only=True))).code is Code.PRECONDITION
        assert await self.put(house, expect=revision, validate_only=True) == revision

    async def test_what_is_withdrawn_is_gone_and_cannot_be_withdrawn_again(self, house: House) -> None:
        revision = await self.put(house)
        withdraw = house.operations.delete_policy
        assert (await refused(withdraw("shop", "orders", expect=1))).code is Code.PRECONDITION
        await withdraw("shop", "orders", expect=revision)
        assert house.view.policy("shop", "orders") is None
        assert (await refused(withdraw("shop", "orders"))).code is Code.NOT_FOUND
