"""How replicas know of each other, and whom they serve."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from controlplane.core.model import Kind, Ref, Replica
from controlplane.core.view import View
from controlplane.runtime.backoff import Backoff
from controlplane.runtime.clients import ClientInfo, Clients, Load
from controlplane.runtime.presence import Presence
from controlplane.runtime.readiness import Readiness
from tests.unit.core.nouns import put
from tests.unit.runtime.house import House, Town, until

Build = Callable[..., Awaitable[House]]

SOMEONE = ClientInfo(
    node_id="c1",
    name="checkout",
    namespace="default",
    sdk="",
    host="",
    pid=1,
    zone="",
    peer="",
    replica="one",
    session="",
    connected_at=0.0,
    last_heartbeat_age=0.0,
    subscriptions=0,
    acked=0,
    behind=False,
    nacks=(),
    load=Load(),
)


async def test_a_replica_that_was_thought_dead_announces_itself_again(house: House, store: Town) -> None:
    presence = Presence(house.ledger, "fast", ttl=0.3)
    running = asyncio.create_task(presence.run(Replica("fast", "", "", "", 0.0)))
    await until(lambda: presence.lease != 0)
    first = presence.lease
    await store.revoke(first)
    await until(lambda: presence.lease not in {0, first})
    await until(lambda: house.view.record(presence.ref) is not None)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await presence.withdraw()
    await until(lambda: house.view.record(presence.ref) is None)


async def test_a_replica_that_cannot_reach_the_store_keeps_trying(house: House, store: Town) -> None:
    presence = Presence(house.ledger, "late", ttl=0.3)
    store.away = True
    running = asyncio.create_task(presence.run(Replica("late", "", "", "", 0.0)))
    await asyncio.sleep(0.1)
    assert presence.lease == 0
    store.away = False
    await until(lambda: presence.lease != 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_one_that_was_never_announced_has_nothing_to_withdraw(house: House) -> None:
    await Presence(house.ledger, "never", ttl=1.0).withdraw()


class Someone:
    """A stream, as far as listings know it."""

    def __init__(self, info: ClientInfo) -> None:
        self._info = info

    def info(self) -> ClientInfo:
        return self._info


def view_of(*replicas: str) -> View:
    view = View()
    view.load(1, [])
    for revision, id in enumerate(replicas, 2):
        view.apply(revision, [put(Replica(id, f"{id}:1", "", "", 0.0), Ref(Kind.REPLICA, (id,)), revision)])
    return view


async def test_clients_of_all_replicas_are_listed_and_silent_replicas_named() -> None:
    asked: list[str] = []

    async def ask(address: str) -> list[ClientInfo]:
        asked.append(address)
        match address:
            case "two:1":
                return [replace(SOMEONE, node_id="c0", replica="two")]
            case "three:1":
                raise TimeoutError
            case _:
                raise OSError("no route")

    clients = Clients(view_of("one", "two", "three", "four"), "one", ask)
    here = Someone(SOMEONE)
    clients.add(here)
    found, silent = await clients.all()
    assert [client.node_id for client in found] == ["c0", "c1"]
    assert sorted(silent) == ["four", "three"]
    assert "one:1" not in asked, "it does not ask itself"
    clients.remove(here)
    assert clients.local() == []


async def test_a_replica_on_the_address_of_one_that_died_does_not_count_its_clients_twice() -> None:
    async def ask(address: str) -> list[ClientInfo]:
        return clients.local()  # what listens at the dead one's address is this replica

    clients = Clients(view_of("dead", "one"), "one", ask)
    clients.add(Someone(replace(SOMEONE, replica="one")))
    found, silent = await clients.all()
    assert ([client.node_id for client in found], silent) == (["c1"], [])


async def test_a_bug_while_asking_is_not_taken_for_silence() -> None:
    async def ask(address: str) -> list[ClientInfo]:
        raise ValueError(address)

    with pytest.raises(ValueError, match="two:1"):
        await Clients(view_of("two"), "one", ask).all()


async def test_waiting_doubles_up_to_its_limit_and_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(delay: float) -> None:
        slept.append(delay)

    monkeypatch.setattr("controlplane.runtime.backoff.asyncio.sleep", sleep)
    backoff = Backoff(first=1.0, limit=4.0)
    for _ in range(5):
        await backoff.wait()
    backoff.reset()
    await backoff.wait()
    bounds = [1.0, 2.0, 4.0, 4.0, 4.0, 1.0]
    assert all(bound / 2 <= delay <= bound for delay, bound in zip(slept, bounds, strict=True))


def test_a_replica_is_ready_from_its_first_listing_until_it_stops() -> None:
    readiness = Readiness()
    assert not readiness.ready
    assert readiness.reasons == ["the view has not been loaded from the store yet"]
    readiness.started = True
    assert (readiness.ready, readiness.reasons) == (True, [])
    readiness.stopping = True
    assert not readiness.ready
    assert readiness.reasons == ["shutting down"]
