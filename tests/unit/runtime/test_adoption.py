"""What becomes of the sessions of a replica that dies, or seems to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from controlplane.core.change import Change
from controlplane.core.model import Event, Kind, Ref
from tests.unit.runtime.house import ORDERS, SETTINGS, House, Town, until, until_stored

Build = Callable[..., Awaitable[House]]


async def vanish(house: House) -> None:
    """Kill a replica and let its presence run out."""
    await house.die()
    await house.town.revoke(house.presence.lease)


async def test_sessions_of_a_dead_replica_that_nobody_resumes_are_ended(build: Build) -> None:
    dead, heir = await build("dead"), await build("heir")
    session, _ = await dead.open()
    await dead.register(session, "a", "b")
    await vanish(dead)
    await until_stored(heir, set())
    assert await heir.stored(session.ref) is None
    assert len(heir.keeper._sessions) == 0


async def test_they_have_time_to_be_resumed_anywhere(build: Build) -> None:
    settings = replace(SETTINGS, adoption_grace=1.0, window=20.0)
    dead, one, two = await build("dead", settings), await build("one", settings), await build("two", settings)
    handles = []
    for number in range(4):
        session, handle = await dead.open()
        await dead.register(session, f"i{number}")
        handles.append(handle)
    await vanish(dead)
    await until(lambda: "dead" in one.keeper._gone and "dead" in two.keeper._gone)
    await one.resume(handles[0])
    await two.resume(handles[1])
    await until_stored(one, {"i0", "i1"})
    await asyncio.sleep(0.3)
    assert await one.instances() == {"i0", "i1"}
    assert len(one.keeper._sessions) == len(two.keeper._sessions) == 1


async def test_a_replica_that_died_unseen_is_noticed_at_start(build: Build) -> None:
    dead = await build("dead")
    session, _ = await dead.open()
    await dead.register(session, "a")
    await vanish(dead)
    heir = await build("heir")
    await until_stored(heir, set())


async def test_a_replica_that_died_while_the_watch_was_away_is_noticed_by_the_listing(build: Build) -> None:
    dead, heir = await build("dead"), await build("heir")
    await until(lambda: {replica.id for replica in heir.view.replicas()} == {"dead", "heir"})
    revision, records = await heir.ledger.load()
    # A listing after a compaction: the replica is not in it, and no deletion is ever seen.
    left = [stored for stored in records if stored.ref != dead.presence.ref]
    events = [Event(stored.ref, stored, revision + 1) for stored in left]
    heir.reconciler._step(revision + 1, heir.view.load(revision + 1, left), events)
    assert set(heir.keeper._gone) == {"dead"}


async def test_a_replica_that_was_thought_dead_but_lives_keeps_its_sessions(build: Build) -> None:
    """Its presence was lost and is announced again within the grace; its clients beat all the time."""
    settings = replace(SETTINGS, window=30.0)
    alive, other = await build("alive", settings), await build("other", settings)
    sessions = []
    for number in range(3):
        session, _ = await alive.open()
        await alive.register(session, f"i{number}")
        sessions.append(session)
    # It comes back within the grace: the others have only noted that it is gone.
    await other.town.revoke(alive.presence.lease)
    await until(lambda: "alive" in other.keeper._gone)
    await alive.presence._announce(alive.me)
    await until(lambda: "alive" not in other.keeper._gone)
    await asyncio.sleep(3 * SETTINGS.adoption_grace)
    assert await other.instances() == {"i0", "i1", "i2"}
    assert other.keeper._sessions.adopted() == []
    assert all(alive.keeper.heard(session) for session in sessions)


async def test_sessions_that_are_held_are_given_back_when_their_replica_returns(build: Build) -> None:
    guard = replace(SETTINGS.guard, minimum=2, hold=30.0)
    settings = replace(SETTINGS, window=60.0, guard=guard)
    alive, other = await build("alive", settings), await build("other", settings)
    for number in range(3):
        session, _ = await alive.open()
        await alive.register(session, f"i{number}")
    await other.sees("i0", "i1", "i2")
    await other.town.revoke(alive.presence.lease)
    await until(lambda: other.view.protected(ORDERS))
    assert len(other.keeper._sessions.adopted()) == 3
    await alive.presence._announce(alive.me)
    await until(lambda: not other.view.protected(ORDERS))
    assert len(other.keeper._sessions) == 0
    assert await other.instances() == {"i0", "i1", "i2"}


async def test_sessions_that_are_held_and_resumed_elsewhere_are_no_longer_suspected(build: Build) -> None:
    guard = replace(SETTINGS.guard, minimum=2, hold=30.0)
    settings = replace(SETTINGS, window=60.0, guard=guard)
    dead, one, two = await build("dead", settings), await build("one", settings), await build("two", settings)
    handles = []
    for number in range(3):
        session, handle = await dead.open()
        await dead.register(session, f"i{number}")
        handles.append(handle)
    await one.sees("i0", "i1", "i2")
    await vanish(dead)
    await until(lambda: one.view.protected(ORDERS) and two.view.protected(ORDERS))
    for handle in handles:
        await two.resume(handle)
    await until(lambda: not one.view.protected(ORDERS))
    assert len(one.keeper._sessions) == 0
    assert await one.instances() == {"i0", "i1", "i2"}


async def test_the_store_itself_refuses_to_end_sessions_of_a_replica_that_lives(build: Build) -> None:
    """The last word is the transaction's: an heir whose view lags cannot do harm."""
    alive, heir = await build("alive", replace(SETTINGS, window=30.0)), await build("heir")
    session, _ = await alive.open()
    await alive.register(session, "a")
    mistaken = heir.keeper._sessions.adopt(session.lease, session.ref, session.epoch, 0.0, "alive")
    await heir.keeper.end(mistaken, "stream broken")
    assert await heir.instances() == {"a"}
    assert heir.keeper._sessions.get(session.lease) is None
    assert alive.keeper.heard(session)


async def test_adopting_waits_for_a_store_that_is_away(build: Build, store: Town) -> None:
    dead, heir = await build("dead"), await build("heir")
    session, _ = await dead.open()
    await dead.register(session, "a")
    await vanish(dead)
    await until(lambda: "dead" in heir.keeper._gone)
    store.away = True
    await asyncio.sleep(2 * SETTINGS.adoption_grace)
    assert len(heir.keeper._sessions) == 0
    store.away = False
    await until_stored(heir, set())


async def test_the_records_of_a_replica_hang_on_its_presence(build: Build) -> None:
    house = await build("one")
    record = await house.stored(Ref(Kind.REPLICA, ("one",)))
    assert record is not None
    assert record.lease == house.presence.lease
    await house.presence.withdraw()
    assert await house.stored(house.presence.ref) is None
    assert (await house.ledger.commit(Change())).succeeded
