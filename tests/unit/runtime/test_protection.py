"""The guard at work: what is protected is published, seen by all, and cleared by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from controlplane.core.guard import GuardSettings
from controlplane.core.model import Health, Kind
from controlplane.core.sessions import Session
from controlplane.runtime import keeper
from tests.unit.runtime.house import ORDERS, SETTINGS, House, Town, until, until_stored

Build = Callable[..., Awaitable[House]]
GUARDED = replace(SETTINGS, window=60.0, guard=GuardSettings(minimum=3, hold=30.0))


@pytest.fixture
async def guarded(build: Build) -> House:
    return await build("one", GUARDED)


async def fleet(house: House, count: int) -> list[tuple[Session, str]]:
    opened = []
    for number in range(count):
        session, handle = await house.open()
        await house.register(session, f"i{number}")
        opened.append((session, handle))
    await house.sees(*(f"i{number}" for number in range(count)))
    return opened


def healths(house: House) -> list[Health]:
    return [listed.endpoint.health for listed in house.view.instances(ORDERS)]


async def test_sessions_that_break_together_are_protected_on_every_replica_and_stay(
    guarded: House, build: Build
) -> None:
    other = await build("two", GUARDED)
    sessions = await fleet(guarded, 5)
    for session, _ in sessions[:4]:
        guarded.keeper.broke(session)
    await until(lambda: other.view.protected(ORDERS))
    assert healths(other) == [Health.SUSPECT] * 4 + [Health.HEALTHY]
    await asyncio.sleep(4 * SETTINGS.grace)
    assert len(await other.instances()) == 5
    assert guarded.metrics.protected._value.get() == 1


async def test_protection_clears_by_itself_when_enough_come_back(guarded: House) -> None:
    sessions = await fleet(guarded, 4)
    for session, _ in sessions:
        guarded.keeper.broke(session)
    await until(lambda: guarded.view.protected(ORDERS))
    for _, handle in sessions:
        await guarded.resume(handle)
    await until(lambda: not guarded.view.protected(ORDERS))
    assert healths(guarded) == [Health.HEALTHY] * 4
    assert guarded.metrics.protected._value.get() == 0


async def test_protection_is_bounded_and_then_the_dead_are_ended(build: Build) -> None:
    house = await build("one", replace(GUARDED, guard=replace(GUARDED.guard, hold=0.5)))
    sessions = await fleet(house, 4)
    for session, _ in sessions:
        house.keeper.broke(session)
    await until(lambda: house.view.protected(ORDERS))
    await until_stored(house, set())
    await until(lambda: not house.view.protected(ORDERS))


async def test_protection_is_claimed_again_when_it_went_with_the_presence_of_its_replica(guarded: House) -> None:
    sessions = await fleet(guarded, 4)
    for session, _ in sessions:
        guarded.keeper.broke(session)
    await until(lambda: guarded.view.protected(ORDERS))
    await guarded.town.revoke(guarded.presence.lease)
    await until(lambda: not guarded.view.protected(ORDERS))
    await guarded.presence._announce(guarded.me)
    await until(lambda: guarded.view.protected(ORDERS))


async def test_more_services_than_one_transaction_takes_are_protected(
    guarded: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = [f"s{number}" for number in range(150)]
    sessions = []
    for _ in range(3):
        session, _ = await guarded.open()
        sessions.append(session)
    for service in services:
        for number, session in enumerate(sessions):
            await guarded.register(session, f"i{number}", service=service)
    await until(lambda: len(guarded.view.services("default")) == 150)
    for session in sessions:
        guarded.keeper.broke(session)
    await until(lambda: guarded.metrics.protected._value.get() == 150)
    _, records = await guarded.ledger.load()
    claims = {stored.ref.path[1] for stored in records if stored.ref.kind is Kind.PROTECTION}
    assert claims == set(services)


async def test_a_claim_that_could_not_be_written_is_written_later(guarded: House, store: Town) -> None:
    sessions = await fleet(guarded, 4)
    store.away = True
    for session, _ in sessions:
        guarded.keeper.broke(session)
    await asyncio.sleep(3 * SETTINGS.grace)
    assert guarded.keeper._protected == {}
    store.away = False
    await until(lambda: guarded.view.protected(ORDERS))


async def test_the_guard_is_asked_at_its_own_pace_while_it_holds(
    guarded: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_REJUDGE", 0.5)
    sessions = await fleet(guarded, 4)
    for session, _ in sessions:
        guarded.keeper.broke(session)
    await until(lambda: guarded.view.protected(ORDERS))
    asked = 0
    judge = guarded.keeper._guard.judge

    def counting(*args: object, **kwargs: object) -> object:
        nonlocal asked
        asked += 1
        return judge(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(guarded.keeper._guard, "judge", counting)
    await asyncio.sleep(1.2)
    assert 1 <= asked <= 12, "four sessions, each judged again every half second, not at every tick"
