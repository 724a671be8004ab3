"""Sessions in the store: granted, resumed anywhere by one write, renewed, and ended in exactly three ways."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from controlplane.core.model import Instance, Kind, Ref, SessionRecord
from controlplane.core.sessions import Session
from controlplane.errors import Code, TrimtabError
from controlplane.runtime.keeper import new_secret, parse_handle, session_ref
from tests.unit.runtime.house import SETTINGS, House, Town, until, until_stored

Build = Callable[..., Awaitable[House]]


async def refused(work: Awaitable[object]) -> TrimtabError:
    with pytest.raises(TrimtabError) as caught:
        await work
    return caught.value


async def test_an_opened_session_has_a_record_on_its_own_lease(house: House) -> None:
    session, handle = await house.open()
    assert parse_handle(handle) == (session.lease, session.ref)
    record = await house.stored(session.ref)
    assert record is not None
    assert (record.lease, record.revision, record.record) == (session.lease, session.epoch, house.record())
    assert handle.split(".")[1] not in "/".join(session.ref.path), "the store never sees the secret"


async def test_goodbye_ends_a_session_with_all_its_instances_in_one_revision(house: House) -> None:
    session, _ = await house.open()
    await house.register(session, "a", "b", "c")
    await house.sees("a", "b", "c")
    batches = await watched(house, house.keeper.end(session, "goodbye"), until_gone=("a", "b", "c"))
    assert len(batches) == 1
    assert await house.stored(session.ref) is None


async def test_a_broken_session_ends_after_its_grace(house: House) -> None:
    session, _ = await house.open()
    await house.register(session, "a")
    house.keeper.broke(session)
    await until_stored(house, set())
    assert house.metrics.ended.labels("stream broken")._value.get() == 1


async def test_a_silent_session_ends_after_its_window_and_is_told(house: House) -> None:
    session, _ = await house.open()
    await house.register(session, "a")
    await until_stored(house, set())
    assert house.lost == [1]
    assert house.metrics.ended.labels("silence")._value.get() == 1


async def test_a_session_that_beats_stays(house: House) -> None:
    session, _ = await house.open()
    await house.register(session, "a")
    end = asyncio.get_running_loop().time() + 3 * SETTINGS.window
    while asyncio.get_running_loop().time() < end:
        assert house.keeper.heard(session)
        await asyncio.sleep(0.05)
    assert await house.instances() == {"a"}


async def test_resuming_elsewhere_is_one_write_whatever_the_number_of_instances(build: Build, store: Town) -> None:
    one, two = await build("one"), await build("two")
    session, handle = await one.open()
    await one.register(session, *(f"i{n}" for n in range(50)))
    await two.sees(*(f"i{n}" for n in range(50)))
    before, revision = store.commits, (await store.status()).revision
    one.keeper.broke(session)
    resumed = await two.resume(handle)
    assert store.commits == before + 1
    assert resumed.epoch == revision + 1
    # The old replica's grace runs out, and nothing at all happens to the instances.
    events = await watched(two, keep_alive(two, resumed, 4 * SETTINGS.grace))
    assert events == []
    assert len(await two.instances()) == 50
    assert one.keeper._sessions.get(session.lease) is None


async def test_an_old_replica_never_ends_a_session_that_moved(build: Build) -> None:
    one, two = await build("one"), await build("two")
    session, handle = await one.open()
    await one.register(session, "a")
    resumed = await two.resume(handle)
    await one.keeper.end(session, "goodbye")
    assert await two.instances() == {"a"}
    assert one.lost == [], "its client is elsewhere, and well"
    await two.keeper.end(resumed, "goodbye")
    assert await two.instances() == set()


async def test_a_session_that_went_there_and_came_back_is_not_ended_by_the_place_it_left(build: Build) -> None:
    one, two = await build("one"), await build("two")
    session, handle = await one.open()
    await one.register(session, "a")
    one.keeper.broke(session)
    away = await two.resume(handle)
    two.keeper.broke(away)
    back = await one.resume(handle)
    await keep_alive(one, back, 4 * SETTINGS.grace)
    assert await one.instances() == {"a"}
    assert one.keeper.heard(back)


async def test_a_stream_that_was_left_half_open_has_no_say_when_it_breaks_at_last(house: House) -> None:
    old, handle = await house.open()
    await house.register(old, "a")
    new = await house.resume(handle)
    house.keeper.broke(old)
    await keep_alive(house, new, 4 * SETTINGS.grace)
    assert house.keeper.heard(new)
    assert await house.instances() == {"a"}
    house.keeper.broke(new)
    await until_stored(house, set())


async def test_a_resume_that_overtakes_an_end_keeps_the_session(house: House, store: Town) -> None:
    session, handle = await house.open()
    await house.register(session, "a")
    store.held = asyncio.Event()
    ending = asyncio.create_task(house.keeper.end(session, "stream broken"))
    await asyncio.sleep(0)
    store.away = True
    store.held.set()
    assert (await refused(ending)).code is Code.STORE_UNAVAILABLE
    assert (await refused(house.resume(handle))).code is Code.STORE_UNAVAILABLE, "only the store knows whether it ended"
    store.away = False
    store.held = None
    resumed = await house.resume(handle)
    await keep_alive(house, resumed, 4 * SETTINGS.grace)
    assert await house.instances() == {"a"}
    assert session.lease in house.keeper._sessions.renewable()


async def test_an_end_that_overtakes_a_resume_is_told_as_lost(house: House, store: Town) -> None:
    session, handle = await house.open()
    await house.register(session, "a")
    store.held = asyncio.Event()
    ending = asyncio.create_task(house.keeper.end(session, "stream broken"))
    await asyncio.sleep(0)
    resuming = asyncio.create_task(house.resume(handle))
    await asyncio.sleep(0.01)
    store.held.set()
    assert (await refused(resuming)).code is Code.SESSION_LOST
    await ending
    await until_stored(house, set())
    assert house.keeper._sessions.get(session.lease) is None


async def test_nothing_ends_while_the_store_is_away_and_what_was_due_ends_when_it_is_back(
    house: House, store: Town
) -> None:
    session, _ = await house.open()
    await house.register(session, "a")
    store.away = True
    house.keeper.broke(session)
    await until(lambda: session.uncertain)
    store.away = False
    await until_stored(house, set())
    assert house.keeper._sessions.get(session.lease) is None


async def test_a_session_that_never_left_resumes_with_the_store_away(house: House, store: Town) -> None:
    session, handle = await house.open()
    await house.register(session, "a")
    store.away = True
    house.keeper.broke(session)
    resumed = await house.resume(handle)
    await keep_alive(house, resumed, 4 * SETTINGS.grace)
    store.away = False
    assert await house.instances() == {"a"}


async def test_an_end_whose_answer_was_lost_is_finished_later(house: House, store: Town) -> None:
    session, _ = await house.open()
    await house.register(session, "a")
    store.lose_answers = True
    assert (await refused(house.keeper.end(session, "goodbye"))).code is Code.STORE_TIMEOUT
    assert await house.instances() == {"a"}, "the record is gone, the lease not yet"
    store.lose_answers = False
    await until_stored(house, set())


async def test_a_client_that_beats_again_after_an_end_that_failed_lives_on(house: House, store: Town) -> None:
    session, _ = await house.open()
    await house.register(session, "a")
    store.away = True
    await until(lambda: session.uncertain, timeout=20)
    assert house.keeper.heard(session), "it was only silent"
    store.away = False
    await keep_alive(house, session, 3 * SETTINGS.window)
    assert not session.uncertain
    assert await house.instances() == {"a"}
    assert house.lost == []


async def test_a_client_that_beats_again_after_an_end_that_went_through_is_told(house: House, store: Town) -> None:
    session, _ = await house.open()
    await house.register(session, "a")
    store.lose_answers = True
    await until(lambda: session.uncertain, timeout=20)
    assert house.keeper.heard(session), "nobody knows yet"
    await until(lambda: house.lost == [1])
    store.lose_answers = False
    assert house.keeper._sessions.get(session.lease) is None


async def test_a_replica_that_stood_still_calls_nobody_silent(house: House) -> None:
    session, _ = await house.open()
    await house.register(session, "a")
    # The whole loop sleeps: no beat can be read, and no timer runs.
    time.sleep(2 * SETTINGS.window)
    await asyncio.sleep(0.1)
    assert house.keeper.heard(session)
    assert await house.instances() == {"a"}
    await until_stored(house, set())


async def test_a_client_that_comes_back_after_an_end_whose_answer_was_lost_is_told(house: House, store: Town) -> None:
    session, handle = await house.open()
    store.lose_answers = True
    assert (await refused(house.keeper.end(session, "stream broken"))).code is Code.STORE_TIMEOUT
    store.lose_answers = False
    assert (await refused(house.resume(handle))).code is Code.SESSION_LOST
    assert house.keeper._sessions.get(session.lease) is None


async def test_a_resume_whose_answer_was_lost_can_still_be_ended(house: House, store: Town) -> None:
    session, handle = await house.open()
    await house.register(session, "a")
    store.lose_answers = True
    resumed = await house.resume(handle)
    store.lose_answers = False
    record = await house.stored(session.ref)
    assert record is not None
    assert record.revision != resumed.epoch
    await house.keeper.end(resumed, "goodbye")
    assert await house.instances() == set()


async def test_a_session_whose_lease_is_gone_is_told(build: Build, store: Town) -> None:
    house = await build("one", replace(SETTINGS, ttl=0.3, grace=5.0, window=10.0))
    session, _ = await house.open()
    await house.register(session, "a")
    await store.revoke(session.lease)
    await until(lambda: house.lost == [1])
    assert not house.keeper._owns(session)


async def test_a_resumed_session_with_little_time_left_is_renewed_at_once(build: Build, store: Town) -> None:
    one, two = await build("one"), await build("two")
    _, handle = await one.open()
    await one.die()
    store.advance(SETTINGS.ttl - 5)
    session = await two.resume(handle)
    await keep_alive(two, session, 0.5)
    store.advance(10)
    assert await two.stored(session.ref) is not None


async def test_a_replica_that_has_been_here_for_long_renews_what_is_resumed_soon_and_not_at_the_next_round(
    build: Build, store: Town
) -> None:
    settings = replace(SETTINGS, ttl=12.0)
    one, two = await build("one", settings), await build("two", settings)
    two.keeper._settles_at = 0.0
    _, handle = await one.open()
    await one.die()
    store.advance(settings.ttl * 2 / 3)
    session = await two.resume(handle)
    assert two.keeper._unsure[session.lease] - asyncio.get_running_loop().time() <= settings.ttl / 12
    await keep_alive(two, session, 2.0)
    store.advance(5)
    assert await two.stored(session.ref) is not None


async def test_a_released_session_lives_on_its_lease_until_it_is_resumed(build: Build) -> None:
    one, two = await build("one"), await build("two")
    session, handle = await one.open()
    await one.register(session, "a")
    one.keeper.release(session)
    await asyncio.sleep(4 * SETTINGS.grace)
    assert await two.instances() == {"a"}
    assert await two.resume(handle)


SECRET = "3q2-7wAAAAAAAAAAAAAAAA"


@pytest.mark.parametrize(
    "handle",
    [
        "",
        "nonsense",
        "1234",
        f"zz.{SECRET}",
        f"1234.{SECRET}=",
        f"1234567890abcdef0.{SECRET}",
        f"ffffffffffffffff.{SECRET}",
        f"8000000000000000.{SECRET}",
        f"0.{SECRET}",
        f" 1234.{SECRET}",
        f"1234.{SECRET}\n",
    ],
)
async def test_what_is_no_handle_is_refused(house: House, handle: str) -> None:
    for work in (house.resume(handle), house.keeper.renew_detached(handle), house.keeper.close_detached(handle)):
        error = await refused(work)
        assert (error.code, bool(error.hint)) == (Code.SESSION_INVALID, True)


async def test_a_wrong_secret_opens_nothing_and_ends_nothing(house: House) -> None:
    session, _ = await house.open()
    await house.register(session, "a")
    guess = f"{session.lease:x}.{new_secret()}"
    assert (await refused(house.resume(guess))).code is Code.SESSION_LOST
    assert (await refused(house.keeper.renew_detached(guess))).code is Code.SESSION_LOST
    await house.keeper.close_detached(guess)
    assert house.keeper.heard(session)
    assert await house.instances() == {"a"}


class TestDetachedSessions:
    """Registrants without a stream renew by handle, on any replica."""

    @staticmethod
    def record(ttl: float = 20.0) -> SessionRecord:
        return SessionRecord("script", "cron", "default", "", ttl)

    async def test_they_live_while_they_are_renewed_anywhere(self, build: Build, store: Town) -> None:
        one, two = await build("one"), await build("two")
        handle = await one.keeper.open_detached(self.record())
        for house in (one, two, one):
            store.advance(15.0)
            assert await house.keeper.renew_detached(handle) == 20.0
        store.advance(21.0)
        assert (await refused(one.keeper.renew_detached(handle))).code is Code.SESSION_LOST

    async def test_they_are_closed_with_their_instances_and_closing_twice_is_no_error(self, house: House) -> None:
        handle = await house.keeper.open_detached(self.record())
        lease, ref = parse_handle(handle)
        await house.operations.register(Instance("default", "orders", "a", "10.0.0.1", 8000), session=ref, lease=lease)
        await house.keeper.close_detached(handle)
        assert await house.instances() == set()
        await house.keeper.close_detached(handle)

    async def test_no_replica_takes_them_for_a_dead_ones(self, build: Build) -> None:
        one = await build("one")
        handle = await one.keeper.open_detached(self.record())
        await build("two")
        await asyncio.sleep(3 * SETTINGS.adoption_grace)
        assert await one.keeper.renew_detached(handle) == 20.0


async def keep_alive(house: House, session: Session, seconds: float) -> None:
    """Beat for a while."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        house.keeper.heard(session)
        await asyncio.sleep(0.02)


async def watched(house: House, work: Awaitable[object], until_gone: tuple[str, ...] = ()) -> list[int]:
    """Do ``work``; the revisions in which instances changed meanwhile, waiting until ``until_gone`` are deleted."""
    revision, _ = await house.ledger.load()
    seen: list[int] = []
    missing = set(until_gone)

    async def watch() -> None:
        async for reached, events in house.ledger.watch(after=revision):
            touched = [event for event in events if event.ref.kind is Kind.INSTANCE]
            if touched:
                seen.append(reached)
            missing.difference_update(event.ref.path[2] for event in touched if event.stored is None)

    watching = asyncio.create_task(watch())
    await work
    await until(lambda: not missing)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return seen


def test_the_path_of_a_session_proves_its_secret_without_storing_it() -> None:
    assert session_ref(0x1F, "secret") == session_ref(0x1F, "secret") != session_ref(0x1F, "secret2")
    assert session_ref(0x1F, "secret") == Ref(Kind.SESSION, ("1f", session_ref(0x1F, "secret").path[1]))
